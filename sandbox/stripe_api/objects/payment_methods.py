"""Payment methods."""

from collections.abc import Mapping
from typing import Any

from sandbox.stripe_api.objects.common import Json


def payment_method(method_id: str, now: int, card: Json, billing: Mapping[str, Any]) -> Json:
    """A card of the customer in `billing`, or of nobody yet.

    `_set_up` says whether its holder has authenticated it for payments while they are away.
    """
    return {
        "id": method_id,
        "object": "payment_method",
        "_set_up": False,
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
