"""Checkout sessions."""

from collections.abc import Mapping
from typing import Any

from sandbox.stripe_api.objects.catalogue import Line
from sandbox.stripe_api.objects.common import Json


def checkout_session(session_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """An open session whose amounts are still to be summed up.

    `given` holds mode, line_items, currency, expires_at, url and what the caller chose. Kept beside what
    Stripe shows: what the subscription or payment intent will have.
    """
    return {
        "id": session_id,
        "object": "checkout.session",
        "_payment_intent_data": given["payment_intent_data"],
        "_subscription_data": given["subscription_data"],
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": given.get("allow_promotion_codes"),
        "amount_subtotal": 0,
        "amount_total": 0,
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
        "customer_creation": given.get("customer_creation"),
        "customer_details": given.get("customer_details"),
        "customer_email": given.get("customer_email"),
        "discounts": [],
        "expires_at": given["expires_at"],
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": None,
        "line_items": given["line_items"],
        "livemode": False,
        "locale": given.get("locale"),
        "managed_payments": None,
        "metadata": given.get("metadata") or {},
        "mode": given["mode"],
        "name_collection": {},
        "optional_items": None,
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": given.get("payment_method_collection"),
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
    """A line of a checkout session, before discounts and trial."""
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
