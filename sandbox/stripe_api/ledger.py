"""Everything the stand-in remembers, and the one way to change it."""

import json
import secrets
import sqlite3
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sandbox.stripe_api import objects
from sandbox.stripe_api.bell import Bell
from sandbox.stripe_api.database import transaction
from sandbox.stripe_api.idempotency import Replies
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Change
from sandbox.stripe_api.store import Query, Store, every
from sandbox.stripe_api.webhooks.faults import MOST_ENDPOINTS, Faults, planned
from sandbox.stripe_api.webhooks.outbox import Delivery, Ending, Outbox

_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = {"cs_test": 58, "whsec": 32, "cus": 14, "prod": 14, "si": 14, "req": 14}
_USUAL_LENGTH = 24


def new_id(prefix: str) -> str:
    """A fresh id as Stripe writes them."""
    length = _ID_LENGTH.get(prefix, _USUAL_LENGTH)
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def encoded(body: Json) -> bytes:
    """JSON as Stripe writes it."""
    return json.dumps(body, indent=2, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Ledger:
    """The state file's contents.

    Attributes:
        wall: the real time, Unix seconds.
        bell: rung when there may be something to deliver, and when something was.
    """

    connection: sqlite3.Connection
    store: Store
    outbox: Outbox
    replies: Replies
    wall: Callable[[], float]
    bell: Bell

    def clock(self) -> float:
        """The sandbox's time, Unix seconds: real time and what it was put forward by."""
        return self.wall() + self._offset()

    def advance(self, seconds: int) -> None:
        """Put the sandbox's time forward; the caller holds the transaction. A restart keeps it."""
        self.connection.execute(
            "INSERT INTO setting (name, body) VALUES ('clock_offset', :body)"
            " ON CONFLICT (name) DO UPDATE SET body = excluded.body",
            {"body": json.dumps(self._offset() + seconds)},
        )

    def _offset(self) -> int:
        row = self.connection.execute("SELECT body FROM setting WHERE name = 'clock_offset'").fetchone()
        return 0 if row is None else int(row["body"])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block's writes, or none; then deliveries may begin. The block must not await."""
        with transaction(self.connection):
            yield
        self.bell.ring()

    def commit(self, change: Change, cause: Cause, at: int | None = None) -> None:
        """Carry out a change: store its objects, make its events and plan their deliveries.

        Args:
            change: what was decided.
            cause: the request that it answers, if any.
            at: when its events happened, Unix seconds; None for now.
        """
        if not (change.saved or change.removed or change.events):
            return
        now = self.clock()
        for one in change.saved:
            self.store.put(one)
        for object_id in change.removed:
            self.store.remove(object_id)
        events: list[Json] = []
        for draft in change.events:
            data: Json = {"object": draft.subject}
            if draft.previous is not None:
                data["previous_attributes"] = draft.previous
            happened = int(now) if at is None else at
            events.append(objects.event(new_id("evt"), happened, draft.kind, data, cause))
        endpoints = every(self.store, Query("webhook_endpoint"), MOST_ENDPOINTS)
        deliveries, remaining = planned(events, endpoints, self.outbox.faults(), now)
        self.outbox.add(deliveries, now)
        self.outbox.set_faults(remaining)
        for event in events:
            self.store.put({**event, "pending_webhooks": self.outbox.count_undelivered(event["id"])})

    def end(self, delivery: Delivery, state: Ending) -> None:
        """Make a delivery no more."""
        self.outbox.end(delivery, state)
        event = self.store.find(delivery.event)
        if event is not None:
            self.store.put({**event, "pending_webhooks": self.outbox.count_undelivered(delivery.event)})

    def resend(self, event: Json) -> int:
        """Deliver an event once more to whoever listens; returns to how many."""
        endpoints = every(self.store, Query("webhook_endpoint"), MOST_ENDPOINTS)
        now = self.clock()
        deliveries, _ = planned([event], endpoints, Faults(), now)
        self.outbox.add(deliveries, now)
        self.store.put({**event, "pending_webhooks": self.outbox.count_undelivered(event["id"])})
        return len(deliveries)
