import asyncio
import base64
import json
from dataclasses import dataclass

import psycopg
from psycopg import errors

from platform_api.database import POOL_SIZE, Connection, Pool, connect
from platform_api.doorbell import Doorbell
from platform_api.metrics import Metrics
from platform_api.problems import Problem
from platform_api.stripe_events import events, queries
from platform_api.stripe_events.events import Event
from provisioner.contract.queue import Kind

_STORE_TIMEOUT = 9.0  # seconds, all tries: Stripe waits about ten


@dataclass(frozen=True, slots=True)
class EventIntake:
    """Takes Stripe's events in: verified, stored, put on the queue, and only then acknowledged."""

    pool: Pool
    secrets: tuple[str, ...]
    doorbell: Doorbell
    metrics: Metrics

    async def take(self, body: bytes, signature: str | None) -> None:
        """Store the event in `body`; when this returns, it is committed.

        Raises:
            Problem: 400, it is not an event signed by Stripe; nothing was stored.
            psycopg.OperationalError: it could not be stored; Stripe has to send it again.
        """
        try:
            event = events.parse(events.verify(body, signature, self.secrets))
        except Problem:
            self.metrics.stripe_events.labels("", "refused").inc()
            raise
        try:
            is_new = await self._store(event)
        except (psycopg.Error, TimeoutError):
            self.metrics.stripe_events.labels(event.type, "failed").inc()
            raise
        self.metrics.stripe_events.labels(event.type, "stored" if is_new else "duplicate").inc()
        if event.subscription is not None:
            self.doorbell.ring(Kind.SUBSCRIPTION)

    async def _store(self, event: Event) -> bool:
        # After a restart of the database every connection in the pool is stale, and using one is how to find
        # out. Storing twice is storing once, so an event need not fail for it.
        async with asyncio.timeout(_STORE_TIMEOUT):
            for _ in range(POOL_SIZE):
                async with connect(self.pool) as conn:
                    try:
                        return await _store_on(conn, event)
                    except psycopg.OperationalError:
                        if not conn.closed:
                            raise
            async with connect(self.pool) as conn:
                return await _store_on(conn, event)


async def _store_on(conn: Connection, event: Event) -> bool:
    try:
        return await queries.store(conn, event, event.payload)
    except (errors.DataError, errors.StatementTooComplex):
        # JSON that Postgres's jsonb does not hold (NUL, lone surrogates, vast numbers or depths). What the
        # event says is never acted upon, so its bytes are kept as they came and the event counts.
        raw = base64.b64encode(event.payload.encode()).decode()
        return await queries.store(conn, event, json.dumps({"berth_raw_base64": raw}))
