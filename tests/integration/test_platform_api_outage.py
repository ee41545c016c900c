"""The real database goes away and comes back under a serving API."""

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import psycopg
import pytest

from tests.conftest import PostgresServer
from tests.integration.platform_api_support import (
    Api,
    deliver,
    event,
    make_settings,
    running_api,
    serving,
    until,
)


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    async with running_api(make_settings(database_url)) as running:
        yield running


@pytest.fixture
async def client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(api.app) as url, httpx.AsyncClient(base_url=url, timeout=30) as opened:
        yield opened


@pytest.fixture
async def stopped(postgres_server: PostgresServer) -> AsyncIterator[PostgresServer]:
    """Lend the server to be stopped; afterwards it runs, whatever the test came to."""
    yield postgres_server
    await asyncio.to_thread(postgres_server.start)


async def test_invariant_01_no_event_is_acknowledged_while_the_database_is_away_and_none_is_lost(
    api: Api, client: httpx.AsyncClient, stopped: PostgresServer
) -> None:
    before, during = event(), [event() for _ in range(20)]
    assert (await deliver(client, before)).status_code == 200
    await asyncio.to_thread(stopped.stop)
    for answer in await asyncio.gather(*(deliver(client, what) for what in during)):
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:berth:problem:database-unavailable"
        assert int(answer.headers["retry-after"]) > 0
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    await asyncio.to_thread(stopped.start)
    retried = await asyncio.gather(*(deliver(client, what) for what in during))
    assert {answer.status_code for answer in retried} == {200}
    assert (await client.get("/readyz")).status_code == 200
    sent = [before, *during]
    stored = await api.rows("SELECT id FROM stripe_event")
    assert {row[0] for row in stored} == {what["id"] for what in sent}
    queued = await api.rows("SELECT key FROM work_item WHERE due_at IS NOT NULL")
    assert {row[0] for row in queued} == {what["data"]["object"]["id"] for what in sent}


async def test_an_event_does_not_suffer_from_connections_that_a_restart_broke(
    client: httpx.AsyncClient, stopped: PostgresServer
) -> None:
    await asyncio.gather(*(deliver(client, event()) for _ in range(30)))  # so that the pool holds several
    await asyncio.to_thread(stopped.stop)
    await asyncio.to_thread(stopped.start)
    assert (await deliver(client, event())).status_code == 200


async def test_invariant_01_events_that_were_being_stored_when_the_database_stopped_are_not_acknowledged(
    api: Api, client: httpx.AsyncClient, stopped: PostgresServer, database_url: str
) -> None:
    during = [event() for _ in range(20)]

    async def all_wait() -> bool:
        return api.metrics.registry.get_sample_value("berth_api_stripe_events_waiting") == 20

    locking = await psycopg.AsyncConnection.connect(database_url)
    await locking.execute("LOCK TABLE stripe_event")
    sending = asyncio.gather(*(deliver(client, what) for what in during))
    await until(all_wait)
    await asyncio.to_thread(stopped.stop)
    assert {answer.status_code for answer in await sending} == {503}
    await locking.close()
    await asyncio.to_thread(stopped.start)
    assert await api.rows("SELECT id FROM stripe_event") == []
    retried = await asyncio.gather(*(deliver(client, what) for what in during))
    assert {answer.status_code for answer in retried} == {200}
    stored = await api.rows("SELECT id FROM stripe_event")
    assert {row[0] for row in stored} == {what["id"] for what in during}
