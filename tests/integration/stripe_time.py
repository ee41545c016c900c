"""Subscriptions on a test clock, through the official client."""

from datetime import UTC, datetime
from typing import Any

import stripe

DAY = 86400
START = int(datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp())


async def new_clock(api: stripe.StripeClient) -> str:
    """A test clock that stands at START."""
    clock = await api.v1.test_helpers.test_clocks.create_async({"frozen_time": START, "name": "Spring"})
    return clock.id


async def new_customer(
    api: stripe.StripeClient, clock: str | None = None, card: str | None = "pm_card_visa"
) -> str:
    """A customer who lives by a clock and pays with a card."""
    given: Any = {"email": "ada@example.com"} | ({} if clock is None else {"test_clock": clock})
    customer = await api.v1.customers.create_async(given)
    if card is not None:
        await pays_with(api, customer.id, card)
    return customer.id


async def pays_with(api: stripe.StripeClient, customer: str, card: str) -> str:
    """Give a customer a card, and make it the one that is charged."""
    method = await api.v1.payment_methods.attach_async(card, {"customer": customer})
    await api.v1.customers.update_async(customer, {"invoice_settings": {"default_payment_method": method.id}})
    return method.id


async def subscribe(
    api: stripe.StripeClient, customer: str, price: str, **more: object
) -> stripe.Subscription:
    """A subscription to one price."""
    given: Any = {"customer": customer, "items": [{"price": price}], **more}
    return await api.v1.subscriptions.create_async(given)


async def advance(api: stripe.StripeClient, clock: str, to: int) -> None:
    """Move a test clock, and wait until all that was due has happened."""
    moved = await api.v1.test_helpers.test_clocks.advance_async(clock, {"frozen_time": to})
    assert moved.status == "advancing"
    arrived = await api.v1.test_helpers.test_clocks.retrieve_async(clock)
    assert (arrived.status, arrived.frozen_time) == ("ready", to)
