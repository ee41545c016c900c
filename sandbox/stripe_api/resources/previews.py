"""Invoices to look at before they are there."""

from typing import Any

from sandbox.stripe_api.billing.changing import drafted, sellable
from sandbox.stripe_api.billing.previewing import no_upcoming, previewed, renews_at, upcoming
from sandbox.stripe_api.billing.subscribing import NewItem, NewSubscription, first_invoice
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Change, Moment, Operation, found
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.resources.subscription_params import PreviewCreate, PreviewDetails
from sandbox.stripe_api.resources.subscriptions import edited
from sandbox.stripe_api.store import Query, State, every

MOST_SUBSCRIPTIONS = 1000


def _preview(asked: Asked[PreviewCreate]) -> Change:
    """Decide everything, as the calls themselves would, and keep nothing of it."""
    params, state = asked.params, asked.state
    decision = Decision(state)
    if params.subscription is None and params.customer is None:
        raise ApiError("You must give a customer or a subscription.", "parameter_missing", "customer")
    if params.subscription is None and params.subscription_details.items:
        draft = _of_new(params, decision, asked.moment)
    else:
        old = _subscription(params, state)
        draft = _of_changed(old, params.subscription_details, decision, in_time_of(old, state, asked.moment))
    return Change(shown(previewed(draft), decision))


def _of_new(params: PreviewCreate, decision: Decision, moment: Moment) -> Json:
    """The first invoice of a subscription to these items."""
    customer = found(decision, "customer", params.customer or "", "customer")
    details = params.subscription_details
    prices = [item.price or "" for item in details.items]
    currency = found(decision, "price", prices[0], "subscription_details[items][0][price]")["currency"]
    items = [
        NewItem(
            sellable(currency, price, f"subscription_details[items][{n}][price]", decision),
            1 if item.quantity is None else item.quantity,
        )
        for n, (item, price) in enumerate(zip(details.items, prices, strict=True))
    ]
    trial_end = None if details.trial_end == "now" else details.trial_end
    wanted = NewSubscription(customer, items, trial_end=trial_end)
    return first_invoice(decision, wanted, in_time_of(customer, decision, moment))


def _of_changed(old: Json, details: PreviewDetails, decision: Decision, moment: Moment) -> Json:
    """What a change makes due at once, else the next invoice with what the change adds to it."""
    call = details.update()
    new = edited(old, call, decision, moment)
    due_now = drafted(decision, old, new, call.terms(), moment)
    return due_now or upcoming(decision, found(decision, "subscription", old["id"]), moment)


def _subscription(params: PreviewCreate, state: State) -> Json:
    """The one that is named, else the customer's that is billed next."""
    if params.subscription is not None:
        return found(state, "subscription", params.subscription, "subscription")
    customer = found(state, "customer", params.customer or "", "customer")["id"]
    billed = Query("subscription", label=customer, keep=lambda one: renews_at(one) is not None)
    candidates = every(state, billed, MOST_SUBSCRIPTIONS)
    if not candidates:
        raise no_upcoming(customer)
    return min(candidates, key=lambda one: renews_at(one) or 0)


def operations() -> tuple[Operation[Any], ...]:
    """Every call about previews."""
    return (Operation("POST", "/v1/invoices/create_preview", PreviewCreate, _preview),)
