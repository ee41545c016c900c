"""What a subscription owes its instance, written in one transaction."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

from catalogue.schema import Purchase
from provisioner import subscription_queries as queries
from provisioner import timeline
from provisioner.clients.stripe import StripeInvoice, StripeTestClock
from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.ids import new_id
from provisioner.contract.queue import Kind, enqueue, hold
from provisioner.contract.spec import Desired, InstanceSpec
from provisioner.emails import write_email
from provisioner.entitlement import (
    Entitlement,
    Owed,
    SubscriptionFacts,
    entitlement,
    entitlement_without_plan,
)
from provisioner.notices import Notice, Situation, due, next_due_at, suspension
from provisioner.specs import Owner, build_spec, change_plan, slug_candidates
from provisioner.subscription_queries import OVER, Checkout, Instance, Predecessor, Standing, SubscriptionRow

Conn = AsyncConnection[Any]

# A test clock tells nobody here that it was advanced.
TEST_CLOCK_POLL = timedelta(seconds=15)

_DESIRED = {Owed.RUN: Desired.RUNNING, Owed.SUSPEND: Desired.SUSPENDED, Owed.DELETE: Desired.DELETED}


@dataclass(frozen=True, slots=True)
class Offer:
    """What new instances get: where they answer and which charts there are."""

    apps_url: str
    chart_versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bought:
    """A subscription with all its words translated into ours.

    Attributes:
        row: as it is now.
        purchase: what it buys.
        standing: how it stood here before.
        begun: when it was bought.
        checkout_id: the checkout of ours that it says it came from.
        clock: the time it lives in, if that is not the world's.
        invoice: its latest bill.
        ends_at: when it ends by itself, if it was cancelled for later.
    """

    row: SubscriptionRow
    purchase: Purchase
    standing: Standing
    begun: datetime
    checkout_id: str | None
    clock: StripeTestClock | None = None
    invoice: StripeInvoice | None = None
    ends_at: datetime | None = None

    @property
    def now(self) -> datetime:
        """Now, in the time it lives in."""
        return self.clock.frozen_time if self.clock else self.standing.now

    def decide(self) -> Entitlement:
        """What it entitles to now."""
        row = self.row
        facts = SubscriptionFacts(row.status, row.past_due_since, row.ended_at, self.standing.under_review)
        return entitlement(facts, self.purchase.plan, self.now)


async def settle(conn: Conn, bought: Bought, ended: Collection[str], offer: Offer) -> datetime | None:
    """Write what `bought` entitles to; when to decide again, if time decides.

    Args:
        conn: a transaction that holds the subscription's item.
        bought: the subscription.
        ended: others of the same customer of which Stripe says that they ended before this one began.
        offer: what a new instance gets.

    Raises:
        PermanentError: its status is unknown, or an instance of it cannot be.
        TemporaryError: another subscription took the same instance over meanwhile.
    """
    owed = bought.decide()
    if owed.owed is Owed.UNKNOWN:
        raise PermanentError(
            f"{owed.reason}: nothing was changed; upgrade Berth, then berth queue retry subscription"
            f" {bought.row.id}"
        )
    return await _Settlement(conn, bought, owed, offer).settle(ended)


class MovedError(PermanentError):
    """A subscription pays for `product` now, and no longer for the instance it has."""

    def __init__(self, message: str, product: str) -> None:
        super().__init__(message)
        self.product = product


async def stop(conn: Conn, subscription_id: str, status: str, error: PermanentError) -> None:
    """Suspend the instance of a subscription that does not pay for it, though it cannot be settled.

    What was bought, and so for how long data is kept, is not known: the rest stays as it is.

    Args:
        conn: a transaction that holds the subscription's item.
        subscription_id: the subscription.
        status: Stripe's word.
        error: why it cannot be settled.
    """
    owed = entitlement_without_plan(status)
    if owed.owed is not Owed.SUSPEND and isinstance(error, MovedError):
        owed = Entitlement(Owed.SUSPEND, f"its subscription pays for {error.product} now")
    instance_id = await queries.find_instance_id(conn, subscription_id)
    if instance_id is None or owed.owed is not Owed.SUSPEND:
        return
    await hold(conn, Kind.INSTANCE, instance_id)
    instance = await queries.lock_instance(conn, instance_id)
    before = instance.spec
    if instance.subscription_id != subscription_id or before.desired is not Desired.RUNNING:
        return
    spec = replace(before, desired=Desired.SUSPENDED)
    for reason, message in timeline.changes(before, spec, owed):
        await queries.record_event(conn, instance_id, reason, message)
    generation = await queries.update_spec(conn, spec)
    await enqueue(conn, Kind.INSTANCE, instance_id)
    situation = Situation(instance_id, subscription_id, spec.title, spec.plan_for_people, None, None, owed)
    notice = suspension(situation, generation)
    await write_email(conn, notice.dedupe_key, spec.customer_id, notice.template, notice.data)


@dataclass(frozen=True, slots=True)
class _Settlement:
    conn: Conn
    bought: Bought
    owed: Entitlement
    offer: Offer

    async def settle(self, ended: Collection[str]) -> datetime | None:
        conn, row = self.conn, self.bought.row
        runs = self.owed.owed is Owed.RUN
        checkout = await self._checkout()
        instance_id = await queries.find_instance_id(conn, row.id)
        former = None
        if runs and instance_id is None:
            slug = checkout.slug if checkout else None
            former = await queries.find_predecessor(conn, row, self.bought.begun, ended, slug)
            instance_id = former.instance_id if former else None
        await self._save(former, instance_id)
        spec = None
        if instance_id is not None:
            spec = await self._change(instance_id, former)
        elif runs:
            spec = await self._create(checkout)
        if checkout is not None and (spec is not None or row.status in OVER):
            await queries.close_checkout(conn, checkout.id)
        return None if spec is None else await self._notify(spec)

    async def _checkout(self) -> Checkout | None:
        id_, row = self.bought.checkout_id, self.bought.row
        if id_ is None:
            return None
        return await queries.find_checkout(self.conn, id_, row.customer_id, row.product)

    async def _save(self, former: Predecessor | None, instance_id: str | None) -> None:
        """Save what Stripe said; a free plan ends where a paid one runs. Items are locked before rows."""
        conn, row = self.conn, self.bought.row
        is_paid = row.source == "stripe"
        runs_paid = is_paid and self.owed.owed is Owed.RUN
        free = await queries.active_free(conn, row.customer_id, row.product) if runs_paid else []
        # Whatever is replaced looks, after this commit, at what it is then left with.
        replaced = {*free, former.subscription_id} if former else {*free}
        await enqueue(conn, Kind.SUBSCRIPTION, *sorted(replaced))
        if instance_id is not None:
            await hold(conn, Kind.INSTANCE, instance_id)
        await queries.end_free(conn, free)
        if is_paid:
            await queries.save_subscription(conn, row)

    async def _create(self, checkout: Checkout | None) -> InstanceSpec:
        bought, row = self.bought, self.bought.row
        version = self._chart_version(bought.purchase.product.chart or "instance")
        instance_id = new_id("i")
        for slug in slug_candidates(checkout.slug if checkout else None, row.product, row.id):
            owner = Owner(instance_id, row.customer_id, slug)
            spec = build_spec(owner, bought.purchase, self.offer.apps_url, version)
            if await queries.insert_instance(self.conn, spec, row.id, checkout.id if checkout else None):
                break
        else:
            raise PermanentError(f"every name for the instance of subscription {row.id} is taken: free one")
        await self._tell(instance_id, [("Created", f"{spec.title}, plan {spec.plan}, as {spec.slug}")])
        await enqueue(self.conn, Kind.INSTANCE, instance_id)
        return spec

    async def _change(self, instance_id: str, former: Predecessor | None) -> InstanceSpec | None:
        """Bring the instance, whose item is held, to what is owed; None when it is being deleted or gone."""
        instance = await queries.lock_instance(self.conn, instance_id)
        before, row = instance.spec, self.bought.row
        if former is not None:
            await self._take_over(instance, former)
        if before.product != row.product:
            raise MovedError(
                f"subscription {row.id} moved from {before.product} to {row.product}, but an instance cannot"
                " become another product: move the subscription back and sell a second one",
                row.product,
            )
        if instance.is_ending:
            return None
        if self.owed.owed is Owed.RUN:
            await queries.mark_paid(self.conn, instance_id)
        await queries.set_delete_at(self.conn, instance_id, self.owed.delete_at)
        spec = change_plan(before, self.bought.purchase)
        spec = replace(spec, desired=_DESIRED.get(self.owed.owed, before.desired))
        await self._tell(instance_id, timeline.changes(before, spec, self.owed))
        if spec.desired is before.desired and former is None:
            await self._tell(instance_id, self._news())
        if spec != before:
            await self._write(before, spec)
        return spec

    async def _take_over(self, instance: Instance, former: Predecessor) -> None:
        if instance.subscription_id != former.subscription_id or instance.is_ending:
            raise TemporaryError(f"instance {instance.id} changed hands meanwhile")
        await queries.take_over(self.conn, instance.id, self.bought.row.id)
        await self._tell(instance.id, [("TakenOver", "a new subscription takes the place of the former one")])

    async def _write(self, before: InstanceSpec, spec: InstanceSpec) -> None:
        generation = await queries.update_spec(self.conn, spec)
        await enqueue(self.conn, Kind.INSTANCE, spec.instance_id)
        if (before.desired, spec.desired) == (Desired.RUNNING, Desired.SUSPENDED):
            await self._mail(suspension(self._situation(spec), generation))

    async def _notify(self, spec: InstanceSpec) -> datetime | None:
        """Write the e-mails that are due; when to look again."""
        situation, now = self._situation(spec), self.bought.now
        for notice in due(situation, now):
            await self._mail(notice)
        ahead = [at for at in (self.owed.again_at, next_due_at(situation, now)) if at is not None]
        if ahead and self.bought.clock is not None:
            return self.bought.standing.now + TEST_CLOCK_POLL
        return min(ahead, default=None)

    def _situation(self, spec: InstanceSpec) -> Situation:
        row, invoice = self.bought.row, self.bought.invoice
        goes_on = row.status == "trialing" and self.bought.ends_at is None
        return Situation(
            instance_id=spec.instance_id,
            subscription_id=row.id,
            title=spec.title,
            plan=spec.plan_for_people,
            trial_end=row.trial_end if goes_on else None,
            latest_bill=invoice if row.status == "past_due" else None,
            entitlement=self.owed,
        )

    def _news(self) -> Iterator[tuple[str, str]]:
        before, row = self.bought.standing.row, self.bought.row
        if before is None:
            return iter(())
        ended_at = before.current_period_end if before.cancel_at_period_end else None
        said = timeline.Word(row.status, self.bought.ends_at)
        return timeline.news(timeline.Word(before.status, ended_at), said, self.owed)

    async def _mail(self, notice: Notice) -> None:
        customer = self.bought.row.customer_id
        await write_email(self.conn, notice.dedupe_key, customer, notice.template, notice.data)

    async def _tell(self, instance_id: str, lines: Iterable[tuple[str, str]]) -> None:
        for reason, message in lines:
            await queries.record_event(self.conn, instance_id, reason, message)

    def _chart_version(self, chart: str) -> str:
        version = self.offer.chart_versions.get(chart)
        if version is None:
            raise PermanentError(
                f"there is no chart '{chart}': put it into BERTH_CHARTS_DIR or fix the catalogue"
            )
        return version
