"""What nobody rings for: the sweep that heals lost webhooks, and the resync of all instances."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from provisioner import subscription_queries as queries
from provisioner.clients.stripe import StripeSubscription
from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.queue import Kind, enqueue, nudge
from provisioner.subscription_queries import SubscriptionRow

EVERY = timedelta(hours=1)
RESYNC_SPREAD = timedelta(minutes=5)
RETRY_FIRST = 2.0
RETRY_CAP = 60.0
BATCH = 500
OVER = frozenset({"canceled", "incomplete_expired"})


class SubscriptionList(Protocol):
    """Where all subscriptions are listed: Stripe."""

    def list_subscriptions(self) -> AsyncIterator[StripeSubscription]:
        """Every subscription that was not canceled."""
        ...


class Scheduler:
    """Sweeps at start and then hourly; as often, and apart from it, nudges all instances, scattered."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], source: SubscriptionList) -> None:
        self._pool = pool
        self._source = source
        self._log = structlog.get_logger(component="scheduler")

    async def run(self) -> None:
        """Run until cancelled; what does not answer is asked again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hourly("sweep", self.sweep))
            tasks.create_task(self._hourly("resync", self.resync))

    async def _hourly(self, name: str, action: Callable[[], Awaitable[Sequence[str]]]) -> None:
        pause = RETRY_FIRST
        while True:
            try:
                touched = await action()
                self._log.info(f"{name} done", touched=len(touched))
                pause = RETRY_FIRST
                # Several provisioners must not ask Stripe at the same moment for ever.
                await asyncio.sleep(EVERY.total_seconds() * random.uniform(0.9, 1.1))  # noqa: S311 -- jitter
            except (TemporaryError, PermanentError, psycopg.Error) as error:
                self._log.warning(f"{name} did not finish; trying again", error=_said(error), pause=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_CAP)

    async def sweep(self) -> list[str]:
        """Enqueue, and return, the ids of subscriptions that Stripe has otherwise than we.

        Nothing is enqueued unless the list was read to its end: a part of it says nothing about the rest.
        """
        async with self._pool.connection() as conn:
            held = await queries.held_subscriptions(conn)
        missing = {id_ for id_, row in held.items() if row.status not in OVER}
        differing = []
        async for listed in self._source.list_subscriptions():
            missing.discard(listed.id)
            if _differs(held.get(listed.id), listed):
                differing.append(listed.id)
        differing += sorted(missing)
        for start in range(0, len(differing), BATCH):
            async with self._pool.connection() as conn:
                await enqueue(conn, Kind.SUBSCRIPTION, *differing[start : start + BATCH])
        return differing

    async def resync(self) -> list[str]:
        """Nudge, and return, every instance, scattered: what no watch told is found within the hour."""
        async with self._pool.connection() as conn:
            ids = await queries.instance_ids(conn)
        for start in range(0, len(ids), BATCH):
            async with self._pool.connection() as conn:
                await nudge(conn, Kind.INSTANCE, *ids[start : start + BATCH], spread=RESYNC_SPREAD)
        return ids


def _differs(held: SubscriptionRow | None, listed: StripeSubscription) -> bool:
    return held is None or (
        held.status,
        held.price_id,
        held.current_period_end,
        held.cancel_at_period_end,
    ) != (
        listed.status,
        listed.items[0].price_id,
        listed.current_period_end,
        listed.cancel_at_period_end,
    )


def _said(error: Exception) -> str:
    """Our own errors' sentences are fit for a log; the driver's may quote an address with a password."""
    return type(error).__name__ if isinstance(error, psycopg.Error) else str(error)
