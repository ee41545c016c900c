"""Checkout sessions: opened by the API, paid on the hosted page, expired by time or on request."""

from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing import purchase
from sandbox.stripe_api.billing.discounts import DiscountChoice, redemptions
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json, Line
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Moment,
    Operation,
    found,
    listing,
    retrieval,
    updated,
)
from sandbox.stripe_api.params import (
    ClearableText,
    Count,
    DatedListParams,
    Flag,
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
from sandbox.stripe_api.present import line_items, shown
from sandbox.stripe_api.resources.products import Currency, ProductData, Recurring
from sandbox.stripe_api.resources.subscription_params import LONGEST_TRIAL_DAYS, TrialSettings
from sandbox.stripe_api.store import Query, State
from sandbox.stripe_api.timetable import DAY

SHORTEST_LIFE = 30 * 60
LONGEST_LIFE = 24 * 3600
MOST_LINE_ITEMS = 20
SHORTEST_TRIAL = 2 * DAY


class _PriceData(Nested):
    currency: Currency
    unit_amount: Count
    product: Text | None = None
    product_data: ProductData | None = None
    recurring: Recurring | None = None


class _LineItem(Nested):
    """A price, or what to make one of."""

    price: Text | None = None
    price_data: _PriceData | None = None
    quantity: Annotated[int, Field(ge=1, le=999_999)] | None = None


class _SubscriptionData(Nested):
    description: ClearableText = None
    metadata: Metadata = Field(default_factory=dict)
    trial_end: Timestamp | None = None
    trial_period_days: Annotated[int, Field(ge=1, le=LONGEST_TRIAL_DAYS)] | None = None
    trial_settings: TrialSettings | None = None


class _PaymentIntentData(Nested):
    description: ClearableText = None
    metadata: Metadata = Field(default_factory=dict)
    receipt_email: ClearableText = None
    setup_future_usage: Literal["off_session", "on_session"] | None = None


class _AutomaticTax(Nested):
    enabled: Literal["false"]
    """The stand-in knows no taxes."""


class SessionCreate(Params):
    """A session to open."""

    ui_mode: Literal["hosted_page"] = "hosted_page"
    automatic_tax: _AutomaticTax | None = None
    locale: Text | None = None
    mode: Literal["payment", "subscription"]
    line_items: Annotated[FormList[_LineItem], Field(min_length=1, max_length=MOST_LINE_ITEMS)]
    success_url: Url
    cancel_url: Url | None = None
    customer: Text | None = None
    customer_creation: Literal["always", "if_required"] | None = None
    customer_email: Text | None = None
    client_reference_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    discounts: Annotated[FormList[DiscountChoice], Field(max_length=1)] = Field(default_factory=list)
    allow_promotion_codes: Flag | None = None
    payment_method_collection: Literal["always", "if_required"] | None = None
    payment_method_types: FormList[Literal["card"]] = Field(default_factory=list)
    payment_intent_data: _PaymentIntentData | None = None
    subscription_data: _SubscriptionData | None = None
    expires_at: Timestamp | None = None
    metadata: Metadata = Field(default_factory=dict)


class SessionUpdate(Params):
    """An edit: metadata only."""

    metadata: MetadataChange = Field(default_factory=dict)


class _CustomerDetails(Nested):
    email: Text


class SessionList(DatedListParams):
    """A page of sessions."""

    customer_details: _CustomerDetails | None = None
    customer: Text | None = None
    status: Literal["complete", "expired", "open"] | None = None
    payment_intent: Text | None = None
    subscription: Text | None = None


def _create(asked: Asked[SessionCreate]) -> Change:
    params, state = asked.params, asked.state
    customer = None if params.customer is None else found(state, "customer", params.customer, "customer")
    # People visit a page in real time, so a session lives in it even if what it sells will not.
    moment = asked.moment
    theirs = moment if customer is None else in_time_of(customer, state, moment)
    _check(params, theirs)
    decision = Decision(state)
    lines, currency = _lines(params, decision, moment)
    session_id = moment.new_id("cs_test")
    new = objects.checkout_session(
        session_id,
        moment.now,
        {
            **params.model_dump(exclude={"line_items", "expand"}),
            **_modes_own(params, customer),
            "line_items": [objects.session_item(moment.new_id("li"), line, currency) for line in lines],
            "currency": currency,
            "expires_at": _expiry(params.expires_at, moment.now),
            "customer_details": _details(customer, params.customer_email),
            "url": f"{moment.base_url}/c/pay/{session_id}",
        },
    )
    order = purchase.order_of(new, decision)
    given = redemptions(params.discounts, order, decision, theirs.now)
    new = purchase.priced(new, given, decision)
    decision.save(new)
    return decision.change(new)


def _check(params: SessionCreate, moment: Moment) -> None:
    subscribing = params.mode == "subscription"
    for name, fits in (
        ("subscription_data", subscribing),
        ("payment_method_collection", subscribing),
        ("payment_intent_data", not subscribing),
        ("customer_creation", not subscribing),
    ):
        if getattr(params, name) is not None and not fits:
            raise ApiError(f"You can not pass `{name}` in `{params.mode}` mode.", param=name)
    for one, other in (("customer", "customer_email"), ("customer", "customer_creation")):
        if getattr(params, one) is not None and getattr(params, other) is not None:
            raise ApiError(f"You may only give one of {one} and {other}.", param=other)
    if params.discounts and params.allow_promotion_codes is not None:
        raise ApiError(
            "You may only specify one of these parameters: allow_promotion_codes, discounts.",
            param="allow_promotion_codes",
        )
    _check_trial(params.subscription_data or _SubscriptionData(), moment.now)


def _check_trial(terms: _SubscriptionData, now: int) -> None:
    end = terms.trial_end
    if end is None:
        return
    if terms.trial_period_days is not None:
        raise ApiError(
            "You may only give one of trial_end and trial_period_days.", param="subscription_data[trial_end]"
        )
    if not now + SHORTEST_TRIAL <= end <= now + LONGEST_TRIAL_DAYS * DAY:
        raise ApiError(
            "The `trial_end` date has to be at least 2 days, and at most 730, in the future.",
            param="subscription_data[trial_end]",
        )


def _modes_own(params: SessionCreate, customer: Json | None) -> Json:
    """What only one of the modes has."""
    subscribing = params.mode == "subscription"
    creation = "always" if subscribing else params.customer_creation or "if_required"
    return {
        "customer_creation": creation if customer is None else None,
        "payment_intent_data": (params.payment_intent_data or _PaymentIntentData()).model_dump(),
        "payment_method_collection": params.payment_method_collection or "always"
        if subscribing
        else "if_required",
        "subscription_data": (params.subscription_data or _SubscriptionData()).model_dump(),
    }


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


def _lines(params: SessionCreate, decision: Decision, moment: Moment) -> tuple[list[Line], str]:
    """The lines to sell, and their currency."""
    prices = [
        _price(item, f"line_items[{position}]", decision, moment)
        for position, item in enumerate(params.line_items)
    ]
    recurring = [price["recurring"] is not None for price in prices]
    if params.mode == "payment" and any(recurring):
        raise ApiError(
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode"
            " or use only one-time prices.",
            param=f"line_items[{recurring.index(True)}][price]",
        )
    if params.mode == "subscription" and not any(recurring):
        raise ApiError(
            "You specified `subscription` mode but passed only one-time prices: at least one has to be"
            " recurring.",
            param="line_items[0][price]",
        )
    currencies = {price["currency"] for price in prices}
    if len(currencies) > 1:
        raise ApiError("All prices of a session must be in one currency.", param="line_items")
    lines = [
        _line(price, item.quantity, f"line_items[{position}]", decision)
        for position, (price, item) in enumerate(zip(prices, params.line_items, strict=True))
    ]
    return lines, currencies.pop()


def _price(item: _LineItem, param: str, decision: Decision, moment: Moment) -> Json:
    if (item.price is None) == (item.price_data is None):
        raise ApiError("You must give exactly one of price and price_data.", param=f"{param}[price]")
    if item.price_data is not None:
        return _new_price(item.price_data, f"{param}[price_data]", decision, moment)
    price = found(decision, "price", item.price or "", f"{param}[price]")
    if not price["active"]:
        raise ApiError(
            f"The price {item.price} is inactive: only active prices can be sold.", param=f"{param}[price]"
        )
    return price


def _new_price(given: _PriceData, param: str, decision: Decision, moment: Moment) -> Json:
    """A price for this session alone: it, and a product made along with it, cannot be sold again."""
    if (given.product is None) == (given.product_data is None):
        raise ApiError("You must give exactly one of product and product_data.", param=f"{param}[product]")
    if given.product_data is not None:
        fields = {**given.product_data.model_dump(), "active": False}
        product = objects.product(moment.new_id("prod"), moment.now, fields)
        decision.save(product)
        decision.tell("product.created", product)
    else:
        product = found(decision, "product", given.product or "", f"{param}[product]")
    fields = {**given.model_dump(), "active": False, "product": product["id"]}
    price = objects.price(moment.new_id("price"), moment.now, fields)
    decision.save(price)
    decision.tell("price.created", price)
    return price


def _line(price: Json, quantity: int | None, param: str, state: State) -> Line:
    if quantity is None:
        raise ApiError(f"Quantity is required. Add `quantity` to `{param}`", param=param)
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
    return purchase.expired(session, asked.state)


def _sessions(asked: Asked[SessionList]) -> Query:
    params = asked.params
    email = params.customer_details and params.customer_details.email
    return Query(
        "checkout.session",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: (
            params.status in (None, one["status"])
            and params.payment_intent in (None, one["payment_intent"])
            and params.subscription in (None, one["subscription"])
            and (email is None or email == (one["customer_details"] or {}).get("email"))
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
