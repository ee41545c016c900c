"""The queue against a model of it, on real Postgres: random histories of enqueuers, workers and crashes.

Time is moved by the rules, not by the clock: "later" is an hour away until the rule `time_passes` has run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from provisioner.contract.queue import Kind, enqueue, nudge
from provisioner.queue_view import QueueRow, list_items
from provisioner.workqueue import LeaseLostError, WorkItem, WorkQueue, retry

KIND = Kind.INSTANCE
KEYS = st.sampled_from(["a", "b", "c"])
HOUR = timedelta(hours=1)
LEASE = timedelta(minutes=10)
Due = Literal["now", "later"] | None
T = TypeVar("T")

# What a handler's fenced transactions leave behind: proof of who was allowed to write.
_JOURNAL = (
    "CREATE TABLE journal (n bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL, epoch bigint NOT NULL)"
)


@dataclass
class Row:
    """What the model says one item is."""

    due: Due = None
    leased: bool = False
    epoch: int = 0
    seq: int = 0
    attempts: int = 0
    parked: bool = False
    error: bool = False
    expired: bool = False
    unseen: bool = False  # a cause no pass has begun after

    @property
    def claimable(self) -> bool:
        return self.due == "now" and not self.parked and not (self.leased and not self.expired)

    def holds(self, item: WorkItem) -> bool:
        return self.leased and not self.expired and self.epoch == item.epoch

    def release(self) -> None:
        self.leased = self.expired = False


@dataclass
class World:
    """The queue under test and its connection, driven from synchronous rules."""

    runner: asyncio.Runner
    pool: AsyncConnectionPool[AsyncConnection[Any]]
    queues: list[WorkQueue] = field(default_factory=list)

    def do(self, action: Callable[[], Awaitable[T]]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(10):
                return await action()

        return self.runner.run(bounded())

    def sql(self, query: str, *arguments: object) -> None:
        async def run() -> None:
            async with self.pool.connection() as conn:
                await conn.execute(query.encode(), arguments)

        self.do(run)


class QueueMachine(RuleBasedStateMachine):
    """Two workers, any number of enqueuers, and time."""

    world: World
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.world.sql("TRUNCATE work_item")
        self.world.sql("TRUNCATE journal")
        self.model: dict[str, Row] = {}
        self.journal: list[tuple[str, int]] = []

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4), later=st.booleans())
    def enqueue(self, keys: list[str], later: bool) -> None:
        due_at = datetime.now(UTC) + HOUR if later else None
        self._transact(lambda conn: enqueue(conn, KIND, *keys, due_at=due_at))
        for key in set(keys):
            row = self.model.setdefault(key, Row())
            row.due = "now" if not later or row.due == "now" else "later"
            row.seq += 1
            row.attempts = 0
            row.parked = False
            row.unseen = True

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4))
    def nudge(self, keys: list[str]) -> None:
        self._transact(lambda conn: nudge(conn, KIND, *keys))
        for key in set(keys):
            row = self.model.setdefault(key, Row())
            if row.parked:
                continue
            row.due = "now" if row.attempts == 0 else row.due
            row.seq += 1
            row.unseen = True

    @rule(key=KEYS)
    def enqueue_and_roll_back(self, key: str) -> None:
        async def attempt(conn: AsyncConnection[Any]) -> None:
            await enqueue(conn, KIND, key)
            await conn.rollback()

        self._transact(attempt)

    @rule(key=KEYS)
    def retry(self, key: str) -> None:
        existed = self._transact(lambda conn: retry(conn, KIND, key))
        assert existed == (key in self.model)
        if existed:
            row = self.model[key]
            row.due, row.attempts, row.parked = "now", 0, False
            row.seq += 1
            row.unseen = True

    @rule(target=held, worker=st.sampled_from([0, 1]), limit=st.integers(1, 3))
    def claim(self, worker: int, limit: int) -> Any:  # noqa: ANN401 -- hypothesis's own word for several results
        expected = {key for key, row in self.model.items() if row.claimable}
        items = self.world.do(lambda: self.world.queues[worker].claim(KIND, limit))
        keys = [item.key for item in items]
        assert len(set(keys)) == len(keys) == min(limit, len(expected))
        assert set(keys) <= expected
        for item in items:
            row = self.model[item.key]
            row.attempts += 1 if row.leased else 0
            row.epoch += 1
            row.leased, row.expired, row.unseen = True, False, False
            assert (item.epoch, item.seq, item.attempts) == (row.epoch, row.seq, row.attempts)
        return multiple(*items)

    @rule(item=held, worker=st.sampled_from([0, 1]))
    def extend(self, item: WorkItem, worker: int) -> None:
        extended = self.world.do(lambda: self.world.queues[worker].extend(item))
        assert extended == self.model[item.key].holds(item)

    @rule(item=held)
    def write(self, item: WorkItem) -> None:
        async def write() -> bool:
            try:
                async with self.world.queues[0].fenced(item) as conn:
                    await conn.execute(
                        "INSERT INTO journal (key, epoch) VALUES (%s, %s)", (item.key, item.epoch)
                    )
            except LeaseLostError:
                return False
            return True

        assert self.world.do(write) == self.model[item.key].holds(item)
        if self.model[item.key].holds(item):
            self.journal.append((item.key, item.epoch))

    @rule(item=held, later=st.booleans())
    def complete(self, item: WorkItem, later: bool) -> None:
        row = self.model[item.key]
        next_due = datetime.now(UTC) + HOUR if later else None
        done = self.world.do(lambda: self.world.queues[0].finish(item, next_due))
        assert done == row.holds(item)
        if done:
            row.release()
            row.attempts, row.error = 0, False
            row.due = "now" if row.seq != item.seq else "later" if later else None

    @rule(item=held)
    def fail(self, item: WorkItem) -> None:
        row = self.model[item.key]
        failed = self.world.do(lambda: self.world.queues[0].fail(item, "no answer", timedelta(minutes=30)))
        assert failed == row.holds(item)
        if failed:
            self._failed(row)

    @rule(item=held)
    def park(self, item: WorkItem) -> None:
        row = self.model[item.key]
        parked = self.world.do(lambda: self.world.queues[0].park(item, "act first"))
        assert parked == row.holds(item)
        if parked and row.seq == item.seq:
            row.release()
            row.attempts, row.error = row.attempts + 1, True
            row.due, row.parked = None, True
        elif parked:
            self._failed(row)
            # Its backoff is seconds, which the model's clock does not have.
            self.world.sql("UPDATE work_item SET due_at = now() + interval '1 hour' WHERE key = %s", item.key)

    @rule(item=held)
    def hand_back(self, item: WorkItem) -> None:
        row = self.model[item.key]
        mine = row.leased and row.epoch == item.epoch
        assert self.world.do(lambda: self.world.queues[0].hand_back(item)) == mine
        if mine:
            row.release()
            row.due = "now"

    @rule(item=consumes(held))
    def crash(self, item: WorkItem) -> None:
        """The worker dies: nobody speaks for this lease again, and it runs out."""
        if self.model[item.key].holds(item):
            self.lease_runs_out(item.key)

    @rule(key=KEYS)
    def lease_runs_out(self, key: str) -> None:
        row = self.model.get(key)
        if row and row.leased:
            row.expired = True
            self.world.sql(
                "UPDATE work_item SET lease_until = now() - interval '1 second' WHERE key = %s", key
            )

    @rule()
    def time_passes(self) -> None:
        self.world.sql("UPDATE work_item SET due_at = now() WHERE due_at > now()")
        for row in self.model.values():
            row.due = "now" if row.due == "later" else row.due

    @invariant()
    def the_table_is_as_the_model_says(self) -> None:
        now = datetime.now(UTC)
        rows: list[QueueRow] = self._transact(list_items)
        assert {row.key: self._abstract(row, now) for row in rows} == {
            key: (row.due, row.leased, row.epoch, row.seq, row.attempts, row.parked, row.error)
            for key, row in self.model.items()
        }

    @invariant()
    def invariant_9_only_holders_wrote_and_epochs_only_grew(self) -> None:
        async def read(conn: AsyncConnection[Any]) -> list[tuple[str, int]]:
            return await (await conn.execute("SELECT key, epoch FROM journal ORDER BY n")).fetchall()

        written = self._transact(read)
        assert written == self.journal
        for key in {key for key, _ in written}:
            epochs = [epoch for k, epoch in written if k == key]
            assert epochs == sorted(epochs)

    def teardown(self) -> None:
        """However the history ended: let leases run out and time pass, and every cause gets its pass."""
        for key, row in self.model.items():
            if row.leased:
                self.lease_runs_out(key)
        self.time_passes()
        for _ in range(len(self.model) + 1):
            for item in self.world.do(lambda: self.world.queues[1].claim(KIND, 10)):
                self.model[item.key].unseen = False
                assert self.world.do(partial(self.world.queues[1].finish, item))
        lost = [key for key, row in self.model.items() if row.unseen]
        assert not lost, f"causes that no pass began after: {lost}"

    def _failed(self, row: Row) -> None:
        row.release()
        row.attempts, row.error = row.attempts + 1, True
        row.due = "later"

    def _transact(self, action: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self.world.pool.connection() as conn:
                return await action(conn)

        return self.world.do(run)

    @staticmethod
    def _abstract(row: QueueRow, now: datetime) -> tuple[Due, bool, int, int, int, bool, bool]:
        ahead = None if row.due_at is None else row.due_at - now
        due: Due = None if ahead is None else "later" if ahead > timedelta(minutes=5) else "now"
        return (
            due,
            row.lease_until is not None,
            row.epoch,
            row.seq,
            row.attempts,
            row.parked_at is not None,
            row.last_error is not None,
        )


@pytest.mark.slow
def test_random_histories_agree_with_the_model(database_url: str) -> None:
    with asyncio.Runner() as runner:

        async def open_pool() -> AsyncConnectionPool[AsyncConnection[Any]]:
            pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
                database_url, min_size=1, max_size=2, open=False
            )
            await pool.open()
            return pool

        world = World(runner, runner.run(open_pool()))
        world.queues = [WorkQueue(world.pool, owner, LEASE) for owner in ("one", "two")]
        world.sql(_JOURNAL)
        machine = type("Machine", (QueueMachine,), {"world": world})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=50,
                    stateful_step_count=40,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(world.pool.close())
