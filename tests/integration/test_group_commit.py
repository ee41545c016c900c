"""Events that arrive together: stored together, answered one by one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors

from platform_api.database import Pool, make_pool
from platform_api.problems import Problem
from platform_api.stripe_events.group_commit import GroupCommit
from provisioner.contract.inbox import Event, parse_event
from tests.integration.platform_api_support import event, until


@pytest.fixture
async def api_pool(database_url: str) -> AsyncIterator[Pool]:
    async with make_pool(database_url) as opened:
        yield opened


def some(subscription: str | None = None) -> Event:
    return parse_event(json.dumps(event(obj={"id": subscription} if subscription else None)))


async def rows(database_url: str, query: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        return await (await conn.execute(query.encode())).fetchall()


@asynccontextmanager
async def inbox_locked(database_url: str) -> AsyncIterator[None]:
    """Nothing can be stored until the block ends."""
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await conn.execute("LOCK TABLE stripe_event")
        yield
        await conn.rollback()


def begin(inbox: GroupCommit, events: list[Event]) -> list[asyncio.Task[bool]]:
    return [asyncio.create_task(inbox.store(what)) for what in events]


async def all_wait(inbox: GroupCommit, count: int) -> None:
    async def so_many() -> bool:
        return inbox.under_way == count

    await until(so_many)


async def test_what_arrives_while_others_are_stored_shares_a_transaction(
    api_pool: Pool, database_url: str
) -> None:
    inbox, events = GroupCommit(api_pool), [some() for _ in range(40)]
    async with inbox_locked(database_url):
        waiting = begin(inbox, events[:1])
        await all_wait(inbox, 1)
        waiting += begin(inbox, events[1:])
        await all_wait(inbox, 40)
        assert not [task for task in waiting if task.done()]
    assert await asyncio.gather(*waiting) == [True] * 40
    [(stored, transactions)] = await rows(
        database_url, "SELECT count(*), count(DISTINCT xmin::text) FROM stripe_event"
    )
    assert stored == 40
    assert transactions <= 3


async def test_a_lone_event_is_stored_at_once(api_pool: Pool) -> None:
    inbox, what = GroupCommit(api_pool), some()
    assert await inbox.store(what) is True
    assert await inbox.store(what) is False
    assert inbox.under_way == 0


async def test_an_event_and_its_double_in_one_batch_are_new_once(api_pool: Pool) -> None:
    inbox, what = GroupCommit(api_pool), some()
    assert sorted(await asyncio.gather(*begin(inbox, [what] * 5))) == [False] * 4 + [True]


async def test_an_event_that_the_database_refuses_fails_alone(api_pool: Pool, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await conn.execute("ALTER TABLE work_item ADD CHECK (key <> 'sub_refused')")
    inbox = GroupCommit(api_pool)
    events = [some() for _ in range(10)]
    events[4] = some("sub_refused")
    came_of = await asyncio.gather(*begin(inbox, events), return_exceptions=True)
    assert isinstance(came_of.pop(4), errors.CheckViolation)
    assert came_of == [True] * 9
    stored = {row[0] for row in await rows(database_url, "SELECT id FROM stripe_event")}
    assert stored == {what.id for what in events} - {events[4].id}


async def test_who_stops_waiting_takes_nobody_along(api_pool: Pool, database_url: str) -> None:
    inbox = GroupCommit(api_pool)
    async with inbox_locked(database_url):
        waiting = begin(inbox, [some() for _ in range(20)])
        await all_wait(inbox, 20)
        left = waiting[::3]
        for task in left:
            task.cancel()
        await asyncio.wait(left)
    came_of = await asyncio.gather(*(task for task in waiting if task not in left))
    assert came_of == [True] * 13


async def test_events_beyond_the_bound_are_turned_away_and_the_others_are_not(
    api_pool: Pool, database_url: str
) -> None:
    inbox = GroupCommit(api_pool)
    async with inbox_locked(database_url):
        waiting = begin(inbox, [some() for _ in range(400)])
        await all_wait(inbox, 400)
        with pytest.raises(Problem) as turned_away:
            await inbox.store(some())
        assert turned_away.value.status_code == 503
    assert await asyncio.gather(*waiting) == [True] * 400
