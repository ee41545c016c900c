"""Coupons, the codes people type for them, and the discounts they become."""

from collections.abc import Mapping
from typing import Any

from sandbox.stripe_api.objects.common import Json


def coupon(coupon_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A coupon nobody has redeemed; `given` holds duration, and percent_off or amount_off with currency.

    `_deleted` coupons cannot be redeemed or seen, and still count where they were redeemed. `_products` are
    the ids of the only products it takes something off, None for all of them.
    """
    return {
        "id": coupon_id,
        "object": "coupon",
        "_deleted": False,
        "_products": given.get("products"),
        "amount_off": given.get("amount_off"),
        "created": now,
        "currency": given.get("currency"),
        "duration": given["duration"],
        "duration_in_months": given.get("duration_in_months"),
        "livemode": False,
        "max_redemptions": given.get("max_redemptions"),
        "metadata": given.get("metadata") or {},
        "name": given.get("name"),
        "percent_off": given.get("percent_off"),
        "redeem_by": given.get("redeem_by"),
        "times_redeemed": 0,
        "valid": True,
    }


def promotion_code(code_id: str, now: int, given: Mapping[str, Any]) -> Json:
    """A code for a coupon; `given` holds code, coupon and restrictions."""
    restrictions = given["restrictions"]
    return {
        "id": code_id,
        "object": "promotion_code",
        "active": given["active"],
        "code": given["code"],
        "created": now,
        "customer": given.get("customer"),
        "customer_account": None,
        "expires_at": given.get("expires_at"),
        "livemode": False,
        "max_redemptions": given.get("max_redemptions"),
        "metadata": given.get("metadata") or {},
        "promotion": {"coupon": given["coupon"], "type": "coupon"},
        "restrictions": {
            "first_time_transaction": restrictions["first_time_transaction"],
            "minimum_amount": restrictions["minimum_amount"],
            "minimum_amount_currency": restrictions["minimum_amount_currency"],
        },
        "times_redeemed": 0,
    }


def discount(discount_id: str, start: int, end: int | None, given: Mapping[str, Any]) -> Json:
    """A redeemed coupon; `given` holds coupon, and what it was redeemed by and for."""
    return {
        "id": discount_id,
        "object": "discount",
        "checkout_session": given.get("checkout_session"),
        # Stripe's object has no `created`; the store orders by it.
        "_created": start,
        "customer": given.get("customer"),
        "customer_account": None,
        "end": end,
        "invoice": None,
        "invoice_item": None,
        "promotion_code": given.get("promotion_code"),
        "source": {"coupon": given["coupon"], "type": "coupon"},
        "start": start,
        "subscription": given.get("subscription"),
        "subscription_item": None,
    }
