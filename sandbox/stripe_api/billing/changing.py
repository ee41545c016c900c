"""Changes of a running subscription: its items, its trial, its end, a pause. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sandbox.stripe_api.billing import invoicing, standing
from sandbox.stripe_api.billing.invoicing import Attempt, Made
from sandbox.stripe_api.billing.lines import new_periods, prorations, recurring_line
from sandbox.stripe_api.billing.payments import Holder
from sandbox.stripe_api.billing.periods import period_end
from sandbox.stripe_api.billing.subscribing import (
    NewItem,
    PaymentBehavior,
    collect,
    new_item,
    notice_trial_end,
)
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError, missing_object
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Moment, found, merged_metadata
from sandbox.stripe_api.store import State

ProrationBehavior = Literal["always_invoice", "create_prorations", "none"]


@dataclass(frozen=True)
class ItemChange:
    """An item to change (with `id`), to remove (`deleted`) or to add (without `id`); None keeps what is.

    Attributes:
        param: what the caller called it.
        metadata: what is merged in; None clears it.
    """

    param: str
    id: str | None = None
    price: str | None = None
    quantity: int | None = None
    deleted: bool = False
    metadata: Mapping[str, str] | None = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """How a change is billed, and what a failed payment does to it.

    Attributes:
        prorated_from: since when the change is counted, Unix seconds; None for now.
    """

    proration: ProrationBehavior = "create_prorations"
    behavior: PaymentBehavior = "allow_incomplete"
    holder: Holder = Holder.PRESENT
    prorated_from: int | None = None


def trial_end_of(subscription: Json) -> int | None:
    """When a trial that is running ends."""
    end: int | None = subscription["trial_end"] if subscription["status"] == "trialing" else None
    return end


def with_items(subscription: Json, changes: Sequence[ItemChange], state: State, moment: Moment) -> Json:
    """A subscription with some of its items changed.

    Raises:
        ApiError: an item or price that is not there or does not fit, none would be left, or it is not begun
            or over.
    """
    if subscription["status"] in ("incomplete", *standing.OVER):
        raise ApiError(f"The items of a subscription that is {subscription['status']} cannot be changed.")
    items: list[Json] = list(subscription["items"]["data"])
    for change in changes:
        if change.id is None:
            items.append(_added(subscription, change, state, moment))
            continue
        index = next((i for i, item in enumerate(items) if item["id"] == change.id), None)
        if index is None:
            raise missing_object("subscription item", change.id, f"{change.param}[id]")
        if change.deleted:
            del items[index]
        else:
            items[index] = _changed(subscription, items[index], change, state, moment)
    if not items:
        raise ApiError("A subscription must have at least one item.", param="items")
    prices = [item["price"] for item in items]
    if len(set(prices)) < len(prices):
        raise ApiError("Two items of a subscription cannot have the same price.", param="items")
    new = {**subscription, "items": {**subscription["items"], "data": items}}
    if len(new_periods(subscription, new)) == len(items):
        new["billing_cycle_anchor"] = moment.now
    return new


def _added(subscription: Json, change: ItemChange, state: State, moment: Moment) -> Json:
    """A new item: in the period of those that are billed as often, else in one of its own."""
    if change.price is None:
        name = f"{change.param}[price]"
        raise ApiError(f"Missing required param: {name}.", "parameter_missing", name)
    price = sellable(subscription["currency"], change.price, f"{change.param}[price]", state)
    quantity = 1 if change.quantity is None else change.quantity
    given = NewItem(price, quantity, merged_metadata({}, change.metadata))
    item = new_item(subscription["id"], given, trial_end_of(subscription), moment)
    for other in subscription["items"]["data"]:
        if found(state, "price", other["price"])["recurring"] == price["recurring"]:
            shared = ("_anchor", "current_period_start", "current_period_end")
            return {**item, **{name: other[name] for name in shared}}
    return item


def _changed(subscription: Json, item: Json, change: ItemChange, state: State, moment: Moment) -> Json:
    new = {**item, "metadata": merged_metadata(item["metadata"], change.metadata)}
    if change.quantity is not None:
        new["quantity"] = change.quantity
    if change.price is None:
        return new
    price = sellable(subscription["currency"], change.price, f"{change.param}[price]", state)
    new["price"] = price["id"]
    before = found(state, "price", item["price"])
    # A new interval begins a new period at once; a trial keeps its end.
    if price["recurring"] != before["recurring"] and trial_end_of(subscription) is None:
        new |= _period_from(moment.now, price)
    return new


def _period_from(start: int, price: Json) -> Json:
    recurring = price["recurring"]
    end = period_end(start, recurring["interval"], recurring["interval_count"])
    return {"_anchor": start, "current_period_start": start, "current_period_end": end}


def sellable(currency: str, price_id: str, param: str, state: State) -> Json:
    """The price of that id, if a subscription in that currency can have it.

    Raises:
        ApiError: it cannot.
    """
    price = found(state, "price", price_id, param)
    if not price["active"]:
        raise ApiError(f"The price {price_id} is inactive: only active prices can be sold.", param=param)
    if price["type"] != "recurring":
        raise ApiError("A subscription's items must have recurring prices.", param=param)
    if price["currency"] != currency:
        raise ApiError("The price's currency differs from the subscription's.", param=param)
    return price


def with_trial_until(subscription: Json, trial_end: int, moment: Moment) -> Json:
    """A subscription that is free until then; its periods are counted from there.

    Raises:
        ApiError: that is not in the future.
    """
    if trial_end <= moment.now:
        raise ApiError("The trial's end must be in the future: use 'now' to end it.", param="trial_end")
    running = trial_end_of(subscription) is not None
    start = {} if running else {"current_period_start": moment.now}
    period = {"_anchor": trial_end, "current_period_end": trial_end, **start}
    return {
        **subscription,
        "billing_cycle_anchor": trial_end,
        "items": _each_item(subscription, lambda _: period),
        "status": "trialing",
        "trial_end": trial_end,
        "trial_start": subscription["trial_start"] if running else moment.now,
    }


def without_trial(subscription: Json, state: State, moment: Moment) -> Json:
    """A subscription whose trial ends now, and whose first paid period begins."""
    if trial_end_of(subscription) is None:
        return subscription
    return {**begun_anew(subscription, state, moment), "status": "active", "trial_end": moment.now}


def begun_anew(subscription: Json, state: State, moment: Moment) -> Json:
    """A subscription whose periods all begin now."""
    items = _each_item(
        subscription, lambda item: _period_from(moment.now, found(state, "price", item["price"]))
    )
    return {**subscription, "billing_cycle_anchor": moment.now, "items": items}


def _each_item(subscription: Json, fields: Callable[[Json], Json]) -> Json:
    items = subscription["items"]
    return {**items, "data": [{**item, **fields(item)} for item in items["data"]]}


def changed(decision: Decision, before: Json, after: Json, terms: Terms, moment: Moment) -> Json:
    """Carry out a change: bill what it costs, tell of it; returns the subscription as it is then.

    Raises:
        ApiError: it was to be paid now, and was not; decide nothing then.
    """
    if after == before:
        return before
    due_now = drafted(decision, before, after, terms, moment)
    current = found(decision, "subscription", before["id"])
    decision.tell("customer.subscription.updated", current, before)
    if trial_end_of(before) is not None and trial_end_of(current) is None:
        decision.tell("customer.subscription.trial_will_end", current)
    notice_trial_end(decision, current, moment)
    if due_now is not None:
        _collect_now(decision, due_now, terms, moment)
    return found(decision, "subscription", before["id"])


def drafted(decision: Decision, before: Json, after: Json, terms: Terms, moment: Moment) -> Json | None:
    """Make a change, its prorations, and the draft of what is due at once, which is returned if there is one.

    Raises:
        ApiError: it is to be counted from outside of the period that runs.
    """
    decision.save(after)
    since = _counted_from(before, terms, moment)
    if trial_end_of(before) is None and terms.proration != "none":
        invoicing.bill_later(decision, after, prorations(before, after, decision, since), moment)
    begun = [] if trial_end_of(after) is not None else new_periods(before, after)
    waiting = terms.proration == "always_invoice" and invoicing.waiting_items(decision, after)
    if not begun and not waiting:
        return None
    lines = [recurring_line(item, decision) for item in begun]
    return invoicing.draft(decision, after, lines, Made("subscription_update"), moment)


def _counted_from(subscription: Json, terms: Terms, moment: Moment) -> int:
    since = moment.now if terms.prorated_from is None else terms.prorated_from
    items = subscription["items"]["data"]
    if terms.prorated_from is not None and not all(
        item["current_period_start"] <= since <= item["current_period_end"] for item in items
    ):
        raise ApiError("The proration_date must be in the current period.", param="proration_date")
    return since


def _collect_now(decision: Decision, invoice: Json, terms: Terms, moment: Moment) -> None:
    invoice = invoicing.finalized(decision, invoice, moment)
    if invoice["status"] != "open":
        return
    subscription = standing.subscription_of(invoice, decision)
    if terms.behavior == "default_incomplete" and subscription["status"] == "active":
        standing.change(decision, subscription, status="past_due")
    collect(decision, invoice, terms.behavior, Attempt(terms.holder, scheduled=True), moment)


def resumed(decision: Decision, subscription: Json, moment: Moment) -> None:
    """End a pause with a new period: active once its invoice is paid."""
    anew = begun_anew(subscription, decision, moment)
    lines = [recurring_line(item, decision) for item in anew["items"]["data"]]
    invoice = invoicing.draft(decision, anew, lines, Made("subscription_update"), moment)
    waiting = {**found(decision, "subscription", subscription["id"]), "_resumption": invoice["id"]}
    decision.save(waiting)
    decision.tell("customer.subscription.updated", waiting, subscription)
    invoice = invoicing.finalized(decision, invoice, moment)
    if invoice["status"] == "open":
        collect(decision, invoice, "allow_incomplete", Attempt(Holder.PRESENT), moment)
