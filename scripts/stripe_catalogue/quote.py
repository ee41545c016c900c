"""Prices that are agreed upon with one customer."""

import stripe

from catalogue.schema import Interval, Price, Product
from catalogue.stripe_names import plan_at_stripe
from scripts.stripe_catalogue.account import Account
from scripts.stripe_catalogue.differences import CreateProduct
from scripts.stripe_catalogue.wanted import wanted_plan


async def make_quote(account: Account, product: Product, plan: str, interval: Interval, price: Price) -> str:
    """Make the price at Stripe, of the Stripe product that is the plan, and return its id.

    It takes the lookup key that the catalogue names without an amount, if there is one; the price that had it
    sells the plan as before. Our own checkout sells neither: whoever agreed on it subscribes the customer.

    Raises:
        stripe.StripeError: Stripe did not answer, or refused.
        ValueError: `price` has no amount.
    """
    if price.cents is None:
        raise ValueError("a quote has an amount")
    try:
        await account.apply(CreateProduct(wanted_plan(product, plan)))
    except stripe.InvalidRequestError as error:
        if error.code != "resource_already_exists":
            raise
    named = product.plans[plan].prices.get(interval)
    lookup_key = named.lookup_key if named and named.cents is None else None
    at_stripe = plan_at_stripe(product.product, plan)
    return await account.create_agreed_price(at_stripe, price.cents, price.currency, interval, lookup_key)
