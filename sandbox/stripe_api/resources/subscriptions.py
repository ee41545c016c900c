"""Subscriptions over the API: what is asked, checked; `billing` decides what comes of it."""

from collections.abc import Set as AbstractSet
from typing import Any

from sandbox.stripe_api.billing.changing import (
    begun_anew,
    changed,
    resumed,
    sellable,
    with_items,
    with_trial_until,
    without_trial,
)
from sandbox.stripe_api.billing.discounts import Order, counted, position, redeemed, redemptions
from sandbox.stripe_api.billing.ending import Farewell, ended_now, ending_at, moment_of_end
from sandbox.stripe_api.billing.standing import OVER
from sandbox.stripe_api.billing.subscribing import NewItem, NewSubscription, subscribe
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError, missing_object
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Moment,
    Operation,
    found,
    listing,
    merged_metadata,
    retrieval,
)
from sandbox.stripe_api.resources.payment_methods import own_method
from sandbox.stripe_api.resources.subscription_params import (
    Described,
    SubscriptionCancel,
    SubscriptionCreate,
    SubscriptionList,
    SubscriptionResume,
    SubscriptionUpdate,
)
from sandbox.stripe_api.store import Query, State
from sandbox.stripe_api.timetable import DAY, period_end_of

_PATH = "/v1/subscriptions/{subscription}"


def _create(asked: Asked[SubscriptionCreate]) -> Change:
    params, state = asked.params, asked.state
    customer = found(state, "customer", params.customer, "customer")
    moment = in_time_of(customer, state, asked.moment)
    items = _new_items(params, state)
    currency = items[0].price["currency"]
    order = Order(customer["id"], currency, [position(one.price, one.quantity) for one in items])
    wanted = NewSubscription(
        customer=customer,
        items=items,
        one_time=_once(params, currency, state),
        payment_method=_payment_method(params, customer["id"], state),
        trial_end=_first_trial_end(params, moment),
        metadata=params.metadata,
        redemptions=redemptions(params.discounts, order, state, moment.now),
        behavior=params.payment_behavior,
        holder=params.holder(),
        cancel_at=params.cancel_at,
        cancel_at_period_end=params.cancel_at_period_end,
        more=_settings(params, {}),
    )
    _check_end(params)
    decision = Decision(state)
    return decision.change(subscribe(decision, wanted, moment).subscription)


def _new_items(params: SubscriptionCreate, state: State) -> list[NewItem]:
    currency = found(state, "price", params.items[0].price, "items[0][price]")["currency"]
    items = [
        NewItem(sellable(currency, item.price, f"items[{n}][price]", state), item.quantity, item.metadata)
        for n, item in enumerate(params.items)
    ]
    if len({item.price["id"] for item in items}) < len(items):
        raise ApiError("Two items of a subscription cannot have the same price.", param="items")
    return items


def _once(params: SubscriptionCreate, currency: str, state: State) -> list[NewItem]:
    """What is bought once along with it."""
    items: list[NewItem] = []
    for n, item in enumerate(params.add_invoice_items):
        param = f"add_invoice_items[{n}][price]"
        price = found(state, "price", item.price, param)
        if not price["active"] or price["type"] != "one_time" or price["currency"] != currency:
            raise ApiError(
                "What is added to the first invoice must have an active one-time price in its currency.",
                param=param,
            )
        items.append(NewItem(price, item.quantity))
    return items


def _payment_method(params: Described, customer: str, state: State) -> str | None:
    if params.default_payment_method is None:
        return None
    own_method(params.default_payment_method, customer, state, "default_payment_method")
    return params.default_payment_method


def _first_trial_end(params: SubscriptionCreate, moment: Moment) -> int | None:
    if params.trial_end is not None and params.trial_period_days is not None:
        raise ApiError("You may only give one of trial_end and trial_period_days.", param="trial_end")
    if params.trial_period_days:
        return moment.now + params.trial_period_days * DAY
    if params.trial_end is None or params.trial_end == "now":
        return None
    if params.trial_end <= moment.now:
        raise ApiError("The trial's end must be in the future.", param="trial_end")
    return params.trial_end


def _settings(params: Described, old: Json) -> Json:
    """The fields that a call sets as they are."""
    fields: Json = {}
    given = params.model_fields_set
    if "description" in given:
        fields["description"] = params.description
    if "payment_settings" in given:
        changes = params.payment_settings.model_dump(exclude_none=True)
        usual = {"payment_method_options": None, "payment_method_types": None}
        former = old.get("payment_settings", {**usual, "save_default_payment_method": "off"})
        fields["payment_settings"] = {**former, **changes}
    if params.trial_settings is not None:
        fields["trial_settings"] = params.trial_settings.model_dump()
    return fields


def _update(asked: Asked[SubscriptionUpdate]) -> Change:
    params, state = asked.params, asked.state
    old = found(state, "subscription", asked.ids["subscription"])
    moment = in_time_of(old, state, asked.moment)
    decision = Decision(state)
    new = edited(old, params, decision, moment)
    return decision.change(changed(decision, old, new, params.terms(), moment))


def edited(old: Json, params: SubscriptionUpdate, decision: Decision, moment: Moment) -> Json:
    """A subscription as a call asks it to be, not stored yet.

    Raises:
        ApiError: it cannot be so.
    """
    _check_editable(old["status"], params.model_fields_set)
    new = _described(old, params, decision)
    if params.items:
        new = with_items(new, [item.change(n) for n, item in enumerate(params.items)], decision, moment)
    if "discounts" in params.model_fields_set:
        new = _with_discounts(new, params, decision, moment)
    new = _with_cycle(new, params, decision, moment)
    new = _with_end(new, params, moment)
    said = {
        name: getattr(params.cancellation_details, name)
        for name in params.cancellation_details.model_fields_set
    }
    new["cancellation_details"] = {**new["cancellation_details"], **said}
    return new


def _check_editable(status: str, given: AbstractSet[str]) -> None:
    if status in OVER and given - {"metadata", "cancellation_details", "expand"}:
        raise ApiError("A canceled subscription can only update its cancellation_details and metadata.")
    if status == "incomplete" and given - {"metadata", "default_payment_method", "expand"}:
        raise ApiError(
            "An incomplete subscription can only update its metadata and default_payment_method, until its"
            " first invoice is paid."
        )


def _described(old: Json, params: SubscriptionUpdate, state: State) -> Json:
    new = {**old, **_settings(params, old)}
    given = params.model_fields_set
    if "metadata" in given:
        new["metadata"] = merged_metadata(old["metadata"], params.metadata)
    if "default_payment_method" in given:
        new["default_payment_method"] = _payment_method(params, old["customer"], state)
    if "pause_collection" in given:
        pause = params.pause_collection
        new["pause_collection"] = None if pause is None else pause.model_dump()
    return new


def _with_discounts(subscription: Json, params: Described, decision: Decision, moment: Moment) -> Json:
    """A subscription with these discounts instead of those it had."""
    items = subscription["items"]["data"]
    sold = [position(found(decision, "price", item["price"]), item["quantity"]) for item in items]
    order = Order(subscription["customer"], subscription["currency"], sold)
    wanted = redemptions(params.discounts, order, decision, moment.now)
    owner = {"customer": subscription["customer"], "subscription": subscription["id"]}
    discounts = redeemed(wanted, owner, moment)
    decision.save(*discounts, *counted(wanted))
    return {**subscription, "discounts": [one["id"] for one in discounts]}


def _with_cycle(subscription: Json, params: SubscriptionUpdate, state: State, moment: Moment) -> Json:
    """A subscription whose trial or billing cycle is as asked."""
    if params.trial_end == "now":
        return without_trial(subscription, state, moment)
    if params.trial_end is not None:
        return with_trial_until(subscription, params.trial_end, moment)
    if params.billing_cycle_anchor == "now" and subscription["status"] != "trialing":
        return begun_anew(subscription, state, moment)
    return subscription


def _check_end(params: Described) -> None:
    if params.cancel_at is not None and params.cancel_at_period_end:
        raise ApiError("You may only give one of cancel_at and cancel_at_period_end.", param="cancel_at")


def _with_end(subscription: Json, params: Described, moment: Moment) -> Json:
    """A subscription that ends when it is asked to."""
    given = params.model_fields_set
    _check_end(params)
    at_period_end = subscription["cancel_at_period_end"]
    if "cancel_at" in given:
        return ending_at(subscription, moment_of_end(params.cancel_at, subscription, moment), moment)
    if "cancel_at_period_end" in given and params.cancel_at_period_end != at_period_end:
        at_period_end = params.cancel_at_period_end
        ends = period_end_of(subscription) if at_period_end else None
        return ending_at(subscription, ends, moment, at_period_end=at_period_end)
    if at_period_end:
        return {**subscription, "cancel_at": period_end_of(subscription)}
    return subscription


def _cancel(asked: Asked[SubscriptionCancel]) -> Change:
    params, state = asked.params, asked.state
    old = found(state, "subscription", asked.ids["subscription"])
    if old["status"] in OVER:
        raise missing_object("subscription", old["id"])
    said = params.cancellation_details.model_dump(exclude_unset=True)
    farewell = Farewell(params.prorate, params.invoice_now, said)
    decision = Decision(state)
    ended = ended_now(decision, old, in_time_of(old, state, asked.moment), farewell)
    return decision.change(ended)


def _resume(asked: Asked[SubscriptionResume]) -> Change:
    state = asked.state
    old = found(state, "subscription", asked.ids["subscription"])
    if old["status"] != "paused":
        raise ApiError(f"Only paused subscriptions can be resumed; this one is {old['status']}.")
    decision = Decision(state)
    resumed(decision, old, in_time_of(old, state, asked.moment))
    return decision.change(found(decision, "subscription", old["id"]))


def _subscriptions(asked: Asked[SubscriptionList]) -> Query:
    params = asked.params

    def keep(one: Json) -> bool:
        match params.status:
            case None:
                listed = one["status"] != "canceled"
            case "all":
                listed = True
            case "ended":
                listed = one["status"] in OVER
            case _:
                listed = one["status"] == params.status
        items = one["items"]["data"]
        return (
            listed
            and (params.price is None or any(item["price"] == params.price for item in items))
            and params.test_clock in (None, one["test_clock"])
            and params.collection_method in (None, one["collection_method"])
            and any(params.current_period_start.covers(item["current_period_start"]) for item in items)
            and any(params.current_period_end.covers(item["current_period_end"]) for item in items)
        )

    return Query(
        "subscription",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=keep,
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about subscriptions."""
    return (
        Operation("POST", "/v1/subscriptions", SubscriptionCreate, _create),
        listing("/v1/subscriptions", SubscriptionList, _subscriptions),
        retrieval(_PATH, "subscription"),
        Operation("POST", _PATH, SubscriptionUpdate, _update),
        Operation("DELETE", _PATH, SubscriptionCancel, _cancel),
        Operation("POST", f"{_PATH}/resume", SubscriptionResume, _resume),
    )
