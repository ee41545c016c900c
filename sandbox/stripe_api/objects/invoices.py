"""Invoices, their lines and payments, and what waits for the next invoice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sandbox.stripe_api.objects.common import Json, list_of
from sandbox.stripe_api.objects.subscriptions import Period

BillingReason = Literal["subscription_create", "subscription_cycle", "subscription_update"]


@dataclass(frozen=True)
class Bill:
    """What an invoice is about.

    Attributes:
        subscription: as it is.
        period: what the invoice covers of items that were added on the way.
    """

    customer: Json
    subscription: Json
    reason: BillingReason
    period: Period


@dataclass(frozen=True)
class BillLine:
    """What is billed: a period of a subscription's item, the proration of one, or something bought once.

    Attributes:
        amount: in the currency's smallest unit; less than zero for a credit.
        unit_amount: the price of one; zero in a trial.
        item: the subscription's item; None for what is bought once.
        invoice_item: what it was waiting as, if it was.
    """

    description: str
    amount: int
    unit_amount: int
    quantity: int
    price: str
    product: str
    item: str | None
    period: Period
    proration: bool = False
    invoice_item: str | None = None


def invoice(invoice_id: str, now: int, bill: Bill, lines: Sequence[Json]) -> Json:
    """A draft that asks for nothing yet."""
    subscription = bill.subscription
    return {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Stripe stand-in",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": bill.reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": subscription["currency"],
        "custom_fields": None,
        "customer": bill.customer["id"],
        "customer_account": None,
        "customer_address": None,
        "customer_email": bill.customer["email"],
        "customer_name": bill.customer["name"],
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": list_of(lines, f"/v1/invoices/{invoice_id}/lines"),
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": bill.period.end,
        "period_start": bill.period.start,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": subscription["test_clock"],
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": now,
    }


def invoice_line(line_id: str, invoice_id: str, line: BillLine, subscription: Json) -> Json:
    """A line of a subscription's invoice."""
    return {
        "id": line_id,
        "object": "line_item",
        "amount": line.amount,
        "currency": subscription["currency"],
        "description": line.description,
        "discount_amounts": [],
        "discountable": not line.proration,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": dict(subscription["metadata"]),
        "parent": _parent(line, subscription),
        "period": {"start": line.period.start, "end": line.period.end},
        "pretax_credit_amounts": [],
        "pricing": _pricing(line),
        "quantity": line.quantity,
        "quantity_decimal": str(line.quantity),
        "subscription": subscription["id"],
        "subtotal": line.amount,
        "taxes": [],
    }


def _parent(line: BillLine, subscription: Json) -> Json:
    details = {
        "invoice_item": line.invoice_item,
        "proration": line.proration,
        "proration_details": {"credited_items": None},
        "subscription": subscription["id"],
    }
    kind = "invoice_item_details" if line.item is None else "subscription_item_details"
    parents: Json = {"invoice_item_details": None, "subscription_item_details": None, "type": kind}
    return {**parents, kind: details if line.item is None else {**details, "subscription_item": line.item}}


def invoice_item(item_id: str, now: int, line: BillLine, subscription: Json) -> Json:
    """A proration, or something bought once, that waits for its subscription's next invoice."""
    return {
        "id": item_id,
        "object": "invoiceitem",
        # Stripe's object calls it `date`; the store orders by this.
        "_created": now,
        "amount": line.amount,
        "currency": subscription["currency"],
        "customer": subscription["customer"],
        "customer_account": None,
        "date": now,
        "description": line.description,
        "discountable": not line.proration,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "net_amount": line.amount,
        "parent": {
            "subscription_details": {"subscription": subscription["id"], "subscription_item": line.item},
            "type": "subscription_details",
        },
        "period": {"start": line.period.start, "end": line.period.end},
        "pricing": _pricing(line),
        "proration": line.proration,
        "proration_details": {"discount_amounts": []},
        "quantity": line.quantity,
        "quantity_decimal": str(line.quantity),
        "tax_rates": [],
        "test_clock": subscription["test_clock"],
    }


def _pricing(line: BillLine) -> Json:
    return {
        "price_details": {"price": line.price, "product": line.product},
        "type": "price_details",
        "unit_amount_decimal": str(line.unit_amount),
    }


def waiting_line(item: Json) -> BillLine:
    """The line that an invoice item becomes."""
    details: Mapping[str, str] = item["pricing"]["price_details"]
    return BillLine(
        description=item["description"],
        amount=item["amount"],
        unit_amount=int(item["pricing"]["unit_amount_decimal"]),
        quantity=item["quantity"],
        price=details["price"],
        product=details["product"],
        item=item["parent"]["subscription_details"]["subscription_item"],
        period=Period(item["period"]["start"], item["period"]["end"]),
        proration=item["proration"],
        invoice_item=item["id"],
    )


def invoice_payment(payment_id: str, now: int, invoice: Json, intent: str) -> Json:
    """The payment intent that is to pay an invoice."""
    return {
        "id": payment_id,
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice["amount_due"],
        "created": now,
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent, "type": "payment_intent"},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
