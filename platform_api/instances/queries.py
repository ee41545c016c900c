from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import class_row

from platform_api.database import Connection
from platform_api.pagination import Position


@dataclass(frozen=True, slots=True)
class Instance:
    """A row of `instance`, and what its spec grants."""

    id: str
    product: str
    plan: str
    slug: str
    phase: str
    phase_since: datetime
    conditions: Sequence[Mapping[str, Any]]
    limits: Mapping[str, int | None] | None
    size: Mapping[str, int] | None
    created_at: datetime
    paid_at: datetime | None
    ready_at: datetime | None


@dataclass(frozen=True, slots=True)
class InstanceEvent:
    """A row of `instance_event`."""

    id: int
    at: datetime
    reason: str
    message: str


# Row-level security selects by customer as well: each of the two would do, and neither relies on the other.
_SELECT: LiteralString = """
    SELECT id, product, plan, slug, phase, phase_since, conditions, spec->'limits' AS limits,
           spec->'size' AS size, created_at, paid_at, ready_at
      FROM instance WHERE customer_id = %(customer_id)s
"""


async def list_instances(
    conn: Connection, customer_id: str, before: Position | None, limit: int
) -> list[Instance]:
    """Return up to `limit` of the customer's instances, newest first, older than `before`."""
    async with conn.cursor(row_factory=class_row(Instance)) as cursor:
        await cursor.execute(
            _SELECT
            + """
               AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s))
             ORDER BY created_at DESC, id DESC LIMIT %(limit)s
            """,
            {
                "customer_id": customer_id,
                "at": before and before.at,
                "id": before and before.id,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def get_instance(conn: Connection, customer_id: str, instance_id: str) -> Instance | None:
    """Return the customer's instance of that id."""
    async with conn.cursor(row_factory=class_row(Instance)) as cursor:
        await cursor.execute(_SELECT + " AND id = %(id)s", {"customer_id": customer_id, "id": instance_id})
        return await cursor.fetchone()


async def list_events(conn: Connection, instance_id: str, after: int, limit: int) -> list[InstanceEvent]:
    """Return up to `limit` of the instance's events, oldest first, later than the one numbered `after`.

    What operators noted for themselves is left out, here and by row-level security.
    """
    async with conn.cursor(row_factory=class_row(InstanceEvent)) as cursor:
        await cursor.execute(
            """
            SELECT id, at, reason, message FROM instance_event
             WHERE instance_id = %s AND NOT is_internal AND id > %s ORDER BY id LIMIT %s
            """,
            (instance_id, after, limit),
        )
        return await cursor.fetchall()
