"""Events that no webhook brought: Stripe's own list of them is read on from where it was last read to."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Protocol

import structlog
from psycopg import AsyncConnection
from psycopg.rows import scalar_row
from psycopg_pool import AsyncConnectionPool

from provisioner.contract.errors import PermanentError
from provisioner.contract.inbox import ACTED_UPON, Event, NotAnEventError, parse_event, store_events
from provisioner.contract.queue import ring

# How long Stripe lists an event: https://docs.stripe.com/api/events/list.
KEPT = timedelta(days=30)
# Read twice, for events that Stripe lists late and for clocks that differ.
OVERLAP = timedelta(minutes=15)
# What is read between two notes of how far we are, so that a long outage is not begun anew.
SLICE = timedelta(days=1)

# Before our database existed nothing was ours.
_SINCE = """
    SELECT coalesce((SELECT events_until FROM stripe_sync), (SELECT min(applied_at) FROM schema_migration)),
           now()
"""

_KNOWN = "SELECT id FROM stripe_event WHERE id = ANY(%s)"

_READ_UNTIL = """
    INSERT INTO stripe_sync AS s (events_until) VALUES (%s)
    ON CONFLICT (id) DO UPDATE
       SET events_until = greatest(s.events_until, excluded.events_until), finished_at = now()
"""


class EventList(Protocol):
    """Where events are listed: Stripe."""

    def list_events(
        self, since: datetime, until: datetime | None, types: Sequence[str]
    ) -> AsyncIterator[list[str]]:
        """Pages of events' JSON, created from `since` on and before `until`."""
        ...


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What came of it.

    Attributes:
        since: from when on events were read.
        missed: the ids of those that the inbox lacked.
        lost: how much of the time before that Stripe lists no more.
    """

    since: datetime
    missed: tuple[str, ...]
    lost: timedelta


class CatchUp:
    """Lists the events since the last time and takes in those that the inbox lacks.

    Several at once are harmless: an event is stored once, and how far the list was read never goes back.
    """

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], source: EventList) -> None:
        self._pool = pool
        self._source = source
        self._log = structlog.get_logger(component="catch-up")

    async def run(self, on_page: Callable[[int], None] = lambda _: None) -> CaughtUp:
        """Take in what was missed; `on_page` is told how many events were read so far.

        Raises:
            TemporaryError, PermanentError: the list ended early; what came before is in.
        """
        since, now, lost = await self._bounds()
        if lost:
            self._log.warning(
                "away for longer than Stripe lists events; the sweep finds what they changed", lost=str(lost)
            )
        missed: list[str] = []
        read = 0
        for start, end in pairwise(_moments(since, now)):
            async for page in self._source.list_events(start, None if end == now else end, ACTED_UPON):
                missed += await self._take(page)
                read += len(page)
                on_page(read)
            async with self._pool.connection() as conn:
                await conn.execute(_READ_UNTIL, (end,))
        return CaughtUp(since, tuple(missed), lost)

    async def _bounds(self) -> tuple[datetime, datetime, timedelta]:
        """From when to when to read, and how much before that Stripe does not list any more."""
        async with self._pool.connection() as conn:
            ((until, now),) = await (await conn.execute(_SINCE)).fetchall()
        since, oldest = until - OVERLAP, now - KEPT
        return max(since, oldest), now, max(oldest - until, timedelta(0))

    async def _take(self, page: Sequence[str]) -> list[str]:
        """Store those of a page that are new. The others are not enqueued again: they had their pass."""
        events = [_parsed(text) for text in page]
        async with self._pool.connection() as conn:
            cursor = conn.cursor(row_factory=scalar_row)
            await cursor.execute(_KNOWN, ([event.id for event in events],))
            known = set(await cursor.fetchall())
            new = [event for event in events if event.id not in known]
            stored = await store_events(conn, new)
            await ring(conn, *{event.subject[0] for event in new if event.subject})
        return sorted(stored)


def _moments(since: datetime, now: datetime) -> list[datetime]:
    """The bounds of the slices; at least one slice, which ends now."""
    inner = []
    while since < now:
        inner.append(since)
        since += SLICE
    return [*(inner or [since]), now]


def _parsed(text: str) -> Event:
    try:
        return parse_event(text)
    except NotAnEventError as error:
        raise PermanentError("Stripe lists an event that Berth does not understand: upgrade Berth") from error
