"""The queue's doorbell: put an object on the work queue, in the transaction that causes it."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg import AsyncConnection

CHANNEL = "berth_work"


class Kind(StrEnum):
    SUBSCRIPTION = "subscription"
    INSTANCE = "instance"
    EMAIL = "email"


_ENQUEUE = """
    INSERT INTO work_item AS w (kind, key, due_at)
    SELECT %(kind)s, key, coalesce(%(due_at)s, now()) FROM unnest(%(keys)s::text[]) AS key ORDER BY key
    ON CONFLICT (kind, key) DO UPDATE
       SET due_at = least(w.due_at, excluded.due_at), seq = w.seq + 1, parked_at = NULL
"""

# attempts > 0 means the item is in backoff: a nudge is remembered in seq but does not shorten the wait.
_NUDGE = """
    INSERT INTO work_item AS w (kind, key, due_at)
    SELECT %(kind)s, key, now() FROM unnest(%(keys)s::text[]) AS key ORDER BY key
    ON CONFLICT (kind, key) DO UPDATE
       SET due_at = CASE WHEN w.attempts = 0 THEN least(w.due_at, excluded.due_at) ELSE w.due_at END,
           seq = w.seq + 1
     WHERE w.parked_at IS NULL
"""


async def enqueue(
    conn: AsyncConnection[Any], kind: Kind, *keys: str, due_at: datetime | None = None
) -> None:
    """Make each `(kind, key)` due at `due_at` (now if None), earlier if it was due earlier.

    For causes from outside (an event, a person, the sweep): it also revives a parked item.
    Runs in the caller's transaction; workers are notified when that commits.
    """
    await conn.execute(_ENQUEUE, {"kind": kind, "keys": sorted(set(keys)), "due_at": due_at})
    await conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, kind))


async def nudge(conn: AsyncConnection[Any], kind: Kind, *keys: str) -> None:
    """Make each `(kind, key)` due now because something about it was seen to change.

    Respects backoff and parking, so that a flapping object cannot make its own retries hot.
    """
    await conn.execute(_NUDGE, {"kind": kind, "keys": sorted(set(keys))})
    await conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, kind))
