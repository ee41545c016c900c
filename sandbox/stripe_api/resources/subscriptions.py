"""Subscriptions and their first invoices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.errors import ApiError, missing_object
from sandbox.stripe_api.objects import Json, Line, Period
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Draft,
    Moment,
    Operation,
    difference,
    found,
    listing,
    merged_metadata,
    retrieval,
    update,
)
from sandbox.stripe_api.params import (
    DatedListParams,
    Flag,
    FormList,
    MetadataChange,
    Nested,
    Params,
    Text,
)
from sandbox.stripe_api.periods import period_end
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.store import Query, State

DAY = 86400
MOST_ITEMS = 20
SANDBOX_TRIAL_DAYS = 3
Status = Literal[
    "active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid"
]
_OVER = ("canceled", "incomplete_expired")
Quantity = Annotated[int, Field(ge=0, le=999_999)]


class _ItemChange(Nested):
    """An item to change (with `id`), to remove (`deleted`) or to add (without `id`)."""

    id: Text | None = None
    price: Text | None = None
    quantity: Quantity | None = None
    deleted: Flag = False
    metadata: MetadataChange = Field(default_factory=dict)


class _CancellationDetails(Nested):
    comment: Text | None = None
    feedback: (
        Literal[
            "customer_service",
            "low_quality",
            "missing_features",
            "other",
            "switched_service",
            "too_complex",
            "too_expensive",
            "unused",
        ]
        | None
    ) = None


class SubscriptionUpdate(Params):
    """An edit. Prorations are accepted and not billed."""

    items: Annotated[FormList[_ItemChange], Field(max_length=MOST_ITEMS)] = Field(default_factory=list)
    cancel_at_period_end: Flag = False
    cancellation_details: _CancellationDetails = _CancellationDetails()
    default_payment_method: Text = ""
    proration_behavior: Literal["always_invoice", "create_prorations", "none"] = "create_prorations"
    metadata: MetadataChange = Field(default_factory=dict)


class SubscriptionCancel(Params):
    """An end, now."""

    cancellation_details: _CancellationDetails = _CancellationDetails()
    invoice_now: Flag = False
    prorate: Flag = False


class SubscriptionList(DatedListParams):
    """A page of subscriptions: of all but canceled ones unless `status` says otherwise."""

    customer: Text | None = None
    price: Text | None = None
    status: Status | Literal["all", "ended"] | None = None


@dataclass(frozen=True)
class NewSubscription:
    """What was bought: prices with quantities, by whom, paid how."""

    customer: Json
    payment_method: str
    lines: Sequence[tuple[Json, int]]
    trial_days: int | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Sold:
    """A new subscription and its first invoice."""

    subscription: Json
    invoice: Json


def subscribe(wanted: NewSubscription, state: State, moment: Moment) -> Sold:
    """Begin a subscription: trialing when it has trial days, else active and paid."""
    now = moment.now
    subscription_id, invoice_id = moment.new_id("sub"), moment.new_id("in")
    trial_end = now + wanted.trial_days * DAY if wanted.trial_days else None
    items: list[Json] = []
    bill_lines: list[Json] = []
    currency = wanted.lines[0][0]["currency"]
    for price, quantity in wanted.lines:
        given = {"subscription": subscription_id, "price": price["id"], "quantity": quantity}
        period = Period(now, trial_end or _end(now, price))
        item = objects.subscription_item(moment.new_id("si"), now, given, period)
        product = found(state, "product", price["product"])
        line = Line(price["id"], product["id"], price["unit_amount"], quantity, product["name"])
        billed = objects.Billed(invoice_id, subscription_id, item["id"], period, trial=trial_end is not None)
        items.append(item)
        bill_lines.append(objects.invoice_line(moment.new_id("il"), line, billed, currency))
    subscription = objects.subscription(
        subscription_id,
        now,
        {
            "customer": wanted.customer["id"],
            "currency": currency,
            "items": items,
            "status": "active" if trial_end is None else "trialing",
            "trial_end": trial_end,
            "default_payment_method": wanted.payment_method,
            "latest_invoice": invoice_id,
            "metadata": dict(wanted.metadata),
        },
    )
    bill = objects.Bill(wanted.customer, subscription_id, wanted.metadata, currency, "subscription_create")
    return Sold(subscription, objects.paid_invoice(invoice_id, now, bill, bill_lines))


def _end(start: int, price: Json) -> int:
    recurring = price["recurring"]
    return period_end(start, recurring["interval"], recurring["interval_count"])


def _update(asked: Asked[SubscriptionUpdate]) -> Change:
    params, state, now = asked.params, asked.state, asked.moment.now
    old = found(state, "subscription", asked.ids["subscription"])
    given = params.model_fields_set - {"expand"}
    if old["status"] in _OVER and given - {"metadata", "cancellation_details"}:
        raise ApiError("A canceled subscription can only update its cancellation_details and metadata.")
    new = {**old}
    if "metadata" in given:
        new["metadata"] = merged_metadata(old["metadata"], params.metadata)
    if "default_payment_method" in given:
        found(state, "payment_method", params.default_payment_method, "default_payment_method")
        new["default_payment_method"] = params.default_payment_method
    if params.items:
        new = _with_items(new, params.items, state, asked.moment)
    if "cancel_at_period_end" in given:
        new = _ending(new, now, at_period_end=params.cancel_at_period_end)
    new["cancellation_details"] = _explained(new, params.cancellation_details)
    return update("customer.subscription", old, new, state)


def _ending(subscription: Json, now: int, *, at_period_end: bool) -> Json:
    if at_period_end == subscription["cancel_at_period_end"]:
        return subscription
    ends = min(item["current_period_end"] for item in subscription["items"]["data"])
    reason = "cancellation_requested" if at_period_end else None
    return {
        **subscription,
        "cancel_at_period_end": at_period_end,
        "cancel_at": ends if at_period_end else None,
        "canceled_at": now if at_period_end else None,
        "cancellation_details": {**subscription["cancellation_details"], "reason": reason},
    }


def _explained(subscription: Json, details: _CancellationDetails) -> Json:
    given = {name: getattr(details, name) for name in details.model_fields_set}
    return {**subscription["cancellation_details"], **given}


def _with_items(subscription: Json, changes: Sequence[_ItemChange], state: State, moment: Moment) -> Json:
    items: list[Json] = list(subscription["items"]["data"])
    for position, change in enumerate(changes):
        param = f"items[{position}]"
        if change.id is None:
            items.append(_added(subscription, change, param, state, moment))
            continue
        index = next((i for i, item in enumerate(items) if item["id"] == change.id), None)
        if index is None:
            raise missing_object("subscription item", change.id, f"{param}[id]")
        if change.deleted:
            del items[index]
            continue
        items[index] = _changed(items[index], change)
        if change.price is not None:
            price = _sellable(subscription, change.price, f"{param}[price]", state)
            items[index] = _repriced(items[index], price, _trial_end(subscription), state, moment.now)
    if not items:
        raise ApiError("A subscription must have at least one item.", param="items")
    prices = [item["price"] for item in items]
    if len(set(prices)) < len(prices):
        raise ApiError("Two items of a subscription cannot have the same price.", param="items")
    return {**subscription, "items": {**subscription["items"], "data": items}}


def _added(subscription: Json, change: _ItemChange, param: str, state: State, moment: Moment) -> Json:
    if change.price is None:
        raise ApiError(f"Missing required param: {param}[price].", "parameter_missing", f"{param}[price]")
    price = _sellable(subscription, change.price, f"{param}[price]", state)
    given = {
        "subscription": subscription["id"],
        "price": price["id"],
        "quantity": 1 if change.quantity is None else change.quantity,
        "metadata": merged_metadata({}, change.metadata),
    }
    period = Period(moment.now, _trial_end(subscription) or _end(moment.now, price))
    return objects.subscription_item(moment.new_id("si"), moment.now, given, period)


def _changed(item: Json, change: _ItemChange) -> Json:
    new = {**item}
    if change.quantity is not None:
        new["quantity"] = change.quantity
    if "metadata" in change.model_fields_set:
        new["metadata"] = merged_metadata(item["metadata"], change.metadata)
    return new


def _repriced(item: Json, price: Json, trial_end: int | None, state: State, now: int) -> Json:
    new = {**item, "price": price["id"]}
    before = found(state, "price", item["price"])
    # A new interval begins a new period at once; a trial keeps its end.
    if price["recurring"] != before["recurring"] and trial_end is None:
        new |= {"current_period_start": now, "current_period_end": _end(now, price)}
    return new


def _trial_end(subscription: Json) -> int | None:
    end: int | None = subscription["trial_end"] if subscription["status"] == "trialing" else None
    return end


def _sellable(subscription: Json, price_id: str, param: str, state: State) -> Json:
    price = found(state, "price", price_id, param)
    if not price["active"]:
        raise ApiError(f"The price {price_id} is inactive: only active prices can be sold.", param=param)
    if price["type"] != "recurring":
        raise ApiError("A subscription's items must have recurring prices.", param=param)
    if price["currency"] != subscription["currency"]:
        raise ApiError("The price's currency differs from the subscription's.", param=param)
    return price


def _cancel(asked: Asked[SubscriptionCancel]) -> Change:
    subscription_id = asked.ids["subscription"]
    old = found(asked.state, "subscription", subscription_id)
    if old["status"] in _OVER:
        raise missing_object("subscription", subscription_id)
    new = canceled(old, asked.moment.now)
    new["cancellation_details"] = _explained(new, asked.params.cancellation_details)
    return _deletion(new, asked.state)


def canceled(subscription: Json, now: int) -> Json:
    """A subscription that ended now."""
    return {
        **subscription,
        "status": "canceled",
        "cancel_at": None,
        "canceled_at": subscription["canceled_at"] or now,
        "cancel_at_period_end": False,
        "cancellation_details": {**subscription["cancellation_details"], "reason": "cancellation_requested"},
        "ended_at": now,
    }


def _deletion(new: Json, state: State) -> Change:
    answer = shown(new, state)
    return Change(answer, (new,), (Draft("customer.subscription.deleted", answer),))


def forced(subscription: Json, status: Status, state: State, now: int) -> Change:
    """For tests: any status at once, with the fields that go with it, and the event Stripe would send."""
    if status == "canceled":
        return _deletion(canceled(subscription, now), state)
    new = {**subscription, "status": status, "ended_at": now if status in _OVER else None}
    if subscription["status"] == "canceled":
        new |= {"canceled_at": None}
    if status == "trialing" and (subscription["trial_end"] or 0) <= now:
        new |= {"trial_start": now, "trial_end": now + SANDBOX_TRIAL_DAYS * DAY}
    answer = shown(new, state)
    previous = difference(shown(subscription, state), answer)
    return Change(answer, (new,), (Draft("customer.subscription.updated", answer, previous),))


def _subscriptions(asked: Asked[SubscriptionList]) -> Query:
    params = asked.params

    def keep(one: Json) -> bool:
        match params.status:
            case None:
                listed = one["status"] != "canceled"
            case "all":
                listed = True
            case "ended":
                listed = one["status"] in _OVER
            case _:
                listed = one["status"] == params.status
        prices = {item["price"] for item in one["items"]["data"]}
        return listed and (params.price is None or params.price in prices)

    return Query(
        "subscription",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=keep,
    )


class InvoiceList(DatedListParams):
    """A page of invoices."""

    customer: Text | None = None
    status: Literal["draft", "open", "paid", "uncollectible", "void"] | None = None
    subscription: Text | None = None


def _invoices(asked: Asked[InvoiceList]) -> Query:
    params = asked.params

    def keep(one: Json) -> bool:
        subscription = one["parent"]["subscription_details"]["subscription"]
        return params.status in (None, one["status"]) and params.subscription in (None, subscription)

    return Query(
        "invoice",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=keep,
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about subscriptions and invoices."""
    path = "/v1/subscriptions/{subscription}"
    return (
        listing("/v1/subscriptions", SubscriptionList, _subscriptions),
        retrieval(path, "subscription"),
        Operation("POST", path, SubscriptionUpdate, _update),
        Operation("DELETE", path, SubscriptionCancel, _cancel),
        listing("/v1/invoices", InvoiceList, _invoices),
        retrieval("/v1/invoices/{invoice}", "invoice"),
    )
