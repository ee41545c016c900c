"""Group commit: events that arrive while others are being stored share the next statement."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence

import psycopg

from platform_api import problems
from platform_api.database import POOL_SIZE, Pool, connect
from platform_api.problems import Problem
from provisioner.contract.inbox import Event, store_events

_MAX_BATCH = 50  # events
_MAX_WRITERS = 4  # of the pool's connections
_MAX_WAITING = 400  # events, of the requests there may be at once: a flood of them leaves room for others
_STORE_TIMEOUT = 9.0  # seconds from an event's arrival: Stripe waits about ten

_Waiting = tuple[Event, asyncio.Future[bool]]


class GroupCommit:
    """Stores events, each in a batch of those that were waiting with it. An idle one stores at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._under_way = 0
        self._waiting: deque[_Waiting] = deque()
        self._writers = 0
        self._is_gathering = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """How many events wait to be stored or refused."""
        return self._under_way

    async def store(self, event: Event) -> bool:
        """Store `event`; return whether it was new, once that is committed.

        Whoever stops waiting disturbs nobody: the batch is not theirs.

        Raises:
            Problem: 503, too many are waiting.
            psycopg.Error: it could not be stored, whatever else was in its batch.
            TimeoutError: it was not stored in time.
        """
        if self._under_way >= _MAX_WAITING:
            raise Problem(problems.OVERLOADED, "Send it again in a moment.", retry_after=1)
        loop = asyncio.get_running_loop()
        is_new: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(_STORE_TIMEOUT, _give_up, is_new)
        self._waiting.append((event, is_new))
        self._wake_writer()
        self._under_way += 1
        try:
            return await is_new
        finally:
            self._under_way -= 1
            timer.cancel()

    def _wake_writer(self) -> None:
        """Have a writer at work, and another for every full batch that waits for it."""
        wanted = min(1 + len(self._waiting) // _MAX_BATCH, _MAX_WRITERS)
        if self._is_gathering or self._writers >= wanted:
            return
        # The task begins after what else is ready to run, so what arrived together is stored together.
        self._is_gathering = True
        self._writers += 1
        self._start(self._write())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self) -> None:
        self._is_gathering = False
        while batch := self._next_batch():
            await self._store_batch(batch)
        # Nothing may run between finding no batch and this, or an event would wait for a writer that is gone.
        self._writers -= 1

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            event, is_new = self._waiting.popleft()
            if not is_new.done():
                batch.append((event, is_new))
        return batch

    async def _store_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            new = set(await self._store([event for event, _ in batch]))
        except Exception as error:  # noqa: BLE001  # those who wait raise it
            if len(batch) > 1 and _may_be_one_events_fault(error):
                # Each by itself, and the next batch waits for none of them.
                for one in batch:
                    self._start(self._store_batch([one]))
                return
            for _, is_new in batch:
                if not is_new.done():
                    is_new.set_exception(error)
            return
        for event, is_new in batch:
            if not is_new.done():
                is_new.set_result(event.id in new)
                new.discard(event.id)  # its double in the batch was not

    async def _store(self, events: Sequence[Event]) -> frozenset[str]:
        # After a restart of the database every connection in the pool is stale, and using one is how to find
        # out. Storing twice is storing once, so an event need not fail for it.
        for _ in range(POOL_SIZE):
            async with connect(self._pool) as conn:
                try:
                    return await store_events(conn, events)
                except psycopg.OperationalError:
                    if not conn.closed:
                        raise
        async with connect(self._pool) as conn:
            return await store_events(conn, events)


def _may_be_one_events_fault(error: Exception) -> bool:
    """Say whether the database judged a statement, rather than being away."""
    return isinstance(error, psycopg.Error) and error.sqlstate is not None


def _give_up(is_new: asyncio.Future[bool]) -> None:
    if not is_new.done():
        is_new.set_exception(TimeoutError())
