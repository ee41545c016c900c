"""What an operator sets up at Stripe once: products, prices, the webhook endpoint."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stripe import StripeClient

from catalogue.schema import Catalogue

EVENTS: Final = (
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_failed",
)


@dataclass(frozen=True, slots=True)
class WantedPrice:
    """A price the catalogue sells by lookup key; `amount` in the currency's smallest unit."""

    product: str
    title: str
    lookup_key: str
    interval: str
    amount: int
    currency: str


def wanted_prices(catalogue: Catalogue, negotiated: Mapping[str, int]) -> Iterator[WantedPrice]:
    """Yield each price named by lookup key; `negotiated` has the cents the catalogue leaves open."""
    for product in catalogue.products.values():
        for plan_name, plan in product.plans.items():
            for interval, price in plan.prices.items():
                if price.lookup_key is None:
                    continue
                amount = price.cents if price.cents is not None else negotiated.get(price.lookup_key)
                if amount is not None:
                    title = f"{product.title} {plan.title or plan_name}"
                    yield WantedPrice(
                        product.product, title, price.lookup_key, interval, amount, price.currency
                    )


async def ensure_prices(stripe: StripeClient, wanted: list[WantedPrice]) -> int:
    """Create the products and prices that are missing; return how many prices were made."""
    existing: set[str | None] = set()
    for start in range(0, len(wanted), 10):  # Stripe takes at most 10 lookup keys a call
        keys = [price.lookup_key for price in wanted[start : start + 10]]
        found = await stripe.v1.prices.list_async({"lookup_keys": keys, "limit": 100})
        existing |= {price.lookup_key for price in found.data}
    missing = [price for price in wanted if price.lookup_key not in existing]
    for price in missing:
        product = await stripe.v1.products.create_async(
            {"name": price.title, "metadata": {"berth_product": price.product}},
            {"idempotency_key": f"product-{price.lookup_key}"},
        )
        await stripe.v1.prices.create_async(
            {
                "product": product.id,
                "currency": price.currency,
                "unit_amount": price.amount,
                "recurring": {"interval": "year" if price.interval == "year" else "month"},
                "lookup_key": price.lookup_key,
            },
            {"idempotency_key": f"price-{price.lookup_key}"},
        )
    return len(missing)


async def ensure_webhook(stripe: StripeClient, url: str, *, secret_known: bool) -> str | None:
    """Have Stripe deliver to `url`.

    Returns the endpoint's signing secret, which Stripe tells only once; None when there is an endpoint
    already and its secret is known.
    """
    endpoints = await stripe.v1.webhook_endpoints.list_async({"limit": 100})
    ours = [endpoint for endpoint in endpoints.data if endpoint.url == url]
    if ours and secret_known:
        return None
    for endpoint in ours:
        await stripe.v1.webhook_endpoints.delete_async(endpoint.id)
    created = await stripe.v1.webhook_endpoints.create_async({"url": url, "enabled_events": [*EVENTS]})
    return created.secret
