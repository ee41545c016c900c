"""Customers."""

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing.ending import customer_deleted
from sandbox.stripe_api.billing.payments import attached
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Operation,
    found,
    listing,
    update,
    updated,
)
from sandbox.stripe_api.params import (
    Address,
    ClearableText,
    DatedListParams,
    FormList,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Text,
    unset,
)
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.resources.payment_methods import method_of, own_method
from sandbox.stripe_api.store import Query, State, every

MOST_ON_A_CLOCK = 3
"""https://docs.stripe.com/billing/testing/test-clocks/api-advanced-usage"""


class _InvoiceSettings(Nested):
    default_payment_method: ClearableText = None


class _Shipping(Nested):
    address: Address
    name: Text
    phone: ClearableText = None


def _email(value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"[^@\s]+@[^@\s]+", value) is None:
        raise PydanticCustomError("email_invalid", "Invalid email address")
    return value


Email = Annotated[ClearableText, AfterValidator(_email)]
_NAMES = (
    "address",
    "balance",
    "description",
    "email",
    "name",
    "phone",
    "preferred_locales",
    "shipping",
    "tax_exempt",
)


class _Described(Params):
    """What a new customer and an edited one have in common."""

    address: Annotated[Address | None, BeforeValidator(unset)] = None
    balance: Annotated[int, Field(ge=-99_999_999, le=99_999_999)] = 0
    description: ClearableText = None
    email: Email = None
    invoice_settings: _InvoiceSettings = _InvoiceSettings()
    name: ClearableText = None
    phone: ClearableText = None
    preferred_locales: FormList[Text] = Field(default_factory=list)
    shipping: Annotated[_Shipping | None, BeforeValidator(unset)] = None
    tax_exempt: Literal["exempt", "none", "reverse"] = "none"


class CustomerCreate(_Described):
    """A new customer."""

    metadata: Metadata = Field(default_factory=dict)
    payment_method: Text | None = None
    test_clock: Text | None = None


class CustomerUpdate(_Described):
    """An edit."""

    metadata: MetadataChange = Field(default_factory=dict)


class CustomerList(DatedListParams):
    """A page of customers."""

    email: Text | None = None
    test_clock: Text | None = None


def _create(asked: Asked[CustomerCreate]) -> Change:
    params, moment = asked.params, asked.moment
    if params.test_clock is not None:
        clock = found(asked.state, "test_helpers.test_clock", params.test_clock, "test_clock")
        _check_room(clock, asked.state)
        moment = replace(moment, now=clock["frozen_time"])
    decision = Decision(asked.state)
    new = objects.customer(moment.new_id("cus"), moment.now, params.model_dump())
    method = None
    if params.payment_method is not None:
        method = attached(method_of(params.payment_method, decision, moment, "payment_method"), new)
        decision.save(method)
    default = params.invoice_settings.default_payment_method
    if method is not None and default == params.payment_method:
        default = method["id"]  # the one attached, though a name of Stripe's, `pm_card_visa`, was given twice
    new = _with_default(new, default, decision)
    decision.save(new)
    decision.tell("customer.created", new)
    if method is not None:
        decision.tell("payment_method.attached", method)
    return decision.change(new)


def _check_room(clock: Json, state: State) -> None:
    owned = Query("customer", keep=lambda one: bool(one.get("test_clock") == clock["id"]))
    if len(every(state, owned, MOST_ON_A_CLOCK)) == MOST_ON_A_CLOCK:
        raise ApiError(
            f"A test clock can have up to {MOST_ON_A_CLOCK} customers: create another.", param="test_clock"
        )


def _with_default(customer: Json, method: str | None, state: State) -> Json:
    """A customer who pays with that card, if it is theirs."""
    if method is not None:
        own_method(method, customer["id"], state, "invoice_settings[default_payment_method]")
    settings = {**customer["invoice_settings"], "default_payment_method": method}
    return {**customer, "invoice_settings": settings}


def _update(asked: Asked[CustomerUpdate]) -> Change:
    old = found(asked.state, "customer", asked.ids["customer"])
    new = updated(old, asked.params, _NAMES)
    settings = asked.params.invoice_settings
    if "default_payment_method" in settings.model_fields_set:
        new = _with_default(new, settings.default_payment_method, asked.state)
    return update("customer", old, new, asked.state)


def _retrieve(asked: Asked[Params]) -> Change:
    """A customer; of a deleted one, that it is."""
    state = asked.state
    stored = state.find(asked.ids["customer"])
    if stored is not None and stored.get("deleted"):
        return Change(shown(stored, state))
    return Change(shown(found(state, "customer", asked.ids["customer"]), state))


def _delete(asked: Asked[Params]) -> Change:
    old = found(asked.state, "customer", asked.ids["customer"])
    decision = Decision(asked.state)
    customer_deleted(decision, old, in_time_of(old, asked.state, asked.moment))
    return decision.change({"id": old["id"], "object": "customer", "deleted": True})


def _customers(asked: Asked[CustomerList]) -> Query:
    params = asked.params
    return Query(
        "customer",
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: (
            not one.get("deleted")
            and params.email in (None, one["email"])
            and params.test_clock in (None, one["test_clock"])
        ),
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about customers."""
    return (
        Operation("POST", "/v1/customers", CustomerCreate, _create),
        listing("/v1/customers", CustomerList, _customers),
        Operation("GET", "/v1/customers/{customer}", Params, _retrieve),
        Operation("POST", "/v1/customers/{customer}", CustomerUpdate, _update),
        Operation("DELETE", "/v1/customers/{customer}", Params, _delete),
    )
