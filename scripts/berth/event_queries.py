"""What an operator may ask of the inbox of Stripe's events: each with how its subject's work item stands."""

from psycopg import AsyncConnection

from scripts.berth.database import Row

# An expired session frees its slug as it is stored and has no work item; other events without one ask for
# nothing. An item that waits for a time of its own has done what the event asked.
_VIEW = """
    SELECT e.id, e.type, e.created, e.received_at, e.subject_kind, e.subject_key,
           CASE WHEN w.key IS NULL AND e.type = 'checkout.session.expired' THEN 'done'
                WHEN w.key IS NULL THEN 'unhandled'
                WHEN w.parked_at IS NOT NULL THEN 'parked'
                WHEN w.lease_until > now() THEN 'running'
                WHEN w.due_at IS NOT NULL AND w.attempts > 0 THEN 'failing'
                WHEN w.due_at <= now() THEN 'waiting'
                ELSE 'done' END AS state,
           w.last_error AS error
      FROM stripe_event e
      LEFT JOIN work_item w ON w.kind = e.subject_kind AND w.key = e.subject_key
"""

_LIST = f"""
    SELECT * FROM ({_VIEW}) AS v
     WHERE (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
       AND (%(type)s::text IS NULL OR type = %(type)s)
     ORDER BY received_at DESC, id
     LIMIT %(limit)s
"""  # noqa: S608 -- made of constants

_SHOW = f"SELECT v.*, e.payload FROM ({_VIEW}) AS v JOIN stripe_event e USING (id) WHERE id = %s"  # noqa: S608 -- made of constants


async def list_events(
    conn: AsyncConnection[Row], *, states: list[str] | None, event_type: str | None, limit: int
) -> list[Row]:
    """Return at most `limit` events, last received first; of some states or one type if asked for."""
    found = await conn.execute(_LIST, {"states": states, "type": event_type, "limit": limit})
    return await found.fetchall()


async def find_event(conn: AsyncConnection[Row], event_id: str) -> Row | None:
    """Return one event with its payload."""
    found = await conn.execute(_SHOW, (event_id,))
    return await found.fetchone()
