"""What nobody rings for: missed events, the sweep that heals lost webhooks, the resync, tidying up."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from catalogue.loader import CatalogueError
from provisioner import subscription_queries as queries
from provisioner.catch_up import CatchUp
from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.queue import Kind, nudge
from provisioner.emails import forget_expired_links
from provisioner.sweep import Sweep

EVERY = timedelta(hours=1)
RESYNC_SPREAD = timedelta(minutes=5)
RETRY_FIRST = 2.0
RETRY_CAP = 60.0
BATCH = 500

Counts = Mapping[str, int]


class Scheduler:
    """At start and then within each hour takes in missed events, sweeps, nudges all instances, and tidies up.

    Each goes by itself: a key that may not list events stops no sweep.
    """

    def __init__(
        self, pool: AsyncConnectionPool[AsyncConnection[Any]], catch_up: CatchUp, sweep: Sweep
    ) -> None:
        self._pool = pool
        self._catch_up = catch_up
        self._sweep = sweep
        self._log = structlog.get_logger(component="scheduler")

    async def run(self) -> None:
        """Run until cancelled; what does not answer is asked again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hourly("catch-up", self.catch_up))
            tasks.create_task(self._hourly("sweep", self.sweep))
            tasks.create_task(self._hourly("resync", self.resync))
            tasks.create_task(self._hourly("tidying", self.tidy))

    async def _hourly(self, name: str, action: Callable[[], Awaitable[Counts]]) -> None:
        pause = RETRY_FIRST
        while True:
            try:
                counts = await action()
                self._log.info(f"{name} done", **counts)
                pause = RETRY_FIRST
                # Several provisioners must not ask Stripe at the same moment for ever.
                await asyncio.sleep(EVERY.total_seconds() * random.uniform(0.8, 1.0))  # noqa: S311 -- jitter
            except (TemporaryError, PermanentError, CatalogueError, psycopg.Error) as error:
                self._log.warning(f"{name} did not finish; trying again", error=_said(error), pause=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_CAP)

    async def catch_up(self) -> Counts:
        """Take in the events that no webhook brought."""
        return {"missed": len((await self._catch_up.run()).missed)}

    async def sweep(self) -> Counts:
        """Enqueue the subscriptions that Stripe has otherwise than we."""
        swept = await self._sweep.run()
        return {"compared": swept.compared, "differing": len(swept.enqueued), "foreign": swept.foreign}

    async def resync(self) -> Counts:
        """Nudge every instance, scattered: what no watch told is found within the hour."""
        async with self._pool.connection() as conn:
            ids = await queries.instance_ids(conn)
        for start in range(0, len(ids), BATCH):
            async with self._pool.connection() as conn:
                await nudge(conn, Kind.INSTANCE, *ids[start : start + BATCH], spread=RESYNC_SPREAD)
        return {"instances": len(ids)}

    async def tidy(self) -> Counts:
        """Remove what is of no use to anybody any more."""
        async with self._pool.connection() as conn:
            return {"links": await forget_expired_links(conn)}


def _said(error: Exception) -> str:
    """Our own errors' sentences are fit for a log; the driver's may quote an address with a password."""
    return type(error).__name__ if isinstance(error, psycopg.Error) else str(error)
