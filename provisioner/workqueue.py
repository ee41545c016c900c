"""The work queue: who may work on what, until when. All times are the database's.

A lease is `(epoch, lease_until)`. The epoch grows with every claim and never falls; whoever writes says which
epoch it speaks for, and the row's lock is held until that write commits, so nobody can claim in between.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row
from psycopg_pool import AsyncConnectionPool

from provisioner.contract.queue import CHANNEL, Kind
from provisioner.queue_view import Depth, depths

BACKOFF_FIRST = timedelta(seconds=1)
BACKOFF_CAP = timedelta(minutes=5)
RETRY_AFTER_CAP = timedelta(hours=1)
ERROR_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A claimed item: `epoch` is the lease's number, `seq` the last cause known when it was claimed."""

    kind: Kind
    key: str
    epoch: int
    seq: int
    attempts: int
    lease_until: datetime


Alarm = Callable[[AsyncConnection[Any], WorkItem, str], Awaitable[None]]
"""Tells a person, in the transaction that parks an item, why it was parked."""


class LeaseLostError(Exception):
    """The item is no longer this worker's; nothing was written and nothing may be."""


# A lease that ran out was lost by a worker that died or hung: that counts as an attempt, or an item that
# kills its worker would look healthy. FOR UPDATE SKIP LOCKED: two claimers never wait for each other.
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT kind, key FROM work_item
         WHERE kind = %(kind)s AND due_at <= now() AND parked_at IS NULL
           AND (lease_until IS NULL OR lease_until <= now())
         ORDER BY due_at
         LIMIT %(limit)s
           FOR UPDATE SKIP LOCKED
    )
    UPDATE work_item AS w
       SET epoch = w.epoch + 1, lease_owner = %(owner)s, lease_until = clock_timestamp() + %(lease)s,
           attempts = w.attempts + CASE WHEN w.lease_until IS NULL THEN 0 ELSE 1 END
      FROM due
     WHERE w.kind = due.kind AND w.key = due.key
    RETURNING w.kind, w.key, w.epoch, w.seq, w.attempts, w.lease_until
"""

# The comparison stands outside the locking query, so that it is made after any wait for the lock.
_FENCE = """
    WITH held AS MATERIALIZED (
        SELECT lease_until FROM work_item
         WHERE kind = %(kind)s AND key = %(key)s AND epoch = %(epoch)s
           FOR UPDATE
    )
    SELECT lease_until > clock_timestamp() FROM held
"""

_EXTEND = """
    UPDATE work_item SET lease_until = clock_timestamp() + %(lease)s
     WHERE kind = %(kind)s AND key = %(key)s AND epoch = %(epoch)s AND lease_until > clock_timestamp()
"""

_COMPLETE = """
    UPDATE work_item
       SET lease_until = NULL, lease_owner = NULL, attempts = 0, last_error = NULL,
           due_at = CASE WHEN seq = %(seq)s THEN %(next_due)s::timestamptz ELSE now() END
     WHERE kind = %(kind)s AND key = %(key)s AND epoch = %(epoch)s AND lease_until > clock_timestamp()
"""

# Full jitter under a doubling ceiling; retry_after is a floor. The exponent is bounded, or it would overflow.
_FAIL = """
    UPDATE work_item
       SET lease_until = NULL, lease_owner = NULL, attempts = attempts + 1, last_error = %(error)s,
           due_at = now() + greatest(
               least(%(cap)s::interval, %(first)s::interval * power(2, least(attempts, 20))) * random(),
               least(%(retry_after)s::interval, %(retry_after_cap)s::interval))
     WHERE kind = %(kind)s AND key = %(key)s AND epoch = %(epoch)s AND lease_until > clock_timestamp()
"""

# Parked only if no cause arrived during the pass: it might be the very act that the sentence asks for.
_PARK = """
    UPDATE work_item
       SET lease_until = NULL, lease_owner = NULL, attempts = attempts + 1, last_error = %(error)s,
           due_at = NULL, parked_at = now()
     WHERE kind = %(kind)s AND key = %(key)s AND epoch = %(epoch)s AND seq = %(seq)s
       AND lease_until > clock_timestamp()
"""

_HAND_BACK = """
    UPDATE work_item SET lease_until = NULL, lease_owner = NULL, due_at = now()
     WHERE kind = %(kind)s AND key = %(key)s AND epoch = %(epoch)s AND lease_until IS NOT NULL
"""

_RETRY = """
    UPDATE work_item SET due_at = now(), seq = seq + 1, attempts = 0, parked_at = NULL
     WHERE kind = %(kind)s AND key = %(key)s
"""

_WAIT = """
    SELECT min(greatest(due_at, lease_until, now())) - now() FROM work_item
     WHERE kind = %(kind)s AND due_at IS NOT NULL AND parked_at IS NULL
"""


class WorkQueue:
    """One worker process's view of the table `work_item`.

    Args:
        pool: connections to the database.
        owner: names this process to people who look at the queue.
        lease: how long a claim holds unless extended.
        alarm: what a parked item sets off; None when nobody is to be told.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        owner: str,
        lease: timedelta,
        alarm: Alarm | None = None,
    ) -> None:
        self._pool = pool
        self._owner = owner
        self.lease = lease
        self._alarm = alarm

    async def claim(self, kind: Kind, limit: int) -> list[WorkItem]:
        """Take up to `limit` due items of `kind` that nobody holds, longest due first."""
        async with self._pool.connection() as conn, conn.cursor(row_factory=class_row(_Claimed)) as cursor:
            arguments = {"kind": kind, "limit": limit, "owner": self._owner, "lease": self.lease}
            await cursor.execute(_CLAIM, arguments)
            return [row.item() for row in await cursor.fetchall()]

    async def extend(self, item: WorkItem) -> bool:
        """Let the lease run its full time again from now; False when it was lost."""
        return await self._write(_EXTEND, item, lease=self.lease)

    @asynccontextmanager
    async def fenced(self, item: WorkItem) -> AsyncIterator[AsyncConnection[Any]]:
        """A transaction in which `item` is surely still ours: every write of a handler goes through one.

        It holds the item's row, for which enqueuers wait: no call to the outside in here.

        Raises:
            LeaseLostError: the lease ran out or somebody else has it; nothing was written.
        """
        async with self._pool.connection() as conn, conn.transaction():
            cursor = conn.cursor(row_factory=scalar_row)
            await cursor.execute(_FENCE, _identity(item))
            if not await cursor.fetchone():
                raise LeaseLostError(f"the lease on {item.kind} {item.key} (epoch {item.epoch}) was lost")
            yield conn

    async def complete(
        self, conn: AsyncConnection[Any], item: WorkItem, next_due: datetime | None = None
    ) -> bool:
        """Release `item`, due next at `next_due` (None: when something happens).

        If something happened since the claim (`seq` moved), it is due now instead.
        False when the lease was lost, in which case nothing was written.
        """
        arguments = _identity(item) | {"seq": item.seq, "next_due": next_due}
        return (await conn.execute(_COMPLETE, arguments)).rowcount == 1

    async def finish(self, item: WorkItem, next_due: datetime | None = None) -> bool:
        """`complete` in a transaction of its own."""
        async with self._pool.connection() as conn:
            return await self.complete(conn, item, next_due)

    async def fail(self, item: WorkItem, error: str, retry_after: timedelta | None = None) -> bool:
        """Release `item` to be tried again after a backoff, not before `retry_after`; False: lease lost."""
        return await self._write(
            _FAIL,
            item,
            error=_bounded(error),
            first=BACKOFF_FIRST,
            cap=BACKOFF_CAP,
            retry_after=retry_after or timedelta(0),
            retry_after_cap=RETRY_AFTER_CAP,
        )

    async def park(self, item: WorkItem, error: str) -> bool:
        """Release `item` until a person or an event revives it; False when the lease was lost.

        If something happened since the claim, it is tried again after a backoff instead.
        """
        sentence = _bounded(error)
        async with self._pool.connection() as conn:
            arguments = _identity(item) | {"seq": item.seq, "error": sentence}
            if (await conn.execute(_PARK, arguments)).rowcount == 1:
                if self._alarm is not None:
                    await self._alarm(conn, item, sentence)
                return True
        return await self.fail(item, error)

    async def hand_back(self, item: WorkItem) -> bool:
        """Release `item` unfinished, due now, for another worker; False when somebody else has it."""
        return await self._write(_HAND_BACK, item)

    async def wait(self, kind: Kind) -> timedelta | None:
        """How long until the next item of `kind` can be claimed (zero: now), None when none is planned."""
        async with self._pool.connection() as conn, conn.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(_WAIT, {"kind": kind})
            wait: timedelta | None = await cursor.fetchone()
            return wait

    async def depths(self) -> list[Depth]:
        """How long the queue is, for the metrics."""
        async with self._pool.connection() as conn:
            return await depths(conn)

    async def _write(self, query: str, item: WorkItem, **arguments: object) -> bool:
        async with self._pool.connection() as conn:
            return (await conn.execute(query, _identity(item) | arguments)).rowcount == 1


@dataclass(frozen=True, slots=True)
class Lease:
    """A handler's right to work on `item`, until the worker cancels it."""

    queue: WorkQueue
    item: WorkItem

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection[Any]]:
        """`WorkQueue.fenced`: the only way a handler writes to the database."""
        return self.queue.fenced(self.item)


async def retry(conn: AsyncConnection[Any], kind: Kind, key: str) -> bool:
    """Make an existing item due now, parked or not, its backoff forgotten; False: no such item."""
    found = (await conn.execute(_RETRY, {"kind": kind, "key": key})).rowcount == 1
    await conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, kind))
    return found


@dataclass(frozen=True, slots=True)
class _Claimed:
    kind: str
    key: str
    epoch: int
    seq: int
    attempts: int
    lease_until: datetime

    def item(self) -> WorkItem:
        return WorkItem(Kind(self.kind), self.key, self.epoch, self.seq, self.attempts, self.lease_until)


def _identity(item: WorkItem) -> dict[str, object]:
    return {"kind": item.kind, "key": item.key, "epoch": item.epoch}


def _bounded(error: str) -> str:
    """Postgres text holds no NUL, and a log's worth of error helps nobody."""
    clean = error.replace("\0", "")
    return clean if len(clean) <= ERROR_LENGTH else clean[: ERROR_LENGTH - 1] + "…"
