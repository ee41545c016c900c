"""Checkout sessions: opened by the API, paid on the hosted page, expired by time or on request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.cards import Card
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json, Line
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Draft,
    Moment,
    Operation,
    found,
    listing,
    retrieval,
    updated,
)
from sandbox.stripe_api.params import (
    DatedListParams,
    FormList,
    ListParams,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Text,
    Timestamp,
    Url,
)
from sandbox.stripe_api.payments import attached, new_method
from sandbox.stripe_api.present import line_items, shown
from sandbox.stripe_api.resources.subscriptions import NewSubscription, subscribe
from sandbox.stripe_api.store import Query, State

SHORTEST_LIFE = 30 * 60
LONGEST_LIFE = 24 * 3600
MOST_LINE_ITEMS = 20
LONGEST_TRIAL_DAYS = 730


class _LineItem(Nested):
    price: Text
    quantity: Annotated[int, Field(ge=1, le=999_999)] = 1


class _SubscriptionData(Nested):
    metadata: Metadata = Field(default_factory=dict)
    trial_period_days: Annotated[int, Field(ge=1, le=LONGEST_TRIAL_DAYS)] | None = None


class SessionCreate(Params):
    """A session to open."""

    mode: Literal["subscription"]
    line_items: Annotated[FormList[_LineItem], Field(min_length=1, max_length=MOST_LINE_ITEMS)]
    success_url: Url
    cancel_url: Url | None = None
    customer: Text | None = None
    customer_email: Text | None = None
    client_reference_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    subscription_data: _SubscriptionData = _SubscriptionData()
    expires_at: Timestamp | None = None
    metadata: Metadata = Field(default_factory=dict)


class SessionUpdate(Params):
    """An edit: metadata only."""

    metadata: MetadataChange = Field(default_factory=dict)


class SessionList(DatedListParams):
    """A page of sessions."""

    customer: Text | None = None
    status: Literal["complete", "expired", "open"] | None = None
    subscription: Text | None = None


def _create(asked: Asked[SessionCreate]) -> Change:
    params, state, moment = asked.params, asked.state, asked.moment
    if params.customer is not None and params.customer_email is not None:
        raise ApiError("You may only give one of customer and customer_email.", param="customer_email")
    customer = None if params.customer is None else found(state, "customer", params.customer, "customer")
    expires_at = _expiry(params.expires_at, moment.now)
    lines, currency = _lines(params.line_items, state)
    session_id = moment.new_id("cs_test")
    new = objects.checkout_session(
        session_id,
        moment.now,
        {
            **params.model_dump(exclude={"line_items", "subscription_data", "expand"}),
            "line_items": [objects.session_item(moment.new_id("li"), line, currency) for line in lines],
            "currency": currency,
            "amount_total": 0 if params.subscription_data.trial_period_days else _total(lines),
            "expires_at": expires_at,
            "customer_details": _details(customer, params.customer_email),
            "url": f"{moment.base_url}/c/pay/{session_id}",
        },
    )
    promised = {**params.subscription_data.model_dump(), "object": _PROMISE, "id": _promise_id(session_id)}
    return Change(shown(new, state), (new, {**promised, "created": moment.now}))


_PROMISE = "checkout.subscription_data"
"""What the subscription will have once paid. Stripe never shows it, so it is kept beside the session."""


def _promise_id(session_id: str) -> str:
    return f"{session_id}/subscription_data"


def _total(lines: Sequence[Line]) -> int:
    return sum(line.amount for line in lines)


def _details(customer: Json | None, email: str | None) -> Json | None:
    if customer is not None:
        return objects.customer_details(customer["email"], None)
    return None if email is None else objects.customer_details(email, None)


def _expiry(wanted: int | None, now: int) -> int:
    if wanted is None:
        return now + LONGEST_LIFE
    if wanted < now + SHORTEST_LIFE:
        raise ApiError("expires_at must be at least 30 minutes from now.", param="expires_at")
    if wanted > now + LONGEST_LIFE:
        raise ApiError("expires_at must be less than 24 hours from now.", param="expires_at")
    return wanted


def _lines(wanted: Sequence[_LineItem], state: State) -> tuple[list[Line], str]:
    """The lines to sell, and their currency."""
    lines: list[Line] = []
    currencies: set[str] = set()
    for position, item in enumerate(wanted):
        param = f"line_items[{position}][price]"
        price = found(state, "price", item.price, param)
        if not price["active"]:
            raise ApiError(
                f"The price {item.price} is inactive: only active prices can be sold.", param=param
            )
        if price["type"] != "recurring":
            raise ApiError("This stand-in sells only recurring prices in `subscription` mode.", param=param)
        currencies.add(price["currency"])
        lines.append(_line(price, item.quantity, state))
    if len(currencies) > 1:
        raise ApiError("All prices of a session must be in one currency.", param="line_items")
    return lines, currencies.pop()


def _line(price: Json, quantity: int, state: State) -> Line:
    product = found(state, "product", price["product"])
    return Line(price["id"], product["id"], price["unit_amount"], quantity, product["name"])


def _update(asked: Asked[SessionUpdate]) -> Change:
    old = found(asked.state, "checkout.session", asked.ids["session"])
    new = updated(old, asked.params, ())
    return Change(shown(new, asked.state), (new,))


def _expire(asked: Asked[Params]) -> Change:
    session = found(asked.state, "checkout.session", asked.ids["session"])
    if session["status"] != "open":
        raise ApiError(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a'
            f" status of `{session['status']}`.",
        )
    return expired(session, asked.state)


def expired(session: Json, state: State) -> Change:
    """An open session's end without payment."""
    new = {**session, "status": "expired", "url": None}
    answer = shown(new, state)
    return Change(answer, (new,), (Draft("checkout.session.expired", answer),))


@dataclass(frozen=True)
class Buyer:
    """Who pays, as typed on the page; ignored when the session already knows its customer."""

    card: Card
    email: str | None
    name: str | None


def paid(session: Json, buyer: Buyer, state: State, moment: Moment) -> Change:
    """An open session's payment: its customer, card, subscription and first invoice, and Stripe's events."""
    new_customer = session["customer"] is None
    customer = _customer(session, buyer, state, moment)
    customer = {**customer, "currency": session["currency"]}
    billing = {"email": customer["email"], "name": buyer.name or customer["name"]}
    method = attached(new_method(buyer.card, billing, moment), customer)
    promised = found(state, _PROMISE, _promise_id(session["id"]))
    sold = subscribe(
        NewSubscription(
            customer=customer,
            payment_method=method["id"],
            lines=tuple(
                (found(state, "price", item["price"]), item["quantity"]) for item in session["line_items"]
            ),
            trial_days=promised["trial_period_days"],
            metadata=promised["metadata"],
        ),
        state,
        moment,
    )
    complete = {
        **session,
        "status": "complete",
        "payment_status": "paid" if sold.invoice["amount_paid"] else "no_payment_required",
        "customer": customer["id"],
        "customer_details": objects.customer_details(customer["email"], buyer.name or customer["name"]),
        "invoice": sold.invoice["id"],
        "subscription": sold.subscription["id"],
        "url": None,
    }
    customer["next_invoice_sequence"] += 1
    answer = shown(complete, state)
    return Change(
        answer,
        (customer, method, sold.subscription, sold.invoice, complete),
        (
            *((Draft("customer.created", customer),) if new_customer else ()),
            Draft("payment_method.attached", objects.public(method)),
            Draft("customer.subscription.created", shown(sold.subscription, state)),
            Draft("checkout.session.completed", answer),
            Draft("invoice.created", sold.invoice),
            Draft("invoice.finalized", sold.invoice),
            Draft("invoice.paid", sold.invoice),
            Draft("invoice.payment_succeeded", sold.invoice),
        ),
    )


def _customer(session: Json, buyer: Buyer, state: State, moment: Moment) -> Json:
    if session["customer"] is not None:
        return found(state, "customer", session["customer"])
    given = {"email": session["customer_email"] or buyer.email, "name": buyer.name}
    return objects.customer(moment.new_id("cus"), moment.now, given)


def trial_days(session: Json, state: State) -> int | None:
    """How long the session's subscription will be free at first."""
    days: int | None = found(state, _PROMISE, _promise_id(session["id"]))["trial_period_days"]
    return days


def _sessions(asked: Asked[SessionList]) -> Query:
    params = asked.params
    return Query(
        "checkout.session",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: (
            params.status in (None, one["status"]) and params.subscription in (None, one["subscription"])
        ),
    )


def _list_line_items(asked: Asked[ListParams]) -> Change:
    session = found(asked.state, "checkout.session", asked.ids["session"])
    if asked.params.starting_after or asked.params.ending_before:
        raise ApiError(f"A session has at most {MOST_LINE_ITEMS} line items: raise limit instead.")
    listed = line_items(session, asked.state)
    limit = asked.params.limit
    return Change({**listed, "data": listed["data"][:limit], "has_more": len(listed["data"]) > limit})


def operations() -> tuple[Operation[Any], ...]:
    """Every call about checkout sessions."""
    return (
        Operation("POST", "/v1/checkout/sessions", SessionCreate, _create),
        listing("/v1/checkout/sessions", SessionList, _sessions),
        retrieval("/v1/checkout/sessions/{session}", "checkout.session"),
        Operation("POST", "/v1/checkout/sessions/{session}", SessionUpdate, _update),
        Operation("POST", "/v1/checkout/sessions/{session}/expire", Params, _expire),
        Operation("GET", "/v1/checkout/sessions/{session}/line_items", ListParams, _list_line_items),
    )
