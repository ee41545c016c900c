"""The handler of subscription items: what Stripe says now becomes what an instance is owed."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol

import structlog
from psycopg import AsyncConnection

from catalogue.loader import CatalogueError
from catalogue.schema import Catalogue, Purchase
from provisioner import subscription_queries as queries
from provisioner.clients.stripe import NotFoundError, StripeSubscription
from provisioner.contract.errors import PermanentError
from provisioner.contract.ids import FREE_PREFIX
from provisioner.purchases import Sale, UnknownPriceError, sale
from provisioner.settlement import Bought, Offer, settle, stop
from provisioner.subscription_queries import OVER, SubscriptionRow
from provisioner.workqueue import Lease, WorkItem

CHECKOUT_KEY = "berth_checkout"


class SubscriptionSource(Protocol):
    """Where subscriptions are fetched from: Stripe."""

    async def fetch_subscription(self, subscription_id: str) -> StripeSubscription:
        """The subscription as it is now."""
        ...


class SubscriptionHandler:
    """Handles Kind.SUBSCRIPTION; the key is Stripe's id of the subscription, or ours of one to a free plan.

    Args:
        source: Stripe.
        load: loads the catalogue; called at first, and again for what it does not know, so that adding it
            needs no restart.
        offer: what new instances get.
    """

    def __init__(self, source: SubscriptionSource, load: Callable[[], Catalogue], offer: Offer) -> None:
        self._source = source
        self._load = load
        self._catalogue = load()
        self._offer = offer
        self._log = structlog.get_logger(component="subscriptions")

    async def handle(self, item: WorkItem, lease: Lease) -> datetime | None:
        """Make the instance's spec what the subscription entitles to; when to decide again, if time decides.

        Raises:
            TemporaryError: Stripe did not answer, or somebody else was at the same; nothing changed.
            PermanentError: the price, customer, plan or status is unknown; nothing changed, but that an
                instance is suspended of which the status alone says that nobody pays for it.
        """
        # Whatever is wrong with what was bought: what is not paid for does not run on until a person has
        # mended that.
        if item.key.startswith(FREE_PREFIX):
            try:
                return await self._settle(lease, lambda conn: self._given(conn, item.key))
            except PermanentError as error:
                async with lease.transaction() as conn:
                    row = (await queries.load_standing(conn, item.key)).row
                    await stop(conn, item.key, row.status if row else "unknown", error)
                raise
        subscription = await self._source.fetch_subscription(item.key)
        try:
            return await self._handle_paid(subscription, lease)
        except PermanentError as error:
            async with lease.transaction() as conn:
                await stop(conn, item.key, subscription.status, error)
            raise

    async def _handle_paid(self, subscription: StripeSubscription, lease: Lease) -> datetime | None:
        try:
            sold = self._sale(subscription)
        except UnknownPriceError as error:
            if not error.foreign or await _is_ours(lease, subscription):
                raise
            self._log.info("neither its customer nor its prices are Berth's", subscription=subscription.id)
            return None
        return await self._settle(lease, lambda conn: _bought(conn, subscription, sold))

    async def _settle(
        self, lease: Lease, read: Callable[[AsyncConnection[Any]], Awaitable[Bought]]
    ) -> datetime | None:
        async with lease.transaction() as conn:
            bought = await read(conn)
            others = await queries.believed_live(conn, bought.row)
        ended = [other for other in others if await self._ended_before(other, bought.begun)]
        async with lease.transaction() as conn:
            return await settle(conn, await read(conn), ended, self._offer)

    async def _ended_before(self, subscription_id: str, moment: datetime) -> bool:
        """Whether a subscription that we believe to be live is over at Stripe, and was so at `moment`."""
        try:
            found = await self._source.fetch_subscription(subscription_id)
        except NotFoundError:
            return True
        return found.status in OVER and (found.ended_at is None or found.ended_at <= moment)

    def _sale(self, subscription: StripeSubscription) -> Sale:
        try:
            return sale(self._catalogue, subscription.id, subscription.items)
        except UnknownPriceError:
            self._reload()
            return sale(self._catalogue, subscription.id, subscription.items)

    async def _given(self, conn: AsyncConnection[Any], subscription_id: str) -> Bought:
        """A subscription to a free plan, of which our own table is the truth."""
        standing = await queries.load_standing(conn, subscription_id)
        row = standing.row
        if row is None:
            raise PermanentError(
                f"there is no subscription {subscription_id}: somebody removed it; nothing to do"
            )
        if row.status == "active" and not standing.is_verified:
            raise PermanentError(
                f"a free plan is only for a verified e-mail address: berth customers verify the address of"
                f" customer {row.customer_id}, then berth queue retry subscription {row.id}"
            )
        # Its checkout, if it reserved a name, is of the same id.
        return Bought(row, self._free_plan(row), standing, begun=standing.now, checkout_id=row.id)

    def _free_plan(self, row: SubscriptionRow) -> Purchase:
        for attempt in ("known", "read again"):
            product = self._catalogue.products.get(row.product)
            plan = product.plan_name(row.plan) if product else None
            if product is not None and plan is not None:
                return Purchase(product, plan)
            if attempt == "known":
                self._reload()
        raise PermanentError(
            f"the catalogue has no plan '{row.plan}' of '{row.product}', which subscription {row.id} is to:"
            f" put it back into catalogue/{row.product}.yaml, then berth queue retry subscription {row.id}"
        )

    def _reload(self) -> None:
        try:
            self._catalogue = self._load()
        except CatalogueError:
            self._log.exception("the catalogue has errors; the one loaded before stays")


async def _is_ours(lease: Lease, subscription: StripeSubscription) -> bool:
    async with lease.transaction() as conn:
        return await queries.is_known(conn, subscription.id, subscription.customer_id)


async def _bought(conn: AsyncConnection[Any], subscription: StripeSubscription, sold: Sale) -> Bought:
    standing = await queries.load_standing(conn, subscription.id)
    customer_id = await queries.find_customer(conn, subscription.customer_id)
    if customer_id is None and standing.row is not None:
        # Whoever was deleted at Stripe, and is somebody else there since, still owns what they had.
        customer_id = standing.row.customer_id
    if customer_id is None:
        raise PermanentError(
            f"nobody here is Stripe customer {subscription.customer_id} of subscription"
            f" {subscription.id}: say whose it is with berth customers link <e-mail>"
            f" {subscription.customer_id}, then berth queue retry subscription {subscription.id}"
        )
    if standing.row is not None and standing.row.customer_id != customer_id:
        raise PermanentError(
            f"subscription {subscription.id} moved to another customer ({customer_id}): cancel it and let"
            " that customer subscribe"
        )
    return Bought(
        _row(subscription, customer_id, sold),
        sold.purchase,
        standing,
        begun=subscription.created,
        checkout_id=subscription.metadata.get(CHECKOUT_KEY),
        clock=subscription.test_clock,
        invoice=subscription.latest_invoice,
        ends_at=_ends_at(subscription),
    )


def _ends_at(subscription: StripeSubscription) -> datetime | None:
    if not subscription.cancel_at_period_end:
        return None
    return subscription.cancel_at or subscription.current_period_end


def _row(subscription: StripeSubscription, customer_id: str, sold: Sale) -> SubscriptionRow:
    return SubscriptionRow(
        id=subscription.id,
        source="stripe",
        customer_id=customer_id,
        product=sold.purchase.product.product,
        plan=sold.purchase.plan_name,
        quantity=sold.purchase.quantity,
        add_ons=sold.purchase.add_ons,
        interval=sold.interval,
        price_id=sold.price_id,
        status=subscription.status,
        current_period_end=subscription.current_period_end,
        cancel_at_period_end=subscription.cancel_at_period_end,
        trial_end=subscription.trial_end,
        past_due_since=subscription.past_due_since,
        ended_at=subscription.ended_at,
        test_clock=subscription.test_clock.id if subscription.test_clock else None,
    )
