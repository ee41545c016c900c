"""What a person may see of the work queue."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from provisioner.contract.queue import Kind


class State(StrEnum):
    """Running is leased, due may be claimed, waiting has a time, idle has none, parked needs a person."""

    PARKED = "parked"
    RUNNING = "running"
    DUE = "due"
    WAITING = "waiting"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One work item. `state` is a `State`; times are aware; `last_error` is one sentence or None."""

    kind: str
    key: str
    state: str
    due_at: datetime | None
    lease_until: datetime | None
    lease_owner: str | None
    epoch: int
    seq: int
    attempts: int
    last_error: str | None
    parked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Depth:
    """How many items of a kind are in each state, and for how many seconds the oldest has been due."""

    kind: str
    parked: int
    running: int
    due: int
    waiting: int
    oldest_due: float


_VIEW = """
    SELECT kind, key, due_at, lease_until, lease_owner, epoch, seq, attempts, last_error, parked_at,
           CASE WHEN parked_at IS NOT NULL THEN 'parked'
                WHEN lease_until > now() THEN 'running'
                WHEN due_at <= now() THEN 'due'
                WHEN due_at IS NOT NULL THEN 'waiting'
                ELSE 'idle' END AS state
      FROM work_item
"""

_LIST = f"""
    SELECT * FROM ({_VIEW}) AS v
     WHERE (%(kind)s::text IS NULL OR kind = %(kind)s) AND (%(state)s::text IS NULL OR state = %(state)s)
     ORDER BY parked_at NULLS LAST, due_at NULLS LAST, kind, key
     LIMIT %(limit)s
"""  # noqa: S608 -- made of constants

_SHOW = f"SELECT * FROM ({_VIEW}) AS v WHERE kind = %(kind)s AND key = %(key)s"  # noqa: S608 -- made of constants

_DEPTHS = f"""
    SELECT kind,
           count(*) FILTER (WHERE state = 'parked') AS parked,
           count(*) FILTER (WHERE state = 'running') AS running,
           count(*) FILTER (WHERE state = 'due') AS due,
           count(*) FILTER (WHERE state = 'waiting') AS waiting,
           coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE state = 'due')), 0)::float8
               AS oldest_due
      FROM ({_VIEW}) AS v
     GROUP BY kind
     ORDER BY kind
"""  # noqa: S608 -- made of constants


async def list_items(
    conn: AsyncConnection[Any], kind: Kind | None = None, state: State | None = None, limit: int = 100
) -> list[QueueRow]:
    """Up to `limit` items, parked first, then by when they are due."""
    async with conn.cursor(row_factory=class_row(QueueRow)) as cursor:
        await cursor.execute(_LIST, {"kind": kind, "state": state, "limit": limit})
        return await cursor.fetchall()


async def show_item(conn: AsyncConnection[Any], kind: Kind, key: str) -> QueueRow | None:
    """One item, or None."""
    async with conn.cursor(row_factory=class_row(QueueRow)) as cursor:
        await cursor.execute(_SHOW, {"kind": kind, "key": key})
        return await cursor.fetchone()


async def depths(conn: AsyncConnection[Any]) -> list[Depth]:
    """The queue's size by kind and state, for the metrics."""
    async with conn.cursor(row_factory=class_row(Depth)) as cursor:
        await cursor.execute(_DEPTHS)
        return await cursor.fetchall()
