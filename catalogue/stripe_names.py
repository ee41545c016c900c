"""How Berth's own objects at Stripe are called, so that each is found again without anybody noting an id.

`berth catalogue push` makes them. A Stripe price never changes its product, so the product's id says for ever
what the price sold (docs/decisions/0007-prices-at-stripe.md).
"""

from typing import Final

PRICE_ORIGIN: Final = "berth_price"
"""The key of a price's metadata that says who made it; without it, it is no price of ours."""

FROM_CATALOGUE: Final = "catalogue"
BY_AGREEMENT: Final = "agreement"

PREFIX: Final = "berth_"


def plan_at_stripe(product: str, plan: str) -> str:
    """Return the id of the Stripe product that is a plan; no name in it holds an underscore."""
    return f"{PREFIX}{product}_{plan}"


def add_on_at_stripe(product: str, add_on: str) -> str:
    """Return the id of the Stripe product that is an add-on."""
    return f"{PREFIX}{product}_add-on_{add_on}"
