"""Customers."""

from dataclasses import replace
from typing import Any

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing.ending import customer_deleted
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Draft,
    Operation,
    found,
    listing,
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
from sandbox.stripe_api.present import shown
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
    test_clock: Text | None = None


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
    test_clock: Text | None = None


def _create(asked: Asked[CustomerCreate]) -> Change:
    params, moment = asked.params, asked.moment
    if params.test_clock is not None:
        clock = found(asked.state, "test_helpers.test_clock", params.test_clock, "test_clock")
        moment = replace(moment, now=clock["frozen_time"])
    new = objects.customer(moment.new_id("cus"), moment.now, params.model_dump())
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
