from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from catalogue.schema import Catalogue, Product, Purchase
from platform_api import problems
from platform_api.billing import queries
from platform_api.billing.meaning import meaning
from platform_api.billing.queries import Subscription
from platform_api.billing.schemas import SubscribedInstance, SubscriptionView
from platform_api.billing.statuses import NOT_LIVE
from platform_api.database import Pool, customer_transaction, transaction
from platform_api.problems import Problem
from provisioner.contract.queue import Kind, enqueue


@dataclass(frozen=True, slots=True)
class SubscriptionService:
    """What customers may know of their subscriptions, and how a free one ends."""

    pool: Pool
    catalogue: Catalogue
    url_of: Callable[[str], str]

    async def get(self, customer_id: str, product: str | None) -> SubscriptionView:
        """Return the customer's subscription to `product`; without one, the only live one.

        Raises:
            Problem: 400, it takes a product to say which; 404, there is none.
        """
        async with customer_transaction(self.pool, customer_id) as conn:
            found = await queries.list_subscriptions(conn, customer_id)
        return self._view(choose(found, product))

    async def end_free(self, customer_id: str, product: str) -> SubscriptionView:
        """End the customer's free subscription to `product`; what becomes of its instance is decided after.

        Raises:
            Problem: 404, there is none; 409, it is paid for.
        """
        async with customer_transaction(self.pool, customer_id) as conn:
            found = choose(await queries.list_subscriptions(conn, customer_id), product)
        if found.status in NOT_LIVE:
            raise Problem(problems.NO_SUBSCRIPTION, f"Your subscription to {product} is over already.")
        if found.source != "free":
            raise Problem(
                problems.MANAGED_IN_PORTAL,
                f"You pay for {product}: POST /v1/billing/portal says where to cancel that.",
            )
        async with transaction(self.pool) as conn:
            await enqueue(conn, Kind.SUBSCRIPTION, found.id)  # first: its item is locked before its row
            if not await queries.end_free_subscription(conn, found.id):
                raise Problem(problems.NO_SUBSCRIPTION, f"Your subscription to {product} is over already.")
        return await self.get(customer_id, product)

    def _view(self, held: Subscription) -> SubscriptionView:
        product = self.catalogue.products.get(held.product)
        purchase = None if product is None else _purchase(product, held)
        suspended_on = None
        if held.past_due_since is not None and purchase is not None and held.status == "past_due":
            suspended_on = held.past_due_since + timedelta(days=purchase.plan.grace_days)
        return SubscriptionView(
            id=held.id,
            product=held.product,
            plan=held.plan,
            title=purchase.plan.title if purchase else held.plan,
            source="free" if held.source == "free" else "stripe",
            interval=held.interval,
            status=held.status,
            meaning=meaning(held, suspended_on),
            current_period_end=held.current_period_end,
            cancel_at_period_end=held.cancel_at_period_end,
            trial_end=held.trial_end,
            quantity=held.quantity,
            add_ons=dict(held.add_ons),
            limits=purchase.limits if purchase else {},
            instance=self._instance(held),
            suspended_on=suspended_on,
            delete_at=held.delete_at,
            under_review=held.review_since is not None,
        )

    def _instance(self, held: Subscription) -> SubscribedInstance | None:
        if held.instance_id is None or held.slug is None or held.phase is None:
            return None
        return SubscribedInstance(
            id=held.instance_id, slug=held.slug, url=self.url_of(held.slug), phase=held.phase
        )


def choose(found: Sequence[Subscription], product: str | None) -> Subscription:
    """Return the subscription that is meant. Pure.

    Args:
        found: for each product the one that counts.
        product: which is asked for; None for the only live one, or the only one.

    Raises:
        Problem: 400, it takes a product to say which; 404, there is none.
    """
    if product is not None:
        found = [one for one in found if one.product == product]
    live = [one for one in found if one.status not in NOT_LIVE]
    if len(live) == 1 or len(found) == 1:
        return (live or found)[0]
    if not found:
        to_what = product or "anything"
        raise Problem(
            problems.NO_SUBSCRIPTION, f"You have not subscribed to {to_what}: POST /v1/billing/checkout does."
        )
    known = ", ".join(one.product for one in found)
    raise Problem(problems.AMBIGUOUS_PRODUCT, f"Say which with ?product=; you have subscribed to {known}.")


def _purchase(product: Product, held: Subscription) -> Purchase | None:
    """What is held in the catalogue's words, as far as it still has them."""
    plan = product.plan_name(held.plan)
    if plan is None:
        return None
    add_ons = {name: count for name, count in held.add_ons.items() if name in product.add_ons}
    return Purchase(product, plan, held.quantity, add_ons)
