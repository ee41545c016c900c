"""Money that goes back puts its subscription under review, on the real stand-in and a real database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg.rows import dict_row
from typer.testing import CliRunner

from provisioner.contract.queue import Kind
from provisioner.queue_view import QueueRow, State
from provisioner.reviews import ChargeHandler, clear_review, open_reviews
from scripts.berth.app import build_app
from tests.integration.canned_stripe import answering
from tests.integration.queue_tools import Pool, one_pass, put, row
from tests.integration.shop import Shop, open_shop
from tests.integration.stripe_tools import control


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    async with open_shop(pool) as opened:
        yield opened


@dataclass(frozen=True)
class Paid:
    """A subscription and the charge that paid for it."""

    subscription: str
    charge: str


async def paid(shop: Shop, *, known: bool = True) -> Paid:
    """Somebody bought MindRoom's starter plan; `known`: and we have heard of it."""
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, checkout=await shop.checkout(buyer, "acme"))
    if known:
        assert (await shop.settle(subscription)).last_error is None
    (charge,) = (await shop.official.v1.charges.list_async({"customer": buyer.stripe_id})).data
    return Paid(subscription, charge.id)


async def look(shop: Shop, charge: str) -> QueueRow:
    """What an event about the charge leads to."""
    await put(shop.pool, charge, kind=Kind.CHARGE)
    await one_pass(shop.queue(), Kind.CHARGE, ChargeHandler(shop.client).handle)
    return await row(shop.pool, charge, Kind.CHARGE)


async def rows(pool: Pool, query: bytes) -> list[dict[str, Any]]:
    async with pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query)
        return await cursor.fetchall()


async def alerts(pool: Pool) -> list[str]:
    found = await rows(
        pool, b"SELECT data FROM outbox WHERE template = 'operator-alert' AND customer_id IS NULL"
    )
    return [str(one["data"]["sentence"]) for one in found]


async def reasons(pool: Pool) -> list[str]:
    async with pool.connection() as conn:
        return [review.reason for review in await open_reviews(conn)]


async def timeline(pool: Pool) -> list[str]:
    found = await rows(pool, b"SELECT reason FROM instance_event WHERE reason LIKE 'Review%' ORDER BY id")
    return [one["reason"] for one in found]


async def test_a_full_refund_and_a_dispute_raise_a_review_once_and_change_nothing_else(
    pool: Pool, shop: Shop
) -> None:
    bought = await paid(shop)
    before = await rows(pool, b"SELECT * FROM instance")
    await shop.official.v1.refunds.create_async({"charge": bought.charge, "amount": 100})
    assert (await look(shop, bought.charge)).last_error is None
    assert await reasons(pool) == [], "part of it came back: nothing to look at"
    await shop.official.v1.refunds.create_async({"charge": bought.charge})
    for _ in range(3):
        assert (await look(shop, bought.charge)).last_error is None
    assert await reasons(pool) == [f"charge {bought.charge} (29.00 usd) was refunded in full"]
    (alert,) = await alerts(pool)
    assert "nothing will be deleted" in alert
    assert await timeline(pool) == ["ReviewNeeded"]
    await shop.settle(bought.subscription)
    assert await rows(pool, b"SELECT * FROM instance") == before
    assert len(await reasons(pool)) == 1, "a pass over the subscription keeps the review"


async def test_a_review_cleared_stays_cleared_until_something_new_happens(pool: Pool, shop: Shop) -> None:
    bought = await paid(shop)
    await control(shop.url, "POST", f"charges/{bought.charge}/dispute")
    await look(shop, bought.charge)
    (reason,) = await reasons(pool)
    assert "is disputed" in reason
    async with pool.connection() as conn:
        assert not await clear_review(conn, "sub_other", "ann", "x")
        assert await clear_review(conn, bought.subscription, "ann", "the bank erred")
    assert (await row(pool, bought.subscription, Kind.SUBSCRIPTION)).state == State.DUE
    await look(shop, bought.charge)
    assert await reasons(pool) == []
    assert await timeline(pool) == ["ReviewNeeded", "ReviewCleared"]
    (event,) = await rows(pool, b"SELECT message FROM instance_event WHERE reason = 'ReviewCleared'")
    assert event["message"] == "by ann: the bank erred"


async def test_a_charge_for_a_subscription_not_yet_known_here_waits_for_it(pool: Pool, shop: Shop) -> None:
    bought = await paid(shop, known=False)
    await shop.official.v1.refunds.create_async({"charge": bought.charge})
    waiting = await look(shop, bought.charge)
    assert (waiting.state, waiting.attempts) == (State.WAITING, 1)
    assert "not known here yet" in str(waiting.last_error)
    assert (await row(pool, bought.subscription, Kind.SUBSCRIPTION)).state == State.DUE
    await one_pass(shop.queue(), Kind.SUBSCRIPTION, shop.handler().handle)
    assert (await look(shop, bought.charge)).last_error is None
    assert len(await reasons(pool)) == 1


@pytest.mark.parametrize("whose", ["a stranger's subscription", "no subscription"])
async def test_a_charge_that_is_none_of_ours_is_done_quietly(pool: Pool, shop: Shop, whose: str) -> None:
    charge = {
        "id": "ch_1",
        "customer": "cus_other",
        "payment_intent": "pi_1" if whose == "a stranger's subscription" else None,
        "amount": 100,
        "currency": "usd",
        "refunded": True,
    }
    nothing = {"object": "list", "data": [], "has_more": False}
    details = {"subscription_details": {"subscription": "sub_other"}}
    payments = {"object": "list", "data": [{"invoice": {"parent": details}}], "has_more": False}
    async with answering((200, {}, charge), (200, {}, nothing), (200, {}, payments)) as (client, _):
        await put(pool, "ch_1", kind=Kind.CHARGE)
        await one_pass(shop.queue(), Kind.CHARGE, ChargeHandler(client).handle)
    assert (await row(pool, "ch_1", Kind.CHARGE)).state == State.IDLE
    assert await rows(pool, b"SELECT 1 FROM work_item WHERE kind = 'subscription'") == []
    assert await alerts(pool) == []


async def test_invariant_5_no_answer_from_stripe_changes_nothing(pool: Pool, shop: Shop) -> None:
    bought = await paid(shop)
    await shop.official.v1.refunds.create_async({"charge": bought.charge})
    await shop.refuse_calls(10)
    assert "slow down" in str((await look(shop, bought.charge)).last_error)
    assert await reasons(pool) == []


async def test_an_operator_lists_and_clears_reviews(
    pool: Pool, shop: Shop, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTH_DATABASE_URL", database_url)
    bought = await paid(shop)
    await shop.official.v1.refunds.create_async({"charge": bought.charge})
    await look(shop, bought.charge)
    listed = await berth("stripe", "reviews", "--json")
    assert bought.subscription in listed
    assert '"slug": "acme"' in listed
    cleared = await berth("stripe", "reviews", "clear", bought.subscription, "--reason", "goodwill")
    assert "no more" in cleared
    assert await reasons(pool) == []
    shown = await rows(pool, b"SELECT reason FROM instance_event WHERE NOT is_internal")
    assert [one["reason"] for one in shown] == ["Created"], "what operators say of customers is not for them"
    assert "nothing is under review" in await berth("stripe", "reviews")


async def berth(*words: str) -> str:
    """What `berth …` prints; in a thread, for it has an event loop of its own."""
    return (await asyncio.to_thread(CliRunner().invoke, build_app(), words)).stdout
