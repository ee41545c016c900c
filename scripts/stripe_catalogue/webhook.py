"""Where Stripe sends its events."""

from typing import Final

import stripe
from stripe import StripeClient

EVENTS: Final = (
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.refunded",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.subscription.updated",
    "invoice.finalization_failed",
    "invoice.marked_uncollectible",
    "invoice.paid",
    "invoice.payment_action_required",
    "invoice.payment_failed",
    "invoice.voided",
    "refund.created",
    "refund.failed",
    "refund.updated",
)
"""The events that make Berth look at something again."""


async def ensure_webhook(client: StripeClient, url: str, *, secret_known: bool) -> str | None:
    """Have Stripe deliver EVENTS to `url`.

    Returns the endpoint's signing secret, which Stripe tells only once; None when there is an endpoint
    already and its secret is known. One whose secret nobody knows is replaced.

    Raises:
        stripe.StripeError: Stripe did not answer, or refused.
    """
    ours = await find_webhooks(client, url)
    if ours and secret_known:
        for endpoint in ours:
            if sorted(endpoint.enabled_events) != sorted(EVENTS) or endpoint.status != "enabled":
                await client.v1.webhook_endpoints.update_async(
                    endpoint.id, {"enabled_events": [*EVENTS], "disabled": False}
                )
        return None
    created = await client.v1.webhook_endpoints.create_async({"url": url, "enabled_events": [*EVENTS]})
    for endpoint in ours:
        await client.v1.webhook_endpoints.delete_async(endpoint.id)
    return created.secret


async def find_webhooks(client: StripeClient, url: str) -> list[stripe.WebhookEndpoint]:
    """Return the endpoints at `url`; an account has at most 16.

    Raises:
        stripe.StripeError: Stripe did not answer, or refused.
    """
    found = await client.v1.webhook_endpoints.list_async({"limit": 100})
    return [endpoint for endpoint in found.data if endpoint.url == url]
