"""Payment methods: test cards, and whose they are."""

from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.stripe_api import cards
from sandbox.stripe_api.billing.payments import attached, new_method
from sandbox.stripe_api.cards import Card, CardRefusedError
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Moment,
    Operation,
    found,
    listing,
    retrieval,
    update,
    updated,
)
from sandbox.stripe_api.params import (
    Address,
    ClearableText,
    ListParams,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Text,
)
from sandbox.stripe_api.store import Query, State

Month = Annotated[int, Field(ge=1, le=12)]
Year = Annotated[int, Field(ge=2000, le=9999)]


class _Card(Nested):
    """A number with its date, or one of Stripe's test tokens."""

    number: Text | None = None
    exp_month: Month | None = None
    exp_year: Year | None = None
    cvc: Text | None = None
    token: Text | None = None


class _Billing(Nested):
    address: Address = Address()
    email: ClearableText = None
    name: ClearableText = None
    phone: ClearableText = None


class MethodCreate(Params):
    """A new payment method of nobody yet."""

    type: Literal["card"]
    card: _Card
    billing_details: _Billing = _Billing()
    metadata: Metadata = Field(default_factory=dict)


class _NewDate(Nested):
    exp_month: Month | None = None
    exp_year: Year | None = None


class MethodUpdate(Params):
    """An edit: of the card only its date."""

    card: _NewDate = _NewDate()
    billing_details: _Billing = _Billing()
    metadata: MetadataChange = Field(default_factory=dict)


class MethodAttach(Params):
    """Whose it becomes."""

    customer: Text


class MethodList(ListParams):
    """A page of a customer's payment methods."""

    customer: Text
    type: Literal["card"] = "card"


class OwnMethodList(ListParams):
    """A page of the payment methods of the customer in the path."""

    type: Literal["card"] = "card"


def _create(asked: Asked[MethodCreate]) -> Change:
    params = asked.params
    given = params.billing_details
    new = new_method(_card(params.card, asked.moment.now), {}, asked.moment)
    new |= {"billing_details": _billing(new["billing_details"], given), "metadata": params.metadata}
    decision = Decision(asked.state)
    decision.save(new)
    return decision.change(new)


def _card(given: _Card, now: int) -> Card:
    if given.token is not None:
        card = cards.named(given.token, now)
        if card is None:
            raise ApiError(f"No such token: '{given.token}'", "resource_missing", "card[token]")
        return card
    for name in ("number", "exp_month", "exp_year"):
        if getattr(given, name) is None:
            raise ApiError(f"Missing required param: card[{name}].", "parameter_missing", f"card[{name}]")
    try:
        return cards.typed(given.number or "", f"{given.exp_month}/{given.exp_year}", now)
    except CardRefusedError as error:
        raise ApiError(str(error), error.code, status=402, type="card_error") from error


def _billing(old: Json, given: _Billing) -> Json:
    """Billing details with those that were given."""
    new = {**old, **given.model_dump(exclude_unset=True, exclude={"address"})}
    new["address"] = {**old["address"], **given.address.model_dump(exclude_unset=True)}
    return new


def _update(asked: Asked[MethodUpdate]) -> Change:
    params = asked.params
    old = found(asked.state, "payment_method", asked.ids["payment_method"])
    new = updated(old, params, ())
    new["billing_details"] = _billing(old["billing_details"], params.billing_details)
    new["card"] = {**old["card"], **params.card.model_dump(exclude_unset=True)}
    return update("payment_method", old, new, asked.state)


def method_of(method_id: str, state: State, moment: Moment, param: str = "id") -> Json:
    """The payment method of that id; a new one when it is one of Stripe's test names, as `pm_card_visa`.

    Raises:
        ApiError: there is none.
    """
    card = cards.named(method_id, moment.now)
    if card is not None and method_id.startswith("pm_"):
        return new_method(card, {}, moment)
    return found(state, "payment_method", method_id, param)


def own_method(method_id: str, customer: str, state: State, param: str) -> Json:
    """A customer's payment method.

    Raises:
        ApiError: there is none, or it is not theirs.
    """
    method = found(state, "payment_method", method_id, param)
    if method["customer"] != customer:
        raise ApiError(
            f"The customer does not have a payment method with the ID {method_id}. The payment method must be"
            " attached to the customer.",
            "resource_missing",
            param,
        )
    return method


def _attach(asked: Asked[MethodAttach]) -> Change:
    customer = found(asked.state, "customer", asked.params.customer, "customer")
    old = method_of(asked.ids["payment_method"], asked.state, asked.moment)
    new = attached(old, customer)
    decision = Decision(asked.state)
    decision.save(new)
    if old["customer"] is None:
        decision.tell("payment_method.attached", new)
    return decision.change(new)


def _detach(asked: Asked[Params]) -> Change:
    old = found(asked.state, "payment_method", asked.ids["payment_method"])
    if old["customer"] is None:
        raise ApiError(
            "The payment method you provided is not attached to a customer so detachment is impossible."
        )
    new = {**old, "_detached": True, "customer": None}
    decision = Decision(asked.state)
    decision.save(new)
    decision.tell("payment_method.detached", new, old)
    customer = found(asked.state, "customer", old["customer"])
    settings = customer["invoice_settings"]
    if settings["default_payment_method"] == old["id"]:
        without = {**customer, "invoice_settings": {**settings, "default_payment_method": None}}
        decision.save(without)
        decision.tell("customer.updated", without, customer)
    return decision.change(new)


def _methods(asked: Asked[MethodList]) -> Query:
    return _of_customer(asked.params.customer, asked.state, "customer")


def _own_methods(asked: Asked[OwnMethodList]) -> Query:
    return _of_customer(asked.ids["customer"], asked.state, "id")


def _of_customer(customer: str, state: State, param: str) -> Query:
    found(state, "customer", customer, param)
    return Query("payment_method", label=customer)


def _own_method(asked: Asked[Params]) -> Change:
    found(asked.state, "customer", asked.ids["customer"])
    method = found(asked.state, "payment_method", asked.ids["payment_method"])
    if method["customer"] != asked.ids["customer"]:
        raise ApiError("The customer does not have that payment method.", "resource_missing", status=404)
    return Decision(asked.state).change(method)


def operations() -> tuple[Operation[Any], ...]:
    """Every call about payment methods."""
    path = "/v1/payment_methods/{payment_method}"
    own = "/v1/customers/{customer}/payment_methods"
    return (
        Operation("POST", "/v1/payment_methods", MethodCreate, _create),
        listing("/v1/payment_methods", MethodList, _methods),
        retrieval(path, "payment_method"),
        Operation("POST", path, MethodUpdate, _update),
        Operation("POST", f"{path}/attach", MethodAttach, _attach),
        Operation("POST", f"{path}/detach", Params, _detach),
        listing(own, OwnMethodList, _own_methods),
        Operation("GET", f"{own}/{{payment_method}}", Params, _own_method),
    )
