"""Which promotion code at Stripe a customer means, and why one cannot be used."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from platform_api import problems
from platform_api.problems import Problem
from platform_api.stripe_gateway import StripeGateway
from platform_api.stripe_objects import PromotionCode

_CODE = re.compile(r"[A-Za-z0-9-]+")  # what Stripe allows; it has no other


async def find_promotion_code(gateway: StripeGateway, asked: str, customer: str | None) -> PromotionCode:
    """Return the promotion code that reads `asked` and may be used by `customer`, an id of Stripe's.

    Whether it fits the purchase is only known when a session is made with it.

    Raises:
        Problem: 400, there is none; the detail says why.
    """
    if not _CODE.fullmatch(asked):
        raise _refused([])
    # A code may be active once for everybody and once for each of some customers: one's own goes first.
    active = await gateway.promotion_codes(asked, only_active=True)
    for owner in (customer, None):
        for code in active:
            if code.customer == owner:
                return code
    raise _refused(active or await gateway.promotion_codes(asked, only_active=False))


def why_not(codes: Sequence[PromotionCode], now: datetime) -> str:
    """Say why none of `codes`, which all read as was asked, can be used. Pure."""
    if not codes:
        return "There is no such promotion code."
    newest = codes[0]
    if newest.active:
        return "This promotion code is meant for another customer."
    if newest.used_up:
        return "This promotion code has been used as often as it may be."
    if newest.expires_at is not None and newest.expires_at <= now:
        return f"This promotion code expired on {newest.expires_at.day} {newest.expires_at:%B %Y}."
    return "This promotion code is no longer valid."


def _refused(codes: Sequence[PromotionCode]) -> Problem:
    why = why_not(codes, datetime.now(UTC))
    return Problem(problems.PROMO_CODE, f"{why} Leave it out, or use another.")
