"""Every fence of the work queue has a test here that fails without it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import chain

import psycopg
import pytest

from provisioner.contract.queue import Kind, enqueue, nudge
from provisioner.queue_view import State, depths, list_items
from provisioner.workqueue import ERROR_LENGTH, LeaseLostError, WorkItem, WorkQueue, retry
from tests.integration.queue_tools import LEASE, PATIENCE, Pool, expire_lease, put, row, run_sql

KIND = Kind.INSTANCE
SECOND = timedelta(seconds=1)


@pytest.fixture
def queue(pool: Pool) -> WorkQueue:
    return WorkQueue(pool, "one", LEASE)


@pytest.fixture
def other(pool: Pool) -> WorkQueue:
    return WorkQueue(pool, "other", LEASE)


async def claim_one(queue: WorkQueue, key: str = "a") -> WorkItem:
    (item,) = await queue.claim(KIND, 10)
    assert item.key == key
    return item


def soon(moment: datetime | None) -> bool:
    return moment is not None and abs(moment - datetime.now(UTC)) < timedelta(seconds=5)


async def test_five_enqueues_of_one_object_are_one_item_with_one_claim(pool: Pool, queue: WorkQueue) -> None:
    for _ in range(5):
        await put(pool, "a", "a")
    item = await claim_one(queue)
    assert item.seq == 5
    assert await queue.claim(KIND, 10) == []


async def test_an_enqueue_pulls_the_due_time_forward_and_never_back(pool: Pool, queue: WorkQueue) -> None:
    now = datetime.now(UTC)
    dues = []
    for wish in (now + 9 * SECOND, now + 5 * SECOND, now + 7 * SECOND):
        async with pool.connection() as conn:
            await enqueue(conn, KIND, "a", due_at=wish)
        dues.append((await row(pool, "a")).due_at)
    assert dues == [now + 9 * SECOND, now + 5 * SECOND, now + 5 * SECOND]
    assert await queue.claim(KIND, 1) == []


async def test_an_enqueue_lives_and_dies_with_the_transaction_that_causes_it(
    pool: Pool, queue: WorkQueue
) -> None:
    async with pool.connection() as conn:
        await enqueue(conn, KIND, "a")
        assert await queue.claim(KIND, 1) == []
        await conn.rollback()
    assert await queue.claim(KIND, 1) == []


async def test_transactions_that_enqueue_the_same_objects_in_any_order_do_not_deadlock(pool: Pool) -> None:
    keys = [f"k{n}" for n in range(40)]

    async def one(order: list[str]) -> None:
        for _ in range(25):
            async with pool.connection() as conn:
                await enqueue(conn, KIND, *order)
                await nudge(conn, KIND, *order)

    await asyncio.gather(one(keys), one(keys[::-1]), one(keys[::2] + keys[1::2]))
    assert (await row(pool, "k0")).seq == 150


async def test_two_workers_claim_past_each_other_without_waiting(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a", "b")
    async with pool.connection() as conn:
        await conn.execute("SELECT 1 FROM work_item WHERE key = 'a' FOR UPDATE")
        async with asyncio.timeout(PATIENCE):
            assert [item.key for item in await queue.claim(KIND, 10)] == ["b"]


async def test_many_workers_claim_each_item_exactly_once(pool: Pool) -> None:
    await put(pool, *(f"k{n}" for n in range(100)))

    async def work(owner: str) -> list[str]:
        mine: list[str] = []
        while items := await WorkQueue(pool, owner, LEASE).claim(KIND, 7):
            mine += [item.key for item in items]
        return mine

    claimed = await asyncio.gather(*(work(f"w{n}") for n in range(6)))
    assert sorted(chain.from_iterable(claimed)) == sorted(f"k{n}" for n in range(100))


async def test_what_has_been_due_longest_is_claimed_first(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a", "b", "c")
    await run_sql(pool, "UPDATE work_item SET due_at = now() - interval '1 hour' WHERE key = 'b'")
    assert [item.key for item in await queue.claim(KIND, 1)] == ["b"]


async def test_kinds_are_claimed_apart(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a", kind=Kind.EMAIL)
    assert await queue.claim(KIND, 1) == []
    assert len(await queue.claim(Kind.EMAIL, 1)) == 1


async def stale_writes(queue: WorkQueue, item: WorkItem) -> dict[str, bool]:
    """What each write of a lease's holder says."""
    return {
        "extend": await queue.extend(item),
        "complete": await queue.finish(item),
        "fail": await queue.fail(item, "stale"),
        "park": await queue.park(item, "stale"),
    }


async def test_invariant_9_a_worker_whose_item_was_claimed_by_another_records_nothing(
    pool: Pool, queue: WorkQueue, other: WorkQueue
) -> None:
    await put(pool, "a")
    item = await claim_one(queue)
    await expire_lease(pool, "a")
    await claim_one(other)
    before = await row(pool, "a")
    assert not any((await stale_writes(queue, item)).values())
    assert not await queue.hand_back(item)
    with pytest.raises(LeaseLostError):
        async with queue.fenced(item) as conn:
            await enqueue(conn, KIND, "never")
    assert await row(pool, "a") == before
    async with pool.connection() as conn:
        assert len(await list_items(conn)) == 1


async def test_invariant_9_a_worker_whose_lease_ran_out_records_nothing_though_nobody_else_came(
    pool: Pool, queue: WorkQueue
) -> None:
    await put(pool, "a")
    item = await claim_one(queue)
    await expire_lease(pool, "a")
    before = await row(pool, "a")
    assert not any((await stale_writes(queue, item)).values())
    with pytest.raises(LeaseLostError):
        async with queue.fenced(item):
            pass
    assert await row(pool, "a") == before


async def test_invariant_9_nobody_claims_an_item_while_its_holder_is_writing(
    pool: Pool, other: WorkQueue
) -> None:
    queue = WorkQueue(pool, "one", timedelta(milliseconds=300))
    await put(pool, "a")
    item = await claim_one(queue)
    async with queue.fenced(item) as conn:
        await conn.execute("SELECT pg_sleep(0.4)")
        assert await other.claim(KIND, 1) == []
    assert (await claim_one(other)).epoch == 2


async def test_invariant_9_a_lease_that_runs_out_while_waiting_for_the_row_is_lost(pool: Pool) -> None:
    queue = WorkQueue(pool, "one", timedelta(milliseconds=500))
    await put(pool, "a")
    item = await claim_one(queue)

    async def write() -> None:
        async with queue.fenced(item):
            pass

    async with pool.connection() as conn:
        await conn.execute("SELECT 1 FROM work_item WHERE key = 'a' FOR UPDATE")
        writing = asyncio.create_task(write())
        await conn.execute("SELECT pg_sleep(0.7)")
    with pytest.raises(LeaseLostError):
        await writing


async def test_a_fenced_transaction_commits_all_or_nothing(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    item = await claim_one(queue)

    async def break_off() -> None:
        async with queue.fenced(item) as conn:
            await enqueue(conn, KIND, "b")
            await conn.execute("SELECT 1/0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await break_off()
    async with queue.fenced(item) as conn:
        await enqueue(conn, KIND, "c")
    async with pool.connection() as conn:
        assert [r.key for r in await list_items(conn)] == ["a", "c"]


async def test_a_completed_item_is_idle_and_its_failures_forgotten(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    await queue.fail(await claim_one(queue), "no answer")
    await put(pool, "a")
    assert await queue.finish(await claim_one(queue))
    done = await row(pool, "a")
    assert (done.state, done.due_at, done.attempts, done.last_error, done.lease_owner) == (
        State.IDLE, None, 0, None, None,
    )  # fmt: skip


async def test_a_completed_item_is_due_next_when_its_handler_says(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await queue.finish(await claim_one(queue), later)
    assert (await row(pool, "a")).due_at == later


@pytest.mark.parametrize("cause", [enqueue, nudge], ids=["enqueue", "nudge"])
async def test_an_item_something_happened_to_during_its_pass_is_due_at_once(
    pool: Pool, queue: WorkQueue, cause: Callable[..., Awaitable[None]]
) -> None:
    await put(pool, "a")
    item = await claim_one(queue)
    async with pool.connection() as conn:
        await cause(conn, KIND, "a")
    assert await queue.claim(KIND, 1) == []
    assert await queue.finish(item, datetime.now(UTC) + timedelta(hours=1))
    assert (await claim_one(queue)).seq == 2


async def test_backoff_doubles_under_a_cap_with_full_jitter(pool: Pool, queue: WorkQueue) -> None:
    delays: dict[int, list[float]] = {}
    for attempts in (0, 3, 8, 9, 40, 2_000_000_000):
        keys = [f"k{attempts}-{n}" for n in range(30)]
        await put(pool, *keys)
        await run_sql(pool, "UPDATE work_item SET attempts = %s WHERE key = ANY(%s)", attempts, keys)
        for item in await queue.claim(KIND, 30):
            before = datetime.now(UTC)
            assert await queue.fail(item, "no answer")
            failed = await row(pool, item.key)
            assert failed.attempts == attempts + 1
            assert failed.due_at is not None
            delays.setdefault(attempts, []).append((failed.due_at - before).total_seconds())
        await run_sql(pool, "DELETE FROM work_item")
    ceilings = {attempts: max(found) for attempts, found in delays.items()}
    # 30 draws all under half of the range: once in a billion runs.
    assert 0.5 < ceilings[0] < 1.5
    assert 4 < ceilings[3] < 9
    assert 128 < ceilings[8] < 257
    for capped in (9, 40, 2_000_000_000):
        assert 150 < ceilings[capped] < 301
    assert min(delays[40]) < 150, "jitter is over the whole range"


async def test_retry_after_is_a_minimum_with_a_bound(pool: Pool, queue: WorkQueue) -> None:
    for wish, least, most in ((60, 59, 62), (10**9, 3590, 3610)):
        await put(pool, "a")
        now = datetime.now(UTC)
        await queue.fail(await claim_one(queue), "429", timedelta(seconds=wish))
        due = (await row(pool, "a")).due_at
        assert due is not None
        assert least < (due - now).total_seconds() < most


async def test_a_nudge_does_not_shorten_a_backoff_but_an_outside_cause_ends_it(
    pool: Pool, queue: WorkQueue
) -> None:
    await put(pool, "a")
    await queue.fail(await claim_one(queue), "429", timedelta(minutes=1))
    waiting = (await row(pool, "a")).due_at
    async with pool.connection() as conn:
        await nudge(conn, KIND, "a")
    assert (await row(pool, "a")).due_at == waiting
    await put(pool, "a")
    assert (await claim_one(queue)).attempts == 0


async def test_a_nudge_makes_an_idle_or_waiting_item_due(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    for next_due in (None, datetime.now(UTC) + timedelta(hours=1)):
        await queue.finish(await claim_one(queue), next_due)
        async with pool.connection() as conn:
            await nudge(conn, KIND, "a")
    assert await claim_one(queue)


async def test_a_spread_nudge_scatters_due_times(pool: Pool, queue: WorkQueue) -> None:
    keys = [f"k{n}" for n in range(40)]
    async with pool.connection() as conn:
        await nudge(conn, KIND, *keys, spread=timedelta(hours=1))
    ahead = [
        (r.due_at - datetime.now(UTC)).total_seconds() for key in keys if (r := await row(pool, key)).due_at
    ]
    assert len(set(ahead)) == 40
    assert min(ahead) < 1800 < max(ahead) < 3600
    assert await queue.claim(KIND, 40) == [] or min(ahead) < 1


async def test_a_parked_item_waits_for_a_person_through_nudges(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    assert await queue.park(await claim_one(queue), "price 'x' is unknown: add it")
    parked = await row(pool, "a")
    async with pool.connection() as conn:
        await nudge(conn, KIND, "a")
    assert await row(pool, "a") == parked
    assert (parked.state, parked.last_error) == (State.PARKED, "price 'x' is unknown: add it")
    assert await queue.claim(KIND, 1) == []
    async with pool.connection() as conn:
        assert await retry(conn, KIND, "a")
        assert not await retry(conn, KIND, "b")
    assert (await claim_one(queue)).attempts == 0


async def test_an_outside_cause_revives_a_parked_item(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    await queue.park(await claim_one(queue), "no")
    await put(pool, "a")
    assert await claim_one(queue)


async def test_an_item_something_happened_to_is_not_parked_but_tried_again(
    pool: Pool, queue: WorkQueue
) -> None:
    await put(pool, "a")
    item = await claim_one(queue)
    await put(pool, "a")
    assert await queue.park(item, "no")
    tried = await row(pool, "a")
    assert (tried.parked_at, tried.attempts, tried.last_error) == (None, 1, "no")
    assert soon(tried.due_at)


async def test_an_item_handed_back_is_due_now_and_its_epoch_still_grows(
    pool: Pool, queue: WorkQueue, other: WorkQueue
) -> None:
    await put(pool, "a")
    item = await claim_one(queue)
    assert await queue.hand_back(item)
    assert not any((await stale_writes(queue, item)).values()), "a lease handed back is gone"
    assert not await queue.hand_back(item)
    assert (await claim_one(other)).epoch == item.epoch + 1


async def test_the_epoch_never_falls_or_repeats(pool: Pool, queue: WorkQueue) -> None:
    epochs = []
    for end in ("finish", "fail", "park", "hand_back", "expire", "finish"):
        await put(pool, "a")
        item = await claim_one(queue)
        epochs.append(item.epoch)
        match end:
            case "finish":
                await queue.finish(item)
            case "expire":
                await expire_lease(pool, "a")
            case "hand_back":
                await queue.hand_back(item)
            case "fail":
                await queue.fail(item, "x")
            case _:
                await queue.park(item, "x")
    assert epochs == [1, 2, 3, 4, 5, 6]


async def test_an_extended_lease_runs_its_full_time_again(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    item = await claim_one(queue)
    await run_sql(pool, "UPDATE work_item SET lease_until = now() + interval '1 second'")
    assert await queue.extend(item)
    extended = (await row(pool, "a")).lease_until
    assert extended is not None
    assert extended >= item.lease_until


async def test_a_lease_that_ran_out_counts_as_an_attempt(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    await claim_one(queue)
    await expire_lease(pool, "a")
    assert (await claim_one(queue)).attempts == 1


async def test_errors_are_kept_to_a_length_postgres_and_people_can_take(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "a")
    await queue.fail(await claim_one(queue), "x\0" * 10_000)
    kept = (await row(pool, "a")).last_error
    assert kept is not None
    assert len(kept) == ERROR_LENGTH
    assert kept.endswith("x…")


async def test_wait_says_when_the_next_item_can_be_claimed(pool: Pool, queue: WorkQueue) -> None:
    assert await queue.wait(KIND) is None
    async with pool.connection() as conn:
        await enqueue(conn, KIND, "a", due_at=datetime.now(UTC) + timedelta(minutes=2))
    ahead = await queue.wait(KIND)
    assert ahead is not None
    assert 110 < ahead.total_seconds() <= 120
    await put(pool, "a")
    assert await queue.wait(KIND) == timedelta(0)
    await claim_one(queue)
    leased = await queue.wait(KIND)
    assert leased is not None
    assert 20 < leased.total_seconds() <= 30


async def test_the_view_counts_states(pool: Pool, queue: WorkQueue) -> None:
    await put(pool, "parked")
    await queue.park(await claim_one(queue, "parked"), "no")
    await put(pool, "running")
    await claim_one(queue, "running")
    await put(pool, "due")
    await run_sql(pool, "UPDATE work_item SET due_at = now() - interval '9 seconds' WHERE key = 'due'")
    async with pool.connection() as conn:
        await enqueue(conn, KIND, "waiting", due_at=datetime.now(UTC) + timedelta(hours=1))
        (depth,) = await depths(conn)
        assert (depth.parked, depth.running, depth.due, depth.waiting) == (1, 1, 1, 1)
        assert 9 <= depth.oldest_due < 60
        assert [r.key for r in await list_items(conn)] == ["parked", "due", "running", "waiting"]
        assert [r.key for r in await list_items(conn, state=State.PARKED)] == ["parked"]
        assert len(await list_items(conn, limit=2)) == 2
        assert await list_items(conn, kind=Kind.EMAIL) == []
