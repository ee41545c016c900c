import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from catalogue.schema import Catalogue
from platform_api import problems
from platform_api.billing import queries
from platform_api.billing.offers import find_product
from platform_api.billing.queries import PortalLink
from platform_api.customers.queries import Customer
from platform_api.database import Pool, connect, customer_transaction
from platform_api.problems import Problem
from platform_api.stripe_gateway import CustomerGoneError, StripeGateway


@dataclass(frozen=True, slots=True)
class PortalService:
    """The way to Stripe's billing portal, where a subscription is changed, paid and ended."""

    pool: Pool
    catalogue: Catalogue
    stripe: StripeGateway
    public_url: str

    async def open(self, customer: Customer, product: str | None, *, is_live: bool = False) -> str:
        """Return the address of a portal session.

        Args:
            customer: whose.
            product: what they asked to manage; what is managed is what they pay for.
            is_live: whether Stripe says that they subscribe to `product`, though we may not know it yet.

        Raises:
            Problem: 400, no such product; 409, nothing was ever bought; 502 or 503, Stripe will not.
        """
        if product is not None:
            find_product(self.catalogue, product)
        async with customer_transaction(self.pool, customer.id) as conn:
            paid_for = await queries.products_paid_for(conn, customer.id)
        account = customer.stripe_customer_id
        if account is None or not (paid_for or await self.stripe.subscriptions(account)):
            raise Problem(
                problems.NOTHING_BOUGHT,
                "You have not bought anything yet: POST /v1/billing/checkout is where to start.",
            )
        if product is not None and is_live:
            paid_for[product] = True
        offered = whose_plans(product, paid_for)
        try:
            return await self.stripe.open_portal(account, offered, f"{self.public_url}/billing/left")
        except CustomerGoneError as error:
            raise Problem(
                problems.NOTHING_BOUGHT,
                "All you bought has ended and its billing is closed: POST /v1/billing/checkout starts anew.",
            ) from error

    async def find_link(self, token: str) -> PortalLink:
        """Return what the link in an e-mail that ends in `token` opens.

        Like an API token it is looked up by its hash, so neither time nor a copy of the table helps to guess.

        Raises:
            Problem: 404, it is none of ours; 410, its time is over.
        """
        async with connect(self.pool) as conn:
            link = await queries.find_portal_link(conn, hashlib.sha256(token.encode()).digest())
        if link is None:
            raise Problem(
                problems.UNKNOWN_LINK, "Open it from the e-mail again, whole: it may have been cut off."
            )
        if link.has_expired:
            raise Problem(
                problems.EXPIRED_LINK, "The newest e-mail about your billing has one that works; or ask us."
            )
        return link

    async def open_link(self, token: str) -> str:
        """Return the address of a portal session for whom the link was sent to.

        Raises:
            Problem: as `find_link` and `open`.
        """
        link = await self.find_link(token)
        return await self.open(link.customer, None)


def whose_plans(asked: str | None, paid_for: Mapping[str, bool]) -> str | None:
    """Return the product whose plans a portal offers, None for no particular one's. Pure.

    A portal lets any subscription be switched to what it offers, so it does not offer another product's plans
    to who could switch to them.

    Args:
        asked: the product it is asked for, if any.
        paid_for: each product that was ever subscribed to, and whether it is now.
    """
    live = [product for product, is_live in paid_for.items() if is_live]
    if asked is not None and (asked in live or not live):
        return asked
    candidates = live or list(paid_for)
    return candidates[0] if len(candidates) == 1 else None
