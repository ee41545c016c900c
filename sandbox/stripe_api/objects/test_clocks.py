"""Test clocks."""

from sandbox.stripe_api.objects.common import Json

KEPT_SECONDS = 30 * 86400
"""How long Stripe keeps a test clock: https://docs.stripe.com/billing/testing/test-clocks."""


def test_clock(clock_id: str, now: int, frozen_time: int, name: str | None) -> Json:
    """A clock that stands at `frozen_time`, Unix seconds."""
    return {
        "id": clock_id,
        "object": "test_helpers.test_clock",
        "created": now,
        "deletes_after": now + KEPT_SECONDS,
        "frozen_time": frozen_time,
        "livemode": False,
        "name": name,
        "status": "ready",
        "status_details": {},
    }
