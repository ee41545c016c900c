"""Invoices and their lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sandbox.stripe_api.objects.catalogue import Line
from sandbox.stripe_api.objects.common import Json, list_of
from sandbox.stripe_api.objects.subscriptions import Period

BillingReason = Literal["subscription_create", "subscription_cycle", "subscription_update"]


@dataclass(frozen=True)
class Bill:
    """What an invoice is about."""

    customer: Json
    subscription: str
    metadata: Mapping[str, str]
    currency: str
    reason: BillingReason


def paid_invoice(invoice_id: str, now: int, bill: Bill, lines: Sequence[Json]) -> Json:
    """An invoice that was paid as it was made; zero when a trial begins."""
    total = sum(line["amount"] for line in lines)
    return {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Stripe stand-in",
        "account_tax_ids": None,
        "amount_due": total,
        "amount_overpaid": 0,
        "amount_paid": total,
        "amount_paid_off_stripe": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 1 if total else 0,
        "attempted": True,
        "auto_advance": False,
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
        "currency": bill.currency,
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
        "effective_at": now,
        "ending_balance": 0,
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
        "number": f"{bill.customer['invoice_prefix']}-{bill.customer['next_invoice_sequence']:04}",
        "on_behalf_of": None,
        "parent": {
            "quote_details": None,
            "subscription_details": {"metadata": dict(bill.metadata), "subscription": bill.subscription},
            "type": "subscription_details",
        },
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": now,
        "period_start": now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "paid",
        "status_transitions": {
            "finalized_at": now,
            "marked_uncollectible_at": None,
            "paid_at": now,
            "voided_at": None,
        },
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "test_clock": None,
        "total": total,
        "total_discount_amounts": [],
        "total_excluding_tax": total,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": now,
    }


@dataclass(frozen=True)
class Billed:
    """The subscription item an invoice's line is for."""

    invoice: str
    subscription: str
    item: str
    period: Period
    trial: bool


def invoice_line(line_id: str, line: Line, billed: Billed, currency: str) -> Json:
    """A line of an invoice; costs nothing in a trial."""
    amount = 0 if billed.trial else line.amount
    return {
        "id": line_id,
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": f"Trial period for {line.description}" if billed.trial else line.description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": billed.invoice,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": billed.subscription,
                "subscription_item": billed.item,
            },
            "type": "subscription_item_details",
        },
        "period": {"start": billed.period.start, "end": billed.period.end},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": line.price, "product": line.product},
            "type": "price_details",
            "unit_amount_decimal": "0" if billed.trial else str(line.unit_amount),
        },
        "quantity": line.quantity,
        "quantity_decimal": str(line.quantity),
        "subscription": billed.subscription,
        "subtotal": amount,
        "taxes": [],
    }
