"""Stripe's objects as of API_VERSION, made new. Field by field as Stripe's OpenAPI document lists them.

Stored objects name others by id. What an answer shows of them (a subscription item's price, a session's
line items) is filled in by `present`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

API_VERSION = "2026-10-28.endive"

Json = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A price and how many of it, with what it costs each, in the currency's smallest unit."""

    price: str
    product: str
    unit_amount: int
    quantity: int
    description: str

    @property
    def amount(self) -> int:
        """What it costs together."""
        return self.unit_amount * self.quantity


def list_of(data: Sequence[Json], url: str, *, has_more: bool = False) -> Json:
    """Stripe's list object."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}


def customer(customer_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A customer nobody has charged yet."""
    return {
        "id": customer_id,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": now,
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": given.get("description"),
        "discount": None,
        "email": given.get("email"),
        "invoice_prefix": customer_id[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": given.get("metadata") or {},
        "name": given.get("name"),
        "next_invoice_sequence": 1,
        "phone": given.get("phone"),
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def product(product_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A product; `given` holds at least its name."""
    return {
        "id": product_id,
        "object": "product",
        "active": given.get("active", True),
        "created": now,
        "default_price": None,
        "description": given.get("description"),
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": given.get("metadata") or {},
        "name": given["name"],
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": given.get("unit_label"),
        "updated": now,
        "url": given.get("url"),
    }


def price(price_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A per-unit price; `given` holds at least product, currency and unit_amount."""
    recurring = given.get("recurring")
    return {
        "id": price_id,
        "object": "price",
        "active": given.get("active", True),
        "billing_scheme": "per_unit",
        "created": now,
        "currency": given["currency"],
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": given.get("lookup_key"),
        "metadata": given.get("metadata") or {},
        "nickname": given.get("nickname"),
        "product": given["product"],
        "recurring": recurring
        and {
            "interval": recurring["interval"],
            "interval_count": recurring["interval_count"],
            "meter": None,
            "trial_period_days": None,
            "usage_type": "licensed",
        },
        "tax_behavior": given.get("tax_behavior", "unspecified"),
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if recurring else "one_time",
        "unit_amount": given["unit_amount"],
        "unit_amount_decimal": str(given["unit_amount"]),
    }


def payment_method(method_id: str, now: int, card: Json, billing: Mapping[str, Any]) -> Json:
    """A card attached to the customer in `billing`."""
    return {
        "id": method_id,
        "object": "payment_method",
        "allow_redisplay": "limited",
        "billing_details": {
            "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
            "email": billing["email"],
            "name": billing["name"],
            "phone": None,
            "tax_id": None,
        },
        "card": card,
        "created": now,
        "customer": billing["customer"],
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def card(number: str, brand: str, exp_month: int, exp_year: int) -> Json:
    """A card as a payment method shows it: never its number."""
    checks = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}
    return {
        "brand": brand,
        "checks": checks,
        "country": "US",
        "display_brand": brand,
        "exp_month": exp_month,
        "exp_year": exp_year,
        "fingerprint": f"sandbox{number[-4:]}",
        "funding": "credit",
        "generated_from": None,
        "last4": number[-4:],
        "networks": {"available": [brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def checkout_session(session_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """An open session in subscription mode.

    `given` holds line_items, currency, amount_total, amount_due, expires_at, url and what the caller chose.
    """
    return {
        "id": session_id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": given["amount_total"],
        "amount_total": given["amount_total"],
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "branding_settings": {
            "background_color": "#ffffff",
            "border_style": "rounded",
            "button_color": "#0b5cad",
            "display_name": "Stripe stand-in",
            "font_family": "default",
            "icon": None,
            "logo": None,
        },
        "cancel_url": given.get("cancel_url"),
        "client_reference_id": given.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now,
        "currency": given["currency"],
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": dict.fromkeys(
            ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
        ),
        "customer": given.get("customer"),
        "customer_account": None,
        "customer_creation": None if given.get("customer") else "always",
        "customer_details": given.get("customer_details"),
        "customer_email": given.get("customer_email"),
        "discounts": [],
        "expires_at": given["expires_at"],
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": None,
        "line_items": given["line_items"],
        "livemode": False,
        "locale": None,
        "managed_payments": None,
        "metadata": given.get("metadata") or {},
        "mode": "subscription",
        "name_collection": {},
        "optional_items": None,
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "redirect_on_completion": "always",
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": given["success_url"],
        "tax_id_collection": {"enabled": False, "required": "never"},
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": given["url"],
        "wallet_options": None,
    }


def customer_details(email: str | None, name: str | None) -> Json:
    """Who a session's buyer is."""
    return {
        "address": None,
        "business_name": None,
        "email": email,
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


def session_item(item_id: str, line: Line, currency: str) -> Json:
    """A line of a checkout session."""
    return {
        "id": item_id,
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": line.amount,
        "amount_tax": 0,
        "amount_total": line.amount,
        "currency": currency,
        "description": line.description,
        "metadata": {},
        "price": line.price,
        "quantity": line.quantity,
    }


def subscription(subscription_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A subscription; `given` holds customer, currency, items, status and what else is known of it."""
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": given.get("trial_end") or now,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "feedback_option": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": given["currency"],
        "customer": given["customer"],
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": given.get("default_payment_method"),
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "items": list_of(given["items"], f"/v1/subscription_items?subscription={subscription_id}"),
        "latest_invoice": given.get("latest_invoice"),
        "livemode": False,
        "managed_payments": None,
        "metadata": given.get("metadata") or {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": given["status"],
        "test_clock": None,
        "transfer_data": None,
        "trial_end": given.get("trial_end"),
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": now if given.get("trial_end") else None,
    }


@dataclass(frozen=True)
class Period:
    """Two Unix seconds."""

    start: int
    end: int


def subscription_item(item_id: str, now: int, given: Mapping[str, Any], period: Period) -> Json:
    """An item; `given` holds subscription, price and quantity."""
    return {
        "id": item_id,
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": now,
        "current_period_end": period.end,
        "current_period_start": period.start,
        "discounts": [],
        "metadata": given.get("metadata") or {},
        "price": given["price"],
        "quantity": given["quantity"],
        "subscription": given["subscription"],
        "tax_rates": [],
    }


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


def webhook_endpoint(endpoint_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """An endpoint; `given` holds url, enabled_events and the secret, which only its creation shows."""
    return {
        "id": endpoint_id,
        "object": "webhook_endpoint",
        "api_version": given.get("api_version"),
        "application": None,
        "created": now,
        "description": given.get("description"),
        "enabled_events": given["enabled_events"],
        "livemode": False,
        "metadata": given.get("metadata") or {},
        "secret": given["secret"],
        "status": "enabled",
        "url": given["url"],
    }


@dataclass(frozen=True)
class Cause:
    """The API request that caused an event; both None when no request did."""

    request: str | None = None
    idempotency_key: str | None = None


def event(event_id: str, now: int, kind: str, data: Json, cause: Cause) -> Json:
    """An event of type `kind`; `pending_webhooks` is filled in when it is shown."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": cause.request, "idempotency_key": cause.idempotency_key},
        "type": kind,
    }
