"""The handler of subscription items: what Stripe says now becomes what an instance is owed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import structlog
from psycopg import AsyncConnection

from catalogue.loader import CatalogueError
from catalogue.schema import Catalogue, PricedPlan
from provisioner import subscription_queries as queries
from provisioner.clients.stripe import StripeSubscription
from provisioner.contract.errors import PermanentError
from provisioner.contract.ids import new_id
from provisioner.contract.queue import Kind, enqueue, hold
from provisioner.contract.spec import Desired
from provisioner.entitlement import Entitlement, Owed, SubscriptionFacts, entitlement
from provisioner.specs import Owner, build_spec, change_plan, slug_candidates
from provisioner.subscription_queries import SubscriptionRow
from provisioner.workqueue import Lease, WorkItem

CHECKOUT_KEY = "berth_checkout"


class SubscriptionSource(Protocol):
    """Where subscriptions are fetched from: Stripe."""

    async def fetch_subscription(self, subscription_id: str) -> StripeSubscription:
        """The subscription as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What new instances get: where they answer and which charts there are."""

    apps_url: str
    chart_versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bought:
    """A subscription with all its words translated into ours."""

    subscription: StripeSubscription
    priced: PricedPlan
    row: SubscriptionRow


class SubscriptionHandler:
    """Handles Kind.SUBSCRIPTION; the key is Stripe's id of the subscription.

    Args:
        source: Stripe.
        load: loads the catalogue; called at first, and again for an unknown price, so that adding it needs no
            restart.
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
            TemporaryError: Stripe did not answer; nothing changed.
            PermanentError: the price, customer or status is unknown; nothing changed.
        """
        subscription = await self._source.fetch_subscription(item.key)
        priced = self._priced(subscription)
        async with lease.transaction() as conn:
            return await self._settle(conn, subscription, priced)

    def _priced(self, subscription: StripeSubscription) -> PricedPlan:
        found = _find_plan(self._catalogue, subscription)
        if found is None:
            try:
                self._catalogue = self._load()
            except CatalogueError:
                self._log.exception("the catalogue has errors; the one loaded before stays")
            found = _find_plan(self._catalogue, subscription)
        if found is None:
            raise PermanentError(_unknown_price(subscription))
        return found

    async def _settle(
        self, conn: AsyncConnection[Any], subscription: StripeSubscription, priced: PricedPlan
    ) -> datetime | None:
        customer_id = await queries.find_customer(conn, subscription.customer_id)
        if customer_id is None:
            raise PermanentError(
                f"nobody here is Stripe customer {subscription.customer_id} of subscription"
                f" {subscription.id}: set stripe_customer_id of the customer it belongs to, then berth queue"
                f" retry subscription {subscription.id}"
            )
        bought = Bought(subscription, priced, _row(subscription, customer_id, priced))
        seen = await queries.save_subscription(conn, bought.row)
        if seen is None:
            raise PermanentError(
                f"subscription {subscription.id} moved to another customer ({customer_id}): cancel it and let"
                " that customer subscribe"
            )
        owed = entitlement(SubscriptionFacts(subscription.status, seen.status_since), seen.now)
        if owed.owed is Owed.UNKNOWN:
            raise PermanentError(
                f"{owed.reason}: nothing was changed; upgrade Berth, then berth queue retry subscription"
                f" {subscription.id}"
            )
        instance_id = await queries.find_instance_id(conn, subscription.id)
        if instance_id is not None:
            await self._change(conn, instance_id, bought, owed)
        elif owed.owed is Owed.RUN:
            await self._create(conn, bought)
        elif owed.owed is Owed.NOTHING:
            await _free_slug(conn, bought)
        return owed.again_at

    async def _create(self, conn: AsyncConnection[Any], bought: Bought) -> None:
        checkout = await _checkout(conn, bought)
        row, product = bought.row, bought.priced.product
        version = self._chart_version(product.chart or "instance")
        instance_id = new_id("i")
        for slug in slug_candidates(checkout.slug if checkout else None, row.product, row.id):
            owner = Owner(instance_id, row.customer_id, slug)
            spec = build_spec(owner, bought.priced, self._offer.apps_url, version)
            if await queries.insert_instance(conn, spec, row.id, checkout.id if checkout else None):
                break
        else:
            raise PermanentError(f"every name for the instance of subscription {row.id} is taken: free one")
        if checkout:
            await queries.close_checkout(conn, checkout.id)
        await queries.record_event(
            conn, instance_id, "Created", f"{product.title}, plan {row.plan}, as {slug}"
        )
        await enqueue(conn, Kind.INSTANCE, instance_id)

    async def _change(
        self, conn: AsyncConnection[Any], instance_id: str, bought: Bought, owed: Entitlement
    ) -> None:
        await hold(conn, Kind.INSTANCE, instance_id)
        instance = await queries.lock_instance(conn, instance_id)
        before = instance.spec
        if before.product != bought.row.product:
            raise PermanentError(
                f"subscription {bought.row.id} moved from {before.product} to {bought.row.product}, but an"
                " instance cannot become another product: move the subscription back and sell a second one"
            )
        if owed.owed is Owed.RUN:
            await queries.mark_paid(conn, instance_id)
        spec = replace(change_plan(before, bought.priced), desired=_desired(before.desired, owed))
        if spec == before:
            return
        await enqueue(conn, Kind.INSTANCE, instance_id)
        await queries.update_spec(conn, spec)
        if spec.plan != before.plan:
            await queries.record_event(conn, instance_id, "PlanChanged", f"from {before.plan} to {spec.plan}")
        if spec.desired != before.desired:
            reason = "Resuming" if spec.desired is Desired.RUNNING else "Suspending"
            await queries.record_event(conn, instance_id, reason, owed.reason)

    def _chart_version(self, chart: str) -> str:
        version = self._offer.chart_versions.get(chart)
        if version is None:
            raise PermanentError(
                f"there is no chart '{chart}': put it into BERTH_CHARTS_DIR or fix the catalogue"
            )
        return version


def _desired(before: Desired, owed: Entitlement) -> Desired:
    if before is Desired.DELETED:
        return before
    match owed.owed:
        case Owed.RUN:
            return Desired.RUNNING
        case Owed.SUSPEND:
            return Desired.SUSPENDED
        case _:
            return before


def _find_plan(catalogue: Catalogue, subscription: StripeSubscription) -> PricedPlan | None:
    """The one plan among the items; None if any price is unknown."""
    plans = [catalogue.plan_for_price(item.price_id, item.lookup_key) for item in subscription.items]
    if len(plans) > 1 and None not in plans:
        raise PermanentError(
            f"subscription {subscription.id} has {len(plans)} plans at once: leave it one of"
            f" {', '.join(item.price_id for item in subscription.items)}"
        )
    return None if None in plans else plans[0]


def _unknown_price(subscription: StripeSubscription) -> str:
    prices = ", ".join(
        f"{item.price_id} (lookup key {item.lookup_key})" if item.lookup_key else item.price_id
        for item in subscription.items
    )
    return (
        f"subscription {subscription.id} has a price that no plan names, {prices}: add it to"
        " catalogue/<product>.yaml plans.<plan>.prices, then berth queue retry subscription"
        f" {subscription.id}"
    )


def _row(subscription: StripeSubscription, customer_id: str, priced: PricedPlan) -> SubscriptionRow:
    return SubscriptionRow(
        id=subscription.id,
        customer_id=customer_id,
        product=priced.product.product,
        plan=priced.plan_name,
        interval=priced.interval,
        price_id=subscription.items[0].price_id,
        status=subscription.status,
        current_period_end=subscription.current_period_end,
        cancel_at_period_end=subscription.cancel_at_period_end,
    )


async def _checkout(conn: AsyncConnection[Any], bought: Bought) -> queries.Checkout | None:
    checkout_id = bought.subscription.metadata.get(CHECKOUT_KEY)
    if checkout_id is None:
        return None
    return await queries.find_checkout(conn, checkout_id, bought.row.customer_id, bought.row.product)


async def _free_slug(conn: AsyncConnection[Any], bought: Bought) -> None:
    checkout = await _checkout(conn, bought)
    if checkout:
        await queries.close_checkout(conn, checkout.id)
