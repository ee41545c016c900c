"""From payment to a page that answers: where the seconds went."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

_MOMENTS = """
    SELECT i.created_at, i.ready_at,
           (SELECT min(e.received_at) FROM stripe_event e
             WHERE e.payload #>> '{data,object,id}' = i.subscription_id
                OR e.payload #>> '{data,object,subscription}' = i.subscription_id) AS received_at
      FROM instance i WHERE i.id = %s
"""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Seconds from one moment to the next; None where a moment is not known."""

    delivered: float | None
    planned: float | None
    provisioned: float | None

    @property
    def total(self) -> float | None:
        """Seconds from payment to ready."""
        parts = (self.delivered, self.planned, self.provisioned)
        return None if None in parts else sum(part for part in parts if part is not None)

    def __str__(self) -> str:
        return " + ".join(
            "?" if part is None else f"{part:.1f}"
            for part in (self.delivered, self.planned, self.provisioned)
        )


async def load_timeline(database_url: str, instance_id: str, paid_at: float | None) -> Timeline:
    """Return how the seconds of `instance_id` divide; `paid_at` in seconds since the epoch."""
    async with await AsyncConnection.connect(database_url, row_factory=dict_row, connect_timeout=5) as conn:
        found = await (await conn.execute(_MOMENTS, (instance_id,))).fetchone()
    moments: dict[str, Any] = found or {"received_at": None, "created_at": None, "ready_at": None}
    received, created, ready = moments["received_at"], moments["created_at"], moments["ready_at"]
    return Timeline(
        None if paid_at is None or received is None else max(0.0, received.timestamp() - paid_at),
        _between(received, created),
        _between(created, ready),
    )


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()
