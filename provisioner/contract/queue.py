"""The queue's doorbell: put an object on the work queue, in the transaction that causes it."""

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from psycopg import AsyncConnection

CHANNEL = "berth_work"


class Kind(StrEnum):
    """What a key names. A transaction that locks items of several kinds takes them in this order."""

    CHARGE = "charge"
    SUBSCRIPTION = "subscription"
    INSTANCE = "instance"
    EMAIL = "email"


# seq tells a running pass that it may have read too early; attempts = 0 ends a backoff that began before
# this cause. least() ignores NULL, so an idle item takes the new time.
ENQUEUE = """
    INSERT INTO work_item AS w (kind, key, due_at)
    SELECT kind, key, coalesce(%(due_at)s, now())
      FROM unnest(%(kinds)b::text[], %(keys)b::text[]) AS wanted (kind, key)
     GROUP BY kind, key
     ORDER BY array_position(%(kind_order)b::text[], kind), key
    ON CONFLICT (kind, key) DO UPDATE
       SET due_at = least(w.due_at, excluded.due_at), seq = w.seq + 1, attempts = 0, parked_at = NULL
"""

# attempts > 0 means the item is in backoff: a nudge is remembered in seq but does not shorten the wait.
_NUDGE = """
    INSERT INTO work_item AS w (kind, key, due_at)
    SELECT %(kind)s, key, now() + random() * %(spread)s::interval
      FROM (SELECT DISTINCT unnest(%(keys)s::text[]) AS key) AS wanted
     ORDER BY key
    ON CONFLICT (kind, key) DO UPDATE
       SET due_at = CASE WHEN w.attempts = 0 THEN least(w.due_at, excluded.due_at) ELSE w.due_at END,
           seq = w.seq + 1
     WHERE w.parked_at IS NULL
"""

_HOLD = "SELECT 1 FROM work_item WHERE kind = %s AND key = %s FOR UPDATE"

_NOTIFY = "SELECT pg_notify(%s, kind) FROM unnest(%s::text[]) AS kind"


async def enqueue(conn: AsyncConnection[Any], kind: Kind, *keys: str, due_at: datetime | None = None) -> None:
    """Promise each `(kind, key)` a pass that begins after this commit, by `due_at` at the latest (None: now).

    For causes from outside (an event, a person, the sweep): it ends a backoff and revives a parked item.
    An item that is running when this commits runs once more, at once, whatever `due_at` says.
    Runs in the caller's transaction, which holds each item's row until it ends: keep it short.
    """
    if not keys:
        return
    await conn.execute(ENQUEUE, enqueue_parameters([(kind, key) for key in keys], due_at))
    await ring(conn, kind)


def enqueue_parameters(
    subjects: Collection[tuple[Kind, str]], due_at: datetime | None = None
) -> dict[str, object]:
    """Return what `ENQUEUE` takes, for who makes it part of a larger statement."""
    return {
        "kinds": [kind.value for kind, _ in subjects],
        "keys": [key for _, key in subjects],
        "kind_order": [kind.value for kind in Kind],
        "due_at": due_at,
    }


async def ring(conn: AsyncConnection[Any], *kinds: Kind) -> None:
    """Wake the workers that wait for `kinds` when this commits; a lost ring costs only the poll interval."""
    await conn.execute(_NOTIFY, (CHANNEL, [kind.value for kind in kinds]))


async def nudge(conn: AsyncConnection[Any], kind: Kind, *keys: str, spread: timedelta = timedelta(0)) -> None:
    """Make each `(kind, key)` due because something about it was seen to change, or might have.

    Respects backoff and parking, so that a flapping object cannot make its own retries hot.
    `spread` scatters the keys evenly over that time, so that a resync of all is no burst.
    """
    if not keys:
        return
    await conn.execute(_NUDGE, {"kind": kind, "keys": list(keys), "spread": spread})
    await ring(conn, kind)


async def hold(conn: AsyncConnection[Any], kind: Kind, key: str) -> None:
    """Lock an item's row before the rows of the object it names.

    A handler's transaction starts by locking its own item; whoever writes another's object takes the same
    order with this, or the two could wait for each other.
    """
    await conn.execute(_HOLD, (kind, key))
