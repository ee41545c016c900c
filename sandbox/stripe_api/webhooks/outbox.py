"""Deliveries, their attempts, and the settings that steer them, in the state file."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.webhooks.faults import Faults, Planned

MOST_LISTED = 1000

Ending = Literal["delivered", "failed", "abandoned"]


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint, `attempts` made so far.

    Attributes:
        made: since when it is owed, Unix seconds of the sandbox clock.
        due: when it is to be tried next.
    """

    id: int
    event: str
    endpoint: str
    made: float
    due: float
    attempts: int


@dataclass(frozen=True)
class Attempt:
    """One try: when it began, how long it took in seconds, and the status or why there was none."""

    at: float
    seconds: float
    status: int | None
    error: str | None


class Outbox:
    """Reads and writes deliveries; the caller holds the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, deliveries: Iterable[Planned], now: float) -> None:
        """Keep deliveries until they are made."""
        self._connection.executemany(
            "INSERT INTO delivery (event, endpoint, state, made, due) VALUES (?, ?, ?, ?, ?)",
            [(one.event, one.endpoint, one.state, now, one.due) for one in deliveries],
        )

    def pending(self, limit: int) -> list[Delivery]:
        """The deliveries to make, soonest first."""
        rows = self._connection.execute(
            "SELECT id, event, endpoint, made, due, attempts FROM delivery WHERE state = 'pending'"
            " ORDER BY due, id LIMIT ?",
            (limit,),
        )
        return [Delivery(*row) for row in rows]

    def count_undelivered(self, event: str) -> int:
        """How many endpoints that were, or are, to hear of an event have not answered it with 2xx."""
        row = self._connection.execute(
            "SELECT count(*) FROM (SELECT endpoint FROM delivery WHERE event = ? AND state != 'abandoned'"
            " GROUP BY endpoint HAVING NOT max(state = 'delivered'))",
            (event,),
        ).fetchone()
        return int(row[0])

    def owed(self, until: float) -> int:
        """How many deliveries are due by then (Unix seconds), those under way included."""
        row = self._connection.execute(
            "SELECT count(*) FROM delivery WHERE state = 'pending' AND due <= ?", (until,)
        ).fetchone()
        return int(row[0])

    def record(self, delivery: Delivery, attempt: Attempt) -> None:
        """Keep what an attempt came to."""
        self._connection.execute(
            "INSERT INTO attempt (delivery, at, status, error, seconds) VALUES (?, ?, ?, ?, ?)",
            (delivery.id, attempt.at, attempt.status, attempt.error, attempt.seconds),
        )
        self._connection.execute("UPDATE delivery SET attempts = attempts + 1 WHERE id = ?", (delivery.id,))

    def retry(self, delivery: Delivery, due: float) -> None:
        """Make the delivery again at `due`, Unix seconds."""
        self._connection.execute("UPDATE delivery SET due = ? WHERE id = ?", (due, delivery.id))

    def end(self, delivery: Delivery, state: Ending) -> None:
        """Make the delivery no more."""
        self._connection.execute("UPDATE delivery SET state = ? WHERE id = ?", (state, delivery.id))

    def listed(self, event: str | None, state: str | None) -> list[Json]:
        """The latest deliveries with their event's type and their attempts, newest first.

        Args:
            event: of that event only.
            state: in that state only.
        """
        rows = self._connection.execute(
            "SELECT id, event, (SELECT label FROM object WHERE object.id = event) AS type,"
            " endpoint, state, made, due, attempts FROM delivery"
            " WHERE (:event IS NULL OR event = :event) AND (:state IS NULL OR state = :state)"
            " ORDER BY id DESC LIMIT :limit",
            {"event": event, "state": state, "limit": MOST_LISTED},
        ).fetchall()
        return [{**dict(row), "attempts": self._attempts(row["id"])} for row in rows]

    def _attempts(self, delivery: int) -> list[Json]:
        rows = self._connection.execute(
            "SELECT at, seconds, status, error FROM attempt WHERE delivery = ? ORDER BY at", (delivery,)
        )
        return [dict(row) for row in rows]

    def faults(self) -> Faults:
        """The faults in force."""
        row = self._connection.execute("SELECT body FROM setting WHERE name = 'faults'").fetchone()
        return Faults() if row is None else Faults.model_validate_json(row["body"])

    def set_faults(self, faults: Faults) -> None:
        """Put faults in force."""
        self._connection.execute(
            "INSERT INTO setting (name, body) VALUES ('faults', ?)"
            " ON CONFLICT (name) DO UPDATE SET body = excluded.body",
            (faults.model_dump_json(),),
        )
