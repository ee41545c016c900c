"""Products, their prices, and lines that sell them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.stripe_api.objects.common import Json


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


def product(product_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A product; `given` holds at least its name."""
    return {
        "id": product_id,
        "object": "product",
        "active": given.get("active", True),
        "created": now,
        "default_price": None,
        "description": given.get("description"),
        "images": given.get("images") or [],
        "livemode": False,
        "marketing_features": given.get("marketing_features") or [],
        "metadata": given.get("metadata") or {},
        "name": given["name"],
        "package_dimensions": None,
        "shippable": given.get("shippable"),
        "statement_descriptor": given.get("statement_descriptor"),
        "tax_code": given.get("tax_code"),
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
