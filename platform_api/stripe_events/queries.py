from psycopg import sql

from platform_api.database import Connection
from platform_api.stripe_events.events import Event
from provisioner.contract.queue import ENQUEUE, Kind

# One statement: one round trip, and all of it or nothing.
_STORE = sql.SQL("""
    WITH stored AS (
        INSERT INTO stripe_event (id, type, created, payload)
        VALUES (%(id)s, %(type)s, %(created)s, %(payload)s::jsonb)
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), enqueued AS (
        {enqueue}
    ), closed AS (
        UPDATE checkout SET closed_at = now()
         WHERE stripe_session_id = %(expired_session)s AND closed_at IS NULL
    )
    SELECT EXISTS (SELECT FROM stored)
""").format(enqueue=sql.SQL(ENQUEUE))


async def store(conn: Connection, event: Event, payload: str) -> bool:
    """Put `event` into the inbox and its subscription on the work queue; False when the inbox had it.

    An event that comes again enqueues again: a person who resends one wants something to happen.
    """
    cursor = await conn.execute(
        _STORE,
        {
            "id": event.id,
            "type": event.type,
            "created": event.created,
            "payload": payload,
            "expired_session": event.expired_session,
            "kind": Kind.SUBSCRIPTION,
            "keys": [] if event.subscription is None else [event.subscription],
            "due_at": None,
        },
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
