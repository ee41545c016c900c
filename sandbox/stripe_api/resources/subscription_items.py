"""A subscription's items one by one."""

from typing import Any

from sandbox.stripe_api.billing.changing import ItemChange, Terms, changed, with_items
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import missing_object
from sandbox.stripe_api.objects import Json, list_of
from sandbox.stripe_api.operation import Asked, Change, Moment, Operation, found
from sandbox.stripe_api.params import Params
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.resources.subscription_params import ItemCreate, ItemDelete, ItemList, ItemUpdate
from sandbox.stripe_api.store import Query, State, every

_PATH = "/v1/subscription_items/{item}"


def _owner(item_id: str, state: State) -> Json:
    """The subscription that has an item."""

    def has_it(subscription: Json) -> bool:
        return any(item["id"] == item_id for item in subscription["items"]["data"])

    owners = every(state, Query("subscription", keep=has_it), 1)
    if not owners:
        raise missing_object("subscription_item", item_id)
    return owners[0]


def _shown(subscription: Json, item_id: str, state: State) -> Json:
    items = shown(subscription, state)["items"]["data"]
    return next(item for item in items if item["id"] == item_id)


def _retrieve(asked: Asked[Params]) -> Change:
    owner = _owner(asked.ids["item"], asked.state)
    return Change(_shown(owner, asked.ids["item"], asked.state))


def _items(asked: Asked[ItemList]) -> Change:
    owner = found(asked.state, "subscription", asked.params.subscription, "subscription")
    items = shown(owner, asked.state)["items"]["data"]
    limit = asked.params.limit
    listed = list_of(items[:limit], "/v1/subscription_items", has_more=len(items) > limit)
    return Change(listed)


def _create(asked: Asked[ItemCreate]) -> Change:
    owner = found(asked.state, "subscription", asked.params.subscription, "subscription")
    return _changed(owner, asked.params.change(), asked.params.terms(), asked.state, asked.moment)


def _update(asked: Asked[ItemUpdate]) -> Change:
    item_id = asked.ids["item"]
    owner = _owner(item_id, asked.state)
    return _changed(owner, asked.params.change(item_id), asked.params.terms(), asked.state, asked.moment)


def _delete(asked: Asked[ItemDelete]) -> Change:
    item_id = asked.ids["item"]
    owner = _owner(item_id, asked.state)
    return _changed(
        owner, ItemChange("", item_id, deleted=True), asked.params.terms(), asked.state, asked.moment
    )


def _changed(owner: Json, change: ItemChange, how: Terms, state: State, moment: Moment) -> Change:
    moment = in_time_of(owner, state, moment)
    decision = Decision(state)
    new = changed(decision, owner, with_items(owner, [change], state, moment), how, moment)
    done = decision.change(new)
    if change.deleted:
        answer: Json = {"id": change.id, "object": "subscription_item", "deleted": True}
    else:
        before = {item["id"] for item in owner["items"]["data"]}
        item_id = change.id or next(item["id"] for item in new["items"]["data"] if item["id"] not in before)
        answer = _shown(new, item_id, decision)
    return Change(answer, done.saved, done.events)


def operations() -> tuple[Operation[Any], ...]:
    """Every call about a subscription's items."""
    return (
        Operation("POST", "/v1/subscription_items", ItemCreate, _create),
        Operation("GET", "/v1/subscription_items", ItemList, _items),
        Operation("GET", _PATH, Params, _retrieve),
        Operation("POST", _PATH, ItemUpdate, _update),
        Operation("DELETE", _PATH, ItemDelete, _delete),
    )
