"""Stripe's objects in the state file, in the order they were made."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.timetable import clock_of, due_at

_LABEL = {
    "billing_portal.session": "_secret",
    "charge": "customer",
    "checkout.session": "customer",
    "dispute": "charge",
    "event": "type",
    "invoice": "customer",
    "payment_method": "customer",
    "invoice_payment": "invoice",
    "invoiceitem": "customer",
    "payment_intent": "customer",
    "price": "lookup_key",
    "promotion_code": "code",
    "refund": "charge",
    "subscription": "customer",
    "test_helpers.test_clock": "status",
}
"""By kind, the field most used to filter its lists: kept in a column of its own, with an index."""


def _all(_: Json) -> bool:
    return True


@dataclass(frozen=True)
class Query:
    """Which objects a list shows.

    Attributes:
        kind: the `object` field of what is listed.
        label: the exact value of the kind's label; None for any.
        since: earliest creation, Unix seconds.
        until: latest creation.
        keep: what else must hold.
    """

    kind: str
    label: str | None = None
    since: int = 0
    until: int = 2**62
    keep: Callable[[Json], bool] = _all


@dataclass(frozen=True)
class Page:
    """Where a page begins: after an object (towards older), before one (towards newer), or at the newest."""

    limit: int
    starting_after: str | None = None
    ending_before: str | None = None


class State(Protocol):
    """What an operation may read."""

    def find(self, object_id: str) -> Json | None:
        """The object of that id, a copy; None if there is none."""

    def page(self, query: Query, page: Page) -> tuple[list[Json], bool]:
        """Objects, newest first, and whether there are more beyond the page."""


class Store:
    """Reads and writes objects; the caller holds the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, object_id: str) -> Json | None:
        """The object of that id, a copy; None if there is none."""
        row = self._connection.execute("SELECT body FROM object WHERE id = ?", (object_id,)).fetchone()
        return None if row is None else _object(row)

    def page(self, query: Query, page: Page) -> tuple[list[Json], bool]:
        """Objects, newest first, and whether there are more beyond the page; none for an unknown cursor."""
        backwards = page.ending_before is not None
        cursor = self._seq(page.ending_before or page.starting_after)
        found: list[Json] = []
        for candidate in self._walk(query, cursor, newer=backwards):
            if not query.keep(candidate):
                continue
            if len(found) == page.limit:
                return (found[::-1] if backwards else found), True
            found.append(candidate)
        return (found[::-1] if backwards else found), False

    def put(self, found: Json) -> None:
        """Store an object, new or changed."""
        self._connection.execute(
            "INSERT INTO object (id, kind, label, created, clock, due, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET"
            " label = excluded.label, clock = excluded.clock, due = excluded.due, body = excluded.body",
            (
                found["id"],
                found["object"],
                label_of(found),
                created_of(found),
                clock_of(found),
                due_at(found),
                json.dumps(found),
            ),
        )

    def next_due(self, clock: str | None, until: int) -> tuple[int, Json] | None:
        """What time does something to first, and when (Unix seconds), up to `until`.

        Args:
            clock: of what lives by that test clock; None for the sandbox's own time.
            until: the latest time asked for, inclusive.
        """
        row = self._connection.execute(
            "SELECT due, body FROM object WHERE clock IS ? AND due <= ? ORDER BY due, seq LIMIT 1",
            (clock, until),
        ).fetchone()
        return None if row is None else (int(row["due"]), _object(row))

    def remove(self, object_id: str) -> None:
        """Forget an object."""
        self._connection.execute("DELETE FROM object WHERE id = ?", (object_id,))

    def _seq(self, object_id: str | None) -> int | None:
        if object_id is None:
            return None
        row = self._connection.execute("SELECT seq FROM object WHERE id = ?", (object_id,)).fetchone()
        return None if row is None else int(row["seq"])

    def _walk(self, query: Query, cursor: int | None, *, newer: bool) -> Iterator[Json]:
        arguments = {
            "kind": query.kind,
            "label": query.label,
            "since": query.since,
            "until": query.until,
            "cursor": cursor,
        }
        rows = self._connection.execute(_NEWER if newer else _OLDER, arguments)
        return (_object(row) for row in rows)


_OLDER = """
    SELECT body FROM object
    WHERE kind = :kind AND (:label IS NULL OR label = :label) AND created BETWEEN :since AND :until
      AND (:cursor IS NULL OR seq < :cursor)
    ORDER BY seq DESC
"""
_NEWER = """
    SELECT body FROM object
    WHERE kind = :kind AND (:label IS NULL OR label = :label) AND created BETWEEN :since AND :until
      AND seq > :cursor
    ORDER BY seq
"""


def _object(row: sqlite3.Row) -> Json:
    found: Json = json.loads(row["body"])
    return found


def label_of(found: Json) -> str | None:
    """The value an object's kind is filtered by."""
    label: str | None = found.get(_LABEL.get(found["object"], ""))
    return label


def created_of(found: Json) -> int:
    """When an object was made, Unix seconds."""
    created: int = found["_created"] if "_created" in found else found["created"]
    return created


def every(state: State, query: Query, most: int) -> Sequence[Json]:
    """Up to `most` objects at once, newest first."""
    return state.page(query, Page(most))[0]
