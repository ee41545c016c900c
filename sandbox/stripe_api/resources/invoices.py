"""Invoices, what was to pay them, and what waits for the next one."""

from typing import Any, Literal

from pydantic import Field

from sandbox.stripe_api.billing import invoicing
from sandbox.stripe_api.billing.invoicing import DRAFT_SECONDS, Attempt
from sandbox.stripe_api.billing.payments import Holder
from sandbox.stripe_api.billing.subscribing import collect, unpaid
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Change, Operation, found, listing, retrieval, update, updated
from sandbox.stripe_api.params import (
    ClearableText,
    DatedListParams,
    Flag,
    ListParams,
    MetadataChange,
    Nested,
    Params,
    Text,
)
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.resources.payment_methods import own_method
from sandbox.stripe_api.resources.subscription_params import CollectionMethod
from sandbox.stripe_api.store import Query

_PATH = "/v1/invoices/{invoice}"


class InvoiceList(DatedListParams):
    """A page of invoices."""

    collection_method: CollectionMethod | None = None
    customer: Text | None = None
    status: Literal["draft", "open", "paid", "uncollectible", "void"] | None = None
    subscription: Text | None = None


class InvoiceUpdate(Params):
    """An edit: never of what is billed."""

    auto_advance: Flag = True
    description: ClearableText = None
    metadata: MetadataChange = Field(default_factory=dict)


class InvoiceFinalize(Params):
    """A draft to fix."""

    auto_advance: Flag = True


class InvoicePay(Params):
    """A payment to try now."""

    off_session: Flag = True
    paid_out_of_band: Flag = False
    payment_method: Text | None = None


class _Payment(Nested):
    type: Literal["charge", "payment_intent"]
    payment_intent: Text | None = None


class PaymentList(DatedListParams):
    """A page of invoice payments."""

    invoice: Text | None = None
    payment: _Payment | None = None
    status: Literal["canceled", "open", "paid"] | None = None


class ItemList(DatedListParams):
    """A page of invoice items."""

    customer: Text | None = None
    invoice: Text | None = None
    pending: Flag | None = None


def _invoices(asked: Asked[InvoiceList]) -> Query:
    params = asked.params

    def keep(one: Json) -> bool:
        subscription = one["parent"]["subscription_details"]["subscription"]
        return (
            params.status in (None, one["status"])
            and params.subscription in (None, subscription)
            and params.collection_method in (None, one["collection_method"])
        )

    return Query(
        "invoice",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=keep,
    )


def _update(asked: Asked[InvoiceUpdate]) -> Change:
    old = found(asked.state, "invoice", asked.ids["invoice"])
    new = updated(old, asked.params, ("auto_advance", "description"))
    if new["auto_advance"] != old["auto_advance"] and old["status"] not in ("draft", "open"):
        raise ApiError(f"This invoice is {old['status']}: nobody collects it.", "invoice_not_editable")
    if new["status"] == "draft" and "auto_advance" in asked.params.model_fields_set:
        now = in_time_of(old, asked.state, asked.moment).now
        new["automatically_finalizes_at"] = now + DRAFT_SECONDS if new["auto_advance"] else None
    return update("invoice", old, new, asked.state)


def _finalize(asked: Asked[InvoiceFinalize]) -> Change:
    invoice = _of_status(asked, "draft", "finalize")
    moment = in_time_of(invoice, asked.state, asked.moment)
    decision = Decision(asked.state)
    fixed = invoicing.finalized(decision, invoice, moment)
    if fixed["status"] == "open" and asked.params.auto_advance and invoice["auto_advance"]:
        # Stripe collects what is to be collected within the hour; here it is the next thing to happen.
        fixed = {**fixed, "next_payment_attempt": moment.now}
        decision.save(fixed)
    return decision.change(found(decision, "invoice", invoice["id"]))


def _pay(asked: Asked[InvoicePay]) -> Change:
    params, state = asked.params, asked.state
    invoice = found(state, "invoice", asked.ids["invoice"])
    moment = in_time_of(invoice, state, asked.moment)
    decision = Decision(state)
    if invoice["status"] == "draft":
        invoice = invoicing.finalized(decision, invoice, moment)
    elif invoice["status"] not in ("open", "uncollectible"):
        raise ApiError(f"Invoice is already {invoice['status']}.", _CODES.get(invoice["status"]))
    if params.paid_out_of_band and invoice["status"] != "paid":
        invoicing.settled(decision, invoice, moment, out_of_band=True)
    elif invoice["status"] != "paid":
        return _paid_by_card(decision, invoice, asked)
    return decision.change(found(decision, "invoice", invoice["id"]))


_CODES = {"paid": "invoice_already_paid", "void": "invoice_not_editable"}


def _paid_by_card(decision: Decision, invoice: Json, asked: Asked[InvoicePay]) -> Change:
    """Try the card; when it declines the caller hears of that, and it has happened all the same."""
    params = asked.params
    method = None
    if params.payment_method is not None:
        method = own_method(params.payment_method, invoice["customer"], asked.state, "payment_method")
    holder = Holder.AWAY if params.off_session else Holder.PRESENT
    moment = in_time_of(invoice, asked.state, asked.moment)
    collected = collect(decision, invoice, "allow_incomplete", Attempt(holder, method=method), moment)
    tried = found(decision, "invoice", invoice["id"])
    refusal = None if collected is None or collected.outcome == "paid" else unpaid(collected)
    return decision.change(tried, refusal)


def _void(asked: Asked[Params]) -> Change:
    invoice = _of_status(asked, "open", "void", "uncollectible")
    decision = Decision(asked.state)
    return decision.change(
        invoicing.voided(decision, invoice, in_time_of(invoice, asked.state, asked.moment))
    )


def _give_up(asked: Asked[Params]) -> Change:
    invoice = _of_status(asked, "open", "mark as uncollectible")
    decision = Decision(asked.state)
    moment = in_time_of(invoice, asked.state, asked.moment)
    return decision.change(invoicing.given_up(decision, invoice, moment))


def _of_status(asked: Asked[Any], status: str, verb: str, other: str | None = None) -> Json:
    invoice = found(asked.state, "invoice", asked.ids["invoice"])
    if invoice["status"] not in (status, other):
        raise ApiError(
            f"You can only {verb} {status} invoices. This invoice isn't {status}: it is {invoice['status']}.",
            "invoice_not_editable",
        )
    return invoice


def _list_lines(asked: Asked[ListParams]) -> Change:
    lines = shown(found(asked.state, "invoice", asked.ids["invoice"]), asked.state)["lines"]
    limit = asked.params.limit
    return Change({**lines, "data": lines["data"][:limit], "has_more": len(lines["data"]) > limit})


def _payments(asked: Asked[PaymentList]) -> Query:
    params = asked.params

    def keep(one: Json) -> bool:
        intent = params.payment and params.payment.payment_intent
        return params.status in (None, one["status"]) and intent in (None, one["payment"]["payment_intent"])

    return Query(
        "invoice_payment",
        label=params.invoice,
        since=params.created.first(),
        until=params.created.last(),
        keep=keep,
    )


def _items(asked: Asked[ItemList]) -> Query:
    params = asked.params
    return Query(
        "invoiceitem",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: (
            params.invoice in (None, one["invoice"]) and params.pending in (None, one["invoice"] is None)
        ),
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about invoices."""
    return (
        listing("/v1/invoices", InvoiceList, _invoices),
        retrieval(_PATH, "invoice"),
        Operation("POST", _PATH, InvoiceUpdate, _update),
        Operation("POST", f"{_PATH}/finalize", InvoiceFinalize, _finalize),
        Operation("POST", f"{_PATH}/pay", InvoicePay, _pay),
        Operation("POST", f"{_PATH}/void", Params, _void),
        Operation("POST", f"{_PATH}/mark_uncollectible", Params, _give_up),
        Operation("GET", f"{_PATH}/lines", ListParams, _list_lines),
        listing("/v1/invoice_payments", PaymentList, _payments),
        retrieval("/v1/invoice_payments/{invoice_payment}", "invoice_payment"),
        listing("/v1/invoiceitems", ItemList, _items),
        retrieval("/v1/invoiceitems/{invoiceitem}", "invoiceitem"),
    )
