"""Customers."""

from typing import Any

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Draft,
    Operation,
    found,
    listing,
    retrieval,
    update,
    updated,
)
from sandbox.stripe_api.params import (
    ClearableText,
    DatedListParams,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Text,
)
from sandbox.stripe_api.store import Query


class _InvoiceSettings(Nested):
    default_payment_method: ClearableText = None


class CustomerCreate(Params):
    """A new customer."""

    description: ClearableText = None
    email: ClearableText = None
    name: ClearableText = None
    phone: ClearableText = None
    metadata: Metadata = Field(default_factory=dict)


class CustomerUpdate(Params):
    """An edit."""

    description: ClearableText = None
    email: ClearableText = None
    name: ClearableText = None
    phone: ClearableText = None
    metadata: MetadataChange = Field(default_factory=dict)
    invoice_settings: _InvoiceSettings = _InvoiceSettings()


class CustomerList(DatedListParams):
    """A page of customers."""

    email: Text | None = None


def _create(asked: Asked[CustomerCreate]) -> Change:
    moment = asked.moment
    new = objects.customer(moment.new_id("cus"), moment.now, asked.params.model_dump())
    return Change(new, (new,), (Draft("customer.created", new),))


def _update(asked: Asked[CustomerUpdate]) -> Change:
    old = found(asked.state, "customer", asked.ids["customer"])
    new = updated(old, asked.params, ("description", "email", "name", "phone"))
    settings = asked.params.invoice_settings
    if "default_payment_method" in settings.model_fields_set:
        method = settings.default_payment_method
        if method is not None:
            found(asked.state, "payment_method", method, "invoice_settings[default_payment_method]")
        new["invoice_settings"] = {**old["invoice_settings"], "default_payment_method": method}
    return update("customer", old, new, asked.state)


def _customers(asked: Asked[CustomerList]) -> Query:
    email, created = asked.params.email, asked.params.created
    return Query(
        "customer",
        since=created.first(),
        until=created.last(),
        keep=lambda one: email is None or one["email"] == email,
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about customers."""
    return (
        Operation("POST", "/v1/customers", CustomerCreate, _create),
        listing("/v1/customers", CustomerList, _customers),
        retrieval("/v1/customers/{customer}", "customer"),
        Operation("POST", "/v1/customers/{customer}", CustomerUpdate, _update),
    )
