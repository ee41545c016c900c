"""What an operator may ask of instances, over all customers."""

from typing import Any, LiteralString

from psycopg import AsyncConnection

from provisioner.contract.queue import Kind, enqueue
from scripts.berth.database import Row

_SUMMARY: LiteralString = """
    SELECT i.id, i.slug, i.product, i.plan, i.phase, i.phase_since, i.generation, i.observed_generation,
           c.email AS customer, i.customer_id, i.subscription_id, s.status AS subscription_status,
           i.created_at, i.paid_at, i.ready_at, i.conditions, i.spec
      FROM instance i
      JOIN customer c ON c.id = i.customer_id
      JOIN subscription s ON s.id = i.subscription_id
"""


async def list_instances(
    conn: AsyncConnection[Row], *, phase: str | None, product: str | None, limit: int
) -> list[Row]:
    """Return at most `limit` instances, newest first, optionally of one phase or product."""
    found = await conn.execute(
        _SUMMARY
        + """ WHERE (%(phase)s::text IS NULL OR i.phase = %(phase)s)
                AND (%(product)s::text IS NULL OR i.product = %(product)s)
              ORDER BY i.created_at DESC, i.id LIMIT %(limit)s""",
        {"phase": phase, "product": product, "limit": limit},
    )
    return await found.fetchall()


async def find_instance(conn: AsyncConnection[Row], name: str) -> Row | None:
    """Return the instance whose id, slug or subscription id is `name`; a live one before a deleted one."""
    found = await conn.execute(
        _SUMMARY
        + """ WHERE %(name)s IN (i.id, i.slug, i.subscription_id)
              ORDER BY (i.phase = 'deleted'), i.created_at DESC LIMIT 1""",
        {"name": name},
    )
    return await found.fetchone()


async def similar_names(conn: AsyncConnection[Any], limit: int = 500) -> list[str]:
    """Return the newest slugs and ids, to suggest the nearest one for a mistyped name."""
    found = await conn.execute("SELECT slug, id FROM instance ORDER BY created_at DESC LIMIT %s", (limit,))
    return [name for row in await found.fetchall() for name in row.values()]


async def record_final_backup(conn: AsyncConnection[Any], instance_id: str, note: str) -> bool:
    """Note that a verified final backup exists; False unless the instance is stopped, and to stay so."""
    await enqueue(conn, Kind.INSTANCE, instance_id)
    # Paid for again, it is suspended until its next pass, and writes what the backup does not hold.
    found = await conn.execute(
        """UPDATE instance SET final_backup_at = now(), final_backup_note = %(note)s
            WHERE id = %(id)s AND phase = 'suspended' AND spec->>'desired' <> 'running'""",
        {"id": instance_id, "note": note},
    )
    if found.rowcount == 0:
        return False
    await conn.execute(
        "INSERT INTO instance_event (instance_id, reason, message, is_internal)"
        " VALUES (%s, 'FinalBackup', %s, true)",
        (instance_id, note),
    )
    return True


async def instance_events(conn: AsyncConnection[Row], instance_id: str, limit: int) -> list[Row]:
    """Return an instance's newest `limit` events, oldest first."""
    found = await conn.execute(
        """SELECT at, reason, message FROM
             (SELECT id, at, reason, message FROM instance_event WHERE instance_id = %s
               ORDER BY id DESC LIMIT %s) AS newest ORDER BY id""",
        (instance_id, limit),
    )
    return await found.fetchall()
