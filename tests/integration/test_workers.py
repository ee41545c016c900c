"""The worker loop on a real queue: handlers that hang or fail, leases and databases that go away."""

import asyncio
import os
import signal
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool
from structlog.testing import capture_logs

from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.queue import Kind, enqueue
from provisioner.metrics import WorkerMetrics
from provisioner.queue_view import State, depths
from provisioner.workers import WorkerOptions
from provisioner.workqueue import Lease, LeaseLostError, WorkItem, WorkQueue
from tests.integration.queue_tools import LEASE, PATIENCE, Pool, Wire, put, row, run_sql, until, working

NEVER = timedelta(hours=1)
ONLY_NOTIFIED = WorkerOptions(poll=NEVER, grace=timedelta(0))


class Handlers:
    """Handlers that tell the test what happens to them."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.finished: asyncio.Queue[str] = asyncio.Queue()
        self.release = asyncio.Event()

    async def wait_for_release(self, item: WorkItem, lease: Lease) -> datetime | None:
        self.started.put_nowait(item.key)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(item.key)
            raise
        async with lease.transaction():
            self.finished.put_nowait(item.key)
        return None

    async def finish(self, item: WorkItem, lease: Lease) -> datetime | None:
        assert lease.item is item
        self.finished.put_nowait(item.key)
        return None


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


async def soon(queue: asyncio.Queue[str]) -> str:
    async with asyncio.timeout(PATIENCE):
        return await queue.get()


async def test_an_item_is_handled_and_completed(pool: Pool, database_url: str, handlers: Handlers) -> None:
    async with working(pool, database_url, handlers.finish):
        await put(pool, "a")
        assert await soon(handlers.finished) == "a"
        await until(lambda: is_state(pool, "a", State.IDLE))


async def is_state(pool: Pool, key: str, state: State) -> bool:
    return (await row(pool, key)).state == state


@pytest.mark.parametrize("breakage", ["hangs", "raises", "temporary", "permanent"])
async def test_invariant_10_one_broken_item_delays_no_other(
    pool: Pool, database_url: str, handlers: Handlers, breakage: str
) -> None:
    async def handle(item: WorkItem, lease: Lease) -> datetime | None:
        if item.key != "broken":
            return await handlers.finish(item, lease)
        handlers.started.put_nowait(item.key)
        match breakage:
            case "hangs":
                await asyncio.Event().wait()
            case "temporary":
                raise TemporaryError("later")
            case "permanent":
                raise PermanentError("never")
        raise RuntimeError

    await put(pool, "broken")
    others = [f"k{n:02}" for n in range(20)]
    options = WorkerOptions(concurrency=2, grace=timedelta(0))
    async with working(pool, database_url, handle, options=options):
        assert await soon(handlers.started) == "broken"
        await put(pool, *others)
        assert sorted([await soon(handlers.finished) for _ in others]) == others


async def test_a_kind_that_hangs_in_all_its_slots_delays_no_other_kind(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    one_slot = WorkerOptions(concurrency=1, grace=timedelta(0))
    async with (
        working(pool, database_url, handlers.wait_for_release, kind=Kind.EMAIL, options=one_slot),
        working(pool, database_url, handlers.finish, kind=Kind.INSTANCE, options=one_slot),
    ):
        await put(pool, "mail", kind=Kind.EMAIL)
        assert await soon(handlers.started) == "mail"
        await put(pool, "a")
        assert await soon(handlers.finished) == "a"


async def test_a_lost_lease_cancels_its_handler_and_nothing_is_recorded(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    lease = timedelta(milliseconds=900)
    async with working(pool, database_url, handlers.wait_for_release, lease=lease):
        await put(pool, "a")
        await soon(handlers.started)
        await run_sql(
            pool,
            "UPDATE work_item SET epoch = epoch + 1, lease_owner = 'b', lease_until = now() + '1 h'",
        )
        taken = await row(pool, "a")
        assert await soon(handlers.cancelled) == "a"
    assert await row(pool, "a") == taken
    assert handlers.finished.empty()


async def test_a_handler_that_finds_its_lease_lost_records_nothing(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    async def handle(item: WorkItem, lease: Lease) -> datetime | None:
        await run_sql(pool, "UPDATE work_item SET epoch = epoch + 1, lease_owner = 'b'")
        try:
            async with lease.transaction():
                handlers.finished.put_nowait(item.key)
        except LeaseLostError:
            handlers.cancelled.put_nowait(item.key)
            raise
        return None

    async with working(pool, database_url, handle):
        await put(pool, "a")
        assert await soon(handlers.cancelled) == "a"
    left = await row(pool, "a")
    assert (left.lease_owner, left.last_error, left.state) == ("b", None, State.RUNNING)


async def test_a_handler_keeps_its_lease_for_longer_than_one_lease(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    lease = timedelta(milliseconds=900)
    async with working(pool, database_url, handlers.wait_for_release, lease=lease):
        await put(pool, "a")
        await soon(handlers.started)
        first = (await row(pool, "a")).lease_until
        assert first is not None
        await until(lambda: extended_beyond(pool, first + 2 * lease))
        handlers.release.set()
        assert await soon(handlers.finished) == "a"
        await until(lambda: is_state(pool, "a", State.IDLE))
    assert (await row(pool, "a")).epoch == 1


async def extended_beyond(pool: Pool, moment: datetime) -> bool:
    until_ = (await row(pool, "a")).lease_until
    return until_ is not None and until_ > moment


async def test_shutdown_hands_back_what_still_runs(pool: Pool, database_url: str, handlers: Handlers) -> None:
    async with working(pool, database_url, handlers.wait_for_release):
        await put(pool, "a")
        await soon(handlers.started)
    assert await soon(handlers.cancelled) == "a"
    back = await row(pool, "a")
    assert (back.state, back.lease_until, back.lease_owner, back.epoch) == (State.DUE, None, None, 1)
    assert (back.attempts, back.last_error) == (0, None)
    (again,) = await WorkQueue(pool, "other", LEASE).claim(Kind.INSTANCE, 1)
    assert again.epoch == 2


async def test_shutdown_lets_a_handler_finish_within_the_grace_and_claims_nothing_new(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    options = WorkerOptions(concurrency=1, grace=timedelta(seconds=PATIENCE))

    async def handle(item: WorkItem, lease: Lease) -> datetime | None:
        handlers.started.put_nowait(item.key)
        await put(pool, "b")
        await handlers.release.wait()
        return await handlers.finish(item, lease)

    async with working(pool, database_url, handle, options=options):
        await put(pool, "a")
        await soon(handlers.started)
        asyncio.get_running_loop().call_later(0.2, handlers.release.set)
    assert await is_state(pool, "a", State.IDLE)
    assert (await row(pool, "b")).epoch == 0


async def test_invariant_8_an_item_whose_worker_was_killed_is_done_by_another(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    await put(pool, "a")
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.claim_and_hang",
        env={**os.environ, "BERTH_DATABASE_URL": database_url}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert victim.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await victim.stdout.readline() == b"claimed a epoch 1\n"
    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    async with working(pool, database_url, handlers.finish):
        assert await soon(handlers.finished) == "a"
        await until(lambda: is_state(pool, "a", State.IDLE))
    assert (await row(pool, "a")).epoch == 2


async def test_a_notification_wakes_a_worker_that_would_not_poll_for_an_hour(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    async with working(pool, database_url, handlers.finish, options=ONLY_NOTIFIED) as workers:
        async with asyncio.timeout(PATIENCE):
            await workers.doorbell.connected.wait()
        for key in ("a", "b"):
            await put(pool, key)
            assert await soon(handlers.finished) == key
            await until(partial(is_state, pool, key, State.IDLE))


async def test_the_doorbell_comes_back_after_its_connection_was_cut(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    async with working(pool, database_url, handlers.finish, options=ONLY_NOTIFIED) as workers:
        bell = workers.doorbell.connected
        async with asyncio.timeout(PATIENCE):
            await bell.wait()
            await run_sql(
                pool,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'berth doorbell' AND datname = current_database()",
            )
            await until(lambda: is_clear(bell))
            await bell.wait()
        await put(pool, "a")
        assert await soon(handlers.finished) == "a"


async def is_clear(event: asyncio.Event) -> bool:
    return not event.is_set()


async def test_without_any_notification_polling_finds_the_item(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    options = WorkerOptions(poll=timedelta(milliseconds=100), grace=timedelta(0))
    deaf = make_conninfo(database_url, dbname="absent")
    async with working(pool, deaf, handlers.finish, options=options):
        await put(pool, "a")
        assert await soon(handlers.finished) == "a"


async def test_an_item_due_later_is_handled_at_its_time_not_at_the_next_poll(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    async with working(pool, database_url, handlers.finish, options=ONLY_NOTIFIED):
        due = datetime.now(UTC) + timedelta(seconds=0.7)
        async with pool.connection() as conn:
            await enqueue(conn, Kind.INSTANCE, "a", due_at=due)
        await soon(handlers.finished)
        assert timedelta(0) <= datetime.now(UTC) - due < timedelta(seconds=5)


async def test_an_item_something_happened_to_runs_again_without_waiting_for_a_poll(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    passes = Counter[str]()

    async def handle(item: WorkItem, lease: Lease) -> datetime | None:
        passes[item.key] += 1
        if passes[item.key] == 1:
            async with lease.transaction() as conn:
                await conn.execute(
                    "UPDATE work_item SET seq = seq + 1"
                )  # as an enqueue whose NOTIFY was lost
            return None
        return await handlers.finish(item, lease)

    async with working(pool, database_url, handle, options=ONLY_NOTIFIED):
        await put(pool, "a")
        await soon(handlers.finished)
    assert passes["a"] == 2


async def test_a_pass_has_a_time_limit(pool: Pool, database_url: str, handlers: Handlers) -> None:
    options = WorkerOptions(time_limit=timedelta(milliseconds=200), grace=timedelta(0))
    async with working(pool, database_url, handlers.wait_for_release, options=options):
        await put(pool, "a")
        assert await soon(handlers.cancelled) == "a"
        await until(lambda: has_failed(pool, "a"))
    failed = await row(pool, "a")
    assert failed.last_error == "gave up after 0.2 s: something it waits for does not answer"


async def has_failed(pool: Pool, key: str) -> bool:
    return (await row(pool, key)).last_error is not None


@pytest.mark.parametrize(
    ("error", "state", "sentence"),
    [
        (TemporaryError("Stripe answered 429", timedelta(minutes=2)), State.WAITING, "Stripe answered 429"),
        (PermanentError("no such price: add it"), State.PARKED, "no such price: add it"),
        (
            ExceptionGroup("x", [ExceptionGroup("y", [PermanentError("no such price: add it")])]),
            State.PARKED,
            "no such price: add it",
        ),
    ],
)
async def test_a_handlers_error_decides_what_becomes_of_the_item(
    pool: Pool, database_url: str, error: Exception, state: State, sentence: str
) -> None:
    async def handle(_item: WorkItem, _lease: Lease) -> datetime | None:
        raise error

    async with working(pool, database_url, handle):
        await put(pool, "a")
        await until(lambda: is_state(pool, "a", state))
    left = await row(pool, "a")
    assert left.last_error == sentence
    assert left.attempts == 1


async def test_invariant_6_an_unexpected_errors_text_is_neither_kept_nor_logged(
    pool: Pool, database_url: str
) -> None:
    async def handle(_item: WorkItem, _lease: Lease) -> datetime | None:
        raise RuntimeError("sk_live_secret")

    with capture_logs() as logs:
        async with working(pool, database_url, handle):
            await put(pool, "a")
            await until(lambda: has_failed(pool, "a"))
    error = (await row(pool, "a")).last_error
    assert error is not None
    assert error.startswith("defect: RuntimeError at test_workers.py:")
    assert [entry["error"] for entry in logs if entry["log_level"] == "error"] == ["RuntimeError"]
    assert "secret" not in f"{error} {logs}"


async def test_a_database_outage_is_survived_and_the_pass_it_hit_is_recorded(
    pool: Pool, database_url: str, handlers: Handlers
) -> None:
    wire = Wire(database_url)
    await wire.mend()
    async with AsyncConnectionPool(wire.url, min_size=1, max_size=4, timeout=0.5, open=False) as fragile:

        async def handle(item: WorkItem, lease: Lease) -> datetime | None:
            handlers.started.put_nowait(item.key)
            await handlers.release.wait()
            return await handlers.finish(item, lease)

        async with working(fragile, wire.url, handle):
            await put(pool, "a")
            await soon(handlers.started)
            await wire.cut()
            handlers.release.set()
            assert await soon(handlers.finished) == "a"
            await put(pool, "b")
            assert await is_state(pool, "a", State.RUNNING)
            await wire.mend()
            await until(lambda: is_state(pool, "a", State.IDLE))
            await until(lambda: is_state(pool, "b", State.IDLE))
        assert (await row(pool, "a")).epoch == 1, "the pass was recorded, not repeated"
        await wire.cut()


async def test_the_metrics_tell_what_happened(pool: Pool, database_url: str) -> None:
    async def handle(item: WorkItem, _lease: Lease) -> datetime | None:
        match item.key:
            case "parked":
                raise PermanentError("no")
            case "failed":
                raise TemporaryError("later", timedelta(hours=1))
        return None

    async with working(pool, database_url, handle) as workers:
        await put(pool, "parked", "failed", "done")
        await until(lambda: is_state(pool, "parked", State.PARKED))
        await until(lambda: is_state(pool, "failed", State.WAITING))
        await until(lambda: is_state(pool, "done", State.IDLE))
    counted = {
        sample.labels["outcome"]: sample.value
        for metric in workers.metrics.outcomes.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert counted == {"parked": 1, "failed": 1, "completed": 1}


async def test_the_gauges_show_what_the_database_holds(pool: Pool) -> None:
    await put(pool, "a", "b")
    registry = CollectorRegistry()
    async with pool.connection() as conn:
        WorkerMetrics(registry).observe(await depths(conn))
    assert b'berth_work_items{kind="instance",state="due"} 2.0' in generate_latest(registry)
