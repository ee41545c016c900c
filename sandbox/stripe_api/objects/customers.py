"""Customers."""

from collections.abc import Mapping
from typing import Any

from sandbox.stripe_api.objects.common import Json


def customer(customer_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A customer nobody has charged yet."""
    return {
        "id": customer_id,
        "object": "customer",
        "address": given.get("address"),
        "balance": given.get("balance", 0),
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
        "preferred_locales": given.get("preferred_locales") or [],
        "shipping": given.get("shipping"),
        "tax_exempt": given.get("tax_exempt", "none"),
        "test_clock": given.get("test_clock"),
    }
