"""The sweep: every subscription at Stripe beside what we hold of it, so that lost webhooks heal."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row
from psycopg_pool import AsyncConnectionPool

from catalogue.schema import Catalogue
from provisioner.clients.stripe import (
    NotFoundError,
    StripeSubscription,
    UnreadableError,
    UnreadableSubscription,
)
from provisioner.contract.errors import PermanentError
from provisioner.contract.queue import Kind, enqueue
from provisioner.purchases import sale
from provisioner.subscription_queries import OVER

BATCH = 500

# Free plans are our own affair: Stripe does not know them.
_HELD = """
    SELECT id, status, price_id, quantity, add_ons, current_period_end, cancel_at_period_end, trial_end
      FROM subscription
     WHERE source = 'stripe'
"""

_OURS = "SELECT stripe_customer_id FROM customer WHERE stripe_customer_id = ANY(%s)"


class SubscriptionSource(Protocol):
    """Where subscriptions are: Stripe."""

    def list_subscriptions(self) -> AsyncIterator[StripeSubscription | UnreadableSubscription]:
        """Every subscription that was not canceled."""
        ...

    async def fetch_subscription(self, subscription_id: str) -> StripeSubscription:
        """The subscription as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """What we hold of a subscription, as of the last fetch."""

    id: str
    status: str
    price_id: str | None
    quantity: int
    add_ons: Mapping[str, int]
    current_period_end: datetime | None
    cancel_at_period_end: bool
    trial_end: datetime | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that Stripe has otherwise than we, in words for people; None is nothing at all."""

    subscription_id: str
    what: str
    held: str | None
    at_stripe: str | None


@dataclass(frozen=True, slots=True)
class Swept:
    """What was compared and what differed. `foreign` subscriptions are another business's of this account."""

    compared: int
    differences: tuple[Difference, ...]
    foreign: int

    @property
    def enqueued(self) -> tuple[str, ...]:
        """The subscriptions that differ, each once."""
        return tuple(dict.fromkeys(difference.subscription_id for difference in self.differences))


class Sweep:
    """Compares, and enqueues what differs. Several at once are harmless.

    Args:
        pool: connections to the database.
        source: Stripe.
        load: loads the catalogue, which may have changed since the last time.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        source: SubscriptionSource,
        load: Callable[[], Catalogue],
    ) -> None:
        self._pool = pool
        self._source = source
        self._load = load

    async def run(self, on_compared: Callable[[int], None] = lambda _: None) -> Swept:
        """Compare all; `on_compared` is told how many were so far.

        Nothing is enqueued unless the list was read to its end: a part of it says nothing about the rest.

        Raises:
            TemporaryError, PermanentError, CatalogueError: it could not be; nothing was enqueued.
        """
        catalogue = self._load()
        held = await self._held()
        listed: set[str] = set()
        differences: list[Difference] = []
        strange: list[StripeSubscription] = []
        async for found in self._source.list_subscriptions():
            listed.add(found.id)
            if isinstance(found, UnreadableSubscription):
                differences.append(_unreadable(found.id))
            elif found.id not in held and _is_strange(found, catalogue):
                strange.append(found)
            else:
                differences += compare(held.get(found.id), found, catalogue)
            on_compared(len(listed))
        ours = await self._ours(strange)
        differences += [difference for found in ours for difference in compare(None, found, catalogue)]
        unlisted = [row for row in held.values() if row.id not in listed and row.status not in OVER]
        for count, row in enumerate(unlisted, start=len(listed) + 1):
            differences += await self._compare_unlisted(row, catalogue)
            on_compared(count)
        swept = Swept(len(listed) + len(unlisted), tuple(differences), len(strange) - len(ours))
        await self._enqueue(swept.enqueued)
        return swept

    async def _held(self) -> dict[str, Held]:
        async with self._pool.connection() as conn, conn.cursor(row_factory=class_row(Held)) as cursor:
            await cursor.execute(_HELD)
            return {row.id: row async for row in cursor}

    async def _ours(self, strange: Sequence[StripeSubscription]) -> list[StripeSubscription]:
        """Those of our customers, whatever they bought."""
        async with self._pool.connection() as conn, conn.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(_OURS, ([found.customer_id for found in strange],))
            customers = set(await cursor.fetchall())
        return [found for found in strange if found.customer_id in customers]

    async def _compare_unlisted(self, row: Held, catalogue: Catalogue) -> list[Difference]:
        """Canceled ones are not listed, for there are years of them; nor are those on a test clock."""
        try:
            return compare(row, await self._source.fetch_subscription(row.id), catalogue)
        except NotFoundError:
            return [Difference(row.id, "subscription", row.status, None)]
        except UnreadableError:
            return [_unreadable(row.id)]

    async def _enqueue(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), BATCH):
            async with self._pool.connection() as conn:
                await enqueue(conn, Kind.SUBSCRIPTION, *ids[start : start + BATCH])


def _unreadable(subscription_id: str) -> Difference:
    """Its handler says what is not understood."""
    return Difference(subscription_id, "form", "understood", "not understood")


def compare(held: Held | None, found: StripeSubscription, catalogue: Catalogue) -> list[Difference]:
    """Say what differs. Pure."""
    if held is None:
        return [Difference(found.id, "subscription", None, found.status)]
    ours, theirs = _facts_held(held), _facts_found(found, catalogue)
    return [
        Difference(found.id, what, ours[what], theirs[what]) for what in ours if ours[what] != theirs[what]
    ]


def _facts_held(held: Held) -> dict[str, str | None]:
    return {
        "status": held.status,
        "price": held.price_id,
        "quantity": str(held.quantity),
        "add-ons": _counts(held.add_ons),
        "period end": _moment(held.current_period_end),
        "cancel at period end": _flag(held.cancel_at_period_end),
        "trial end": _moment(held.trial_end),
    }


def _facts_found(found: StripeSubscription, catalogue: Catalogue) -> dict[str, str | None]:
    return {
        "status": found.status,
        **_bought(found, catalogue),
        "period end": _moment(found.current_period_end),
        "cancel at period end": _flag(found.cancel_at_period_end),
        "trial end": _moment(found.trial_end),
    }


def _bought(found: StripeSubscription, catalogue: Catalogue) -> dict[str, str | None]:
    try:
        sold = sale(catalogue, found.id, found.items)
    except PermanentError:
        # It cannot be what we hold; its handler says the rest.
        prices = ", ".join(item.price_id for item in found.items)
        return {"price": prices, "quantity": None, "add-ons": None}
    purchase = sold.purchase
    return {"price": sold.price_id, "quantity": str(purchase.quantity), "add-ons": _counts(purchase.add_ons)}


def _is_strange(found: StripeSubscription, catalogue: Catalogue) -> bool:
    """Whether the catalogue knows none of its prices."""
    return all(
        catalogue.sold_by(item.price_id, item.lookup_key, item.made_for, item.interval) is None
        for item in found.items
    )


def _counts(add_ons: Mapping[str, int]) -> str | None:
    return ", ".join(f"{count} {name}" for name, count in sorted(add_ons.items())) or None


def _moment(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None


def _flag(value: bool) -> str:
    return "yes" if value else "no"
