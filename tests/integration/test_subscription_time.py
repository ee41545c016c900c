"""What time does to a subscription: Stripe's own times decide, in the time the subscription lives in."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalogue.loader import load_catalogue
from provisioner.contract.queue import Kind, enqueue
from provisioner.contract.spec import Desired
from provisioner.queue_view import QueueRow
from provisioner.subscriptions import SubscriptionHandler
from provisioner.workqueue import WorkQueue
from tests.integration.canned_stripe import invoice, items, subscription, telling
from tests.integration.queue_tools import LEASE, Pool, one_pass, row, run_sql
from tests.integration.settled import everything, mails, only, timeline
from tests.integration.shop import FAILS_LATER, OFFER, STARTER, open_shop

BEGIN = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANT = timedelta(seconds=1)
ABOUT = {"title": "MindRoom", "plan": "Starter"}


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


@dataclass
class Life:
    """A subscription on a test clock, and our side of it."""

    pool: Pool
    handler: SubscriptionHandler
    said: dict[str, dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    async def at(self, now: datetime, **changes: Any) -> QueueRow:  # noqa: ANN401 -- JSON
        """Stripe says `changes`, its clock says `now`, and a worker makes two passes; what is left to do."""
        self.facts |= changes
        clock = {"id": "clock_1", "object": "test_helpers.test_clock", "frozen_time": unix(now)}
        self.said["sub_1"] = subscription(test_clock=clock, items=items(STARTER), **self.facts)
        for _ in range(2):
            async with self.pool.connection() as conn:
                await enqueue(conn, Kind.SUBSCRIPTION, "sub_1")
            await one_pass(WorkQueue(self.pool, "test", LEASE), Kind.SUBSCRIPTION, self.handler.handle)
        left = await row(self.pool, "sub_1", Kind.SUBSCRIPTION)
        assert left.last_error is None
        return left

    async def desired(self) -> Desired:
        return (await only(self.pool)).spec.desired


@pytest.fixture
async def life(pool: Pool) -> AsyncIterator[Life]:
    await run_sql(
        pool,
        "INSERT INTO customer (id, email, name, stripe_customer_id) VALUES ('c', 'a@b', 'A', 'cus_1')",
    )
    said: dict[str, dict[str, Any]] = {}
    async with telling(said) as client:
        yield Life(pool, SubscriptionHandler(client, load_catalogue, OFFER), said)


async def test_a_trial_is_reminded_of_its_end_once_and_becomes_paid(pool: Pool, life: Life) -> None:
    end = BEGIN + 14 * DAY
    waiting = await life.at(BEGIN, status="trialing", trial_end=unix(end))
    assert waiting.due_at is not None, "the reminder lies ahead"
    await life.at(end - 3 * DAY - INSTANT)
    assert await mails(pool) == []
    done = await life.at(end - 3 * DAY)
    assert await mails(pool) == [("trial-ending", ABOUT | {"ends_on": "15 July 2026"})]
    assert done.due_at is None
    await life.at(end, status="active")
    assert len(await mails(pool)) == 1
    assert await timeline(pool) == ["Created", "Active"]


async def test_a_trial_that_was_cancelled_is_not_told_that_it_will_be_charged(pool: Pool, life: Life) -> None:
    end = BEGIN + 3 * DAY
    await life.at(BEGIN, status="trialing", trial_end=unix(end), cancel_at=unix(end))
    assert await mails(pool) == []


async def test_a_failed_payment_runs_through_its_grace_then_suspends_and_a_payment_brings_it_back(
    pool: Pool, life: Life
) -> None:
    await life.at(BEGIN)
    failed = BEGIN + 31 * DAY
    first = invoice("in_2", "open", unix(failed))
    waiting = await life.at(failed + DAY, status="past_due", latest_invoice=first)
    told = ABOUT | {"amount": "29.00 USD", "suspended_on": "8 August 2026"}
    assert await mails(pool) == [("payment-failed", told)]
    assert waiting.due_at is not None
    assert await life.desired() is Desired.RUNNING
    await life.at(failed + 7 * DAY - INSTANT)
    assert await life.desired() is Desired.RUNNING
    over = await life.at(failed + 7 * DAY)
    assert await life.desired() is Desired.SUSPENDED
    assert over.due_at is None
    reason = "a payment failed and the grace period is over"
    assert (await mails(pool))[1:] == [("suspended", ABOUT | {"reason": reason, "deleted_on": ""})]
    await life.at(failed + 9 * DAY, status="active", latest_invoice=invoice("in_2", "paid", unix(failed)))
    assert await life.desired() is Desired.RUNNING
    again = failed + 31 * DAY
    await life.at(again, status="past_due", latest_invoice=invoice("in_3", "open", unix(again)))
    assert await life.desired() is Desired.RUNNING, "a new failure has its whole grace again"
    assert [template for template, _ in await mails(pool)][2:] == ["payment-failed"]
    assert await timeline(pool) == ["Created", "PastDue", "Suspending", "Resuming", "PastDue"]


async def test_a_failure_whose_payment_we_never_heard_of_has_its_whole_grace_again(life: Life) -> None:
    first, second = BEGIN + 31 * DAY, BEGIN + 62 * DAY
    await life.at(BEGIN)
    await life.at(first, status="past_due", latest_invoice=invoice("in_2", "open", unix(first)))
    await life.at(second, latest_invoice=invoice("in_3", "open", unix(second)))
    assert await life.desired() is Desired.RUNNING


async def test_data_is_kept_for_the_retention_announced_twice_and_then_given_up(
    pool: Pool, life: Life
) -> None:
    await life.at(BEGIN)
    end = BEGIN + 10 * DAY
    delete_at = end + 30 * DAY
    await life.at(BEGIN + DAY, cancel_at_period_end=True)
    assert await life.desired() is Desired.RUNNING
    await life.at(end + DAY, status="canceled", cancel_at_period_end=False, ended_at=unix(end))
    kept = await only(pool)
    assert (kept.spec.desired, kept.delete_at) == (Desired.SUSPENDED, delete_at)
    on = {"deleted_on": "10 August 2026"}
    expected = [("suspended", ABOUT | on | {"reason": "the subscription ended"})]
    assert await mails(pool) == expected
    for left, days in ((7 * DAY, "7"), (2 * DAY, None), (DAY, "1"), (INSTANT, None)):
        assert (await life.at(delete_at - left)).due_at is not None
        if days:
            expected.append(("deletion-soon", ABOUT | on | {"days": days}))
        assert await mails(pool) == expected
        assert await life.desired() is Desired.SUSPENDED
    assert (await life.at(delete_at)).due_at is None
    assert await life.desired() is Desired.DELETED
    assert await mails(pool) == expected
    assert await timeline(pool) == ["Created", "Ending", "Suspending", "RetentionOver"]


async def test_who_slept_through_the_retention_is_announced_the_nearest_only(pool: Pool, life: Life) -> None:
    await life.at(BEGIN)
    await life.at(BEGIN + 29 * DAY + DAY / 2, status="canceled", ended_at=unix(BEGIN))
    (_, (template, data)) = await mails(pool)
    assert (template, data["days"]) == ("deletion-soon", "1")


async def test_nothing_is_deleted_under_review_even_when_deletion_was_owed_already(
    pool: Pool, life: Life
) -> None:
    late = BEGIN + 400 * DAY
    await life.at(BEGIN)
    await life.at(late, status="canceled", ended_at=unix(BEGIN))
    assert await life.desired() is Desired.DELETED
    await run_sql(pool, "UPDATE subscription SET review_since = now(), review_reason = 'a dispute'")
    assert (await life.at(late)).due_at is None
    reviewed = await only(pool)
    assert (reviewed.spec.desired, reviewed.delete_at) == (Desired.SUSPENDED, None)
    await run_sql(pool, "UPDATE subscription SET review_since = NULL")
    await life.at(late)
    assert await life.desired() is Desired.DELETED


@pytest.mark.parametrize("phase", ["deleting", "deleted"])
async def test_a_deletion_that_has_begun_is_not_taken_back(pool: Pool, life: Life, phase: str) -> None:
    await life.at(BEGIN)
    await life.at(BEGIN + 400 * DAY, status="canceled", ended_at=unix(BEGIN))
    await run_sql(pool, "UPDATE instance SET phase = %s", phase)
    before = await only(pool)
    await life.at(BEGIN + 400 * DAY, status="active", ended_at=None)
    assert await only(pool) == before


async def test_without_a_test_clock_the_databases_time_decides_and_is_waited_for(
    pool: Pool, life: Life
) -> None:
    await life.at(BEGIN)
    now = datetime.now(UTC).replace(microsecond=0)
    ended = now - 20 * DAY
    life.said["sub_1"] = subscription(items=items(STARTER), status="canceled", ended_at=unix(ended))
    async with pool.connection() as conn:
        await enqueue(conn, Kind.SUBSCRIPTION, "sub_1")
    await one_pass(WorkQueue(pool, "test", LEASE), Kind.SUBSCRIPTION, life.handler.handle)
    assert (await row(pool, "sub_1", Kind.SUBSCRIPTION)).due_at == ended + 23 * DAY, "the first reminder"
    assert (await only(pool)).delete_at == ended + 30 * DAY


async def test_a_test_clock_is_looked_at_again_soon_while_its_time_may_change_something(life: Life) -> None:
    future = BEGIN + 10_000 * DAY
    assert (await life.at(future)).due_at is None
    waiting = await life.at(future + DAY, status="canceled", ended_at=unix(future + DAY))
    assert waiting.due_at is not None
    assert waiting.due_at <= datetime.now(UTC) + timedelta(seconds=15), "of our time, not of the clock's"


async def test_a_whole_life_on_a_test_clock_of_the_stand_in(pool: Pool) -> None:
    async with open_shop(pool) as shop:
        now = unix(BEGIN)
        clock = await shop.official.v1.test_helpers.test_clocks.create_async({"frozen_time": now})
        buyer = await shop.buyer(clock=clock.id)
        id_ = await shop.pay(buyer, card=FAILS_LATER, trial_days=5)

        async def after(days: int) -> tuple[str, Desired, list[str]]:
            """Days after the beginning: Stripe's status, what is owed, and the e-mails so far."""
            await shop.official.v1.test_helpers.test_clocks.advance_async(
                clock.id, {"frozen_time": now + days * 86400 + 7200}
            )
            assert (await shop.settle(id_)).last_error is None
            (held,) = (await everything(pool))["subscription"]
            return held["status"], (await only(pool)).spec.desired, [name for name, _ in await mails(pool)]

        assert (await shop.settle(id_)).last_error is None
        seen = [await after(days) for days in (1, 3, 6, 13, 21, 44, 49, 51)]
    reminded = ["trial-ending", "payment-failed", "suspended", "deletion-soon", "deletion-soon"]
    assert seen == [
        ("trialing", Desired.RUNNING, []),
        ("trialing", Desired.RUNNING, reminded[:1]),
        ("past_due", Desired.RUNNING, reminded[:2]),
        ("past_due", Desired.SUSPENDED, reminded[:3]),
        ("canceled", Desired.SUSPENDED, reminded[:3]),
        ("canceled", Desired.SUSPENDED, reminded[:4]),
        ("canceled", Desired.SUSPENDED, reminded),
        ("canceled", Desired.DELETED, reminded),
    ]
