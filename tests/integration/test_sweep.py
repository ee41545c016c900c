"""What heals lost webhooks: the sweep over all subscriptions, and Stripe's own list of events."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.rows import scalar_row

from catalogue.loader import load_catalogue
from catalogue.stripe_names import BY_AGREEMENT, PRICE_ORIGIN, plan_at_stripe
from provisioner.catch_up import CatchUp
from provisioner.clients.stripe import StripeClient
from provisioner.contract.errors import TemporaryError
from provisioner.contract.inbox import ACTED_UPON, parse_event, store_events
from provisioner.contract.queue import Kind, nudge
from provisioner.scheduler import Scheduler
from provisioner.sweep import Difference, Sweep
from tests.integration.canned_stripe import answering, subscription
from tests.integration.queue_tools import Pool, one_pass, row, run_sql
from tests.integration.shop import Shop, open_shop


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    async with open_shop(pool) as opened:
        yield opened


def sweep(shop: Shop) -> Sweep:
    return Sweep(shop.pool, shop.client, load_catalogue)


async def bought(shop: Shop, slug: str) -> str:
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, checkout=await shop.checkout(buyer, slug))
    await shop.settle(subscription)
    return subscription


async def due(pool: Pool, kind: Kind = Kind.SUBSCRIPTION) -> set[str]:
    async with pool.connection() as conn, conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT key FROM work_item WHERE kind = %s AND due_at <= now()", (kind,))
        return set(await cursor.fetchall())


async def test_the_sweep_finds_what_no_webhook_told_and_then_nothing(pool: Pool, shop: Shop) -> None:
    same, changed, ended = [await bought(shop, slug) for slug in ("same", "changed", "ended")]
    new = await shop.pay(await shop.buyer())
    await shop.force(changed, "past_due")
    await shop.force(ended, "canceled")
    swept = await sweep(shop).run()
    assert {
        Difference(new, "subscription", None, "active"),
        Difference(changed, "status", "active", "past_due"),
        Difference(ended, "status", "active", "canceled"),
    } <= set(swept.differences)
    assert (set(swept.enqueued), swept.compared, swept.foreign) == ({new, changed, ended}, 4, 0)
    assert await due(pool) == {new, changed, ended}
    for _ in range(3):
        await one_pass(shop.queue(), Kind.SUBSCRIPTION, shop.handler().handle)
    again = await sweep(shop).run()
    assert (again.differences, again.compared) == ((), 3), (
        "an ended one that we hold as ended is not asked for"
    )
    assert (await row(pool, same, Kind.SUBSCRIPTION)).epoch == 1


async def test_invariant_5_a_sweep_that_cannot_read_to_the_end_enqueues_nothing(
    pool: Pool, shop: Shop
) -> None:
    subscription = await bought(shop, "acme")
    await shop.force(subscription, "past_due")
    await shop.refuse_calls(10)
    with pytest.raises(TemporaryError):
        await sweep(shop).run()
    assert await due(pool) == set()


async def test_what_is_another_businesss_is_counted_and_left_alone(pool: Pool, shop: Shop) -> None:
    foreign = await shop.pay(await shop.buyer(), "a_newsletter_month")
    await run_sql(pool, "UPDATE customer SET stripe_customer_id = NULL")
    unknown_customer = await shop.pay(await shop.buyer())
    await run_sql(pool, "UPDATE customer SET stripe_customer_id = NULL")
    unknown_price = await shop.pay(await shop.buyer(), "a_price_nobody_named")
    swept = await sweep(shop).run()
    assert swept.foreign == 1
    assert await due(pool) == {unknown_customer, unknown_price}
    assert foreign not in {difference.subscription_id for difference in swept.differences}


async def test_what_was_agreed_upon_with_somebody_not_linked_yet_is_not_another_businesss(
    pool: Pool, shop: Shop
) -> None:
    product = plan_at_stripe("mindroom", "enterprise")
    await shop.official.v1.products.create_async({"id": product, "name": "Enterprise"})
    made = await shop.official.v1.prices.create_async(
        {
            "product": product,
            "currency": "eur",
            "unit_amount": 49900,
            "recurring": {"interval": "year"},
            "metadata": {PRICE_ORIGIN: BY_AGREEMENT},
        }
    )
    shop.prices["agreed"] = made.id
    agreed = await shop.pay(await shop.buyer(), "agreed")
    await run_sql(pool, "UPDATE customer SET stripe_customer_id = NULL")
    assert (await sweep(shop).run()).foreign == 0
    assert await due(pool) == {agreed}


async def test_free_plans_are_not_looked_for_at_stripe_but_a_vanished_subscription_is_reported(
    pool: Pool, shop: Shop
) -> None:
    buyer = await shop.buyer()
    for id_, source in (("free_1", "free"), ("sub_gone", "stripe")):
        await run_sql(
            pool,
            "INSERT INTO subscription (id, customer_id, product, plan, status, source)"
            " VALUES (%s, %s, 'mindroom', 'starter', 'active', %s)",
            id_,
            buyer.id,
            source,
        )
    swept = await sweep(shop).run()
    assert swept.differences == (Difference("sub_gone", "subscription", "active", None),)
    assert await due(pool) == {"sub_gone"}


async def inbox(pool: Pool) -> dict[str, str]:
    async with pool.connection() as conn:
        found = await conn.execute("SELECT id, type FROM stripe_event")
        return {id_: type_ async for id_, type_ in found}


async def read_until(pool: Pool) -> datetime:
    async with pool.connection() as conn, conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT events_until FROM stripe_sync")
        found = await cursor.fetchone()
    assert isinstance(found, datetime)
    return found


async def away(pool: Pool, interval: str) -> None:
    """Have read Stripe's list of events to its end that long ago."""
    await run_sql(
        pool, "INSERT INTO stripe_sync (events_until) VALUES (now() - %s::text::interval)", interval
    )


async def test_events_that_no_webhook_brought_are_taken_in_once(pool: Pool, shop: Shop) -> None:
    subscription = await shop.pay(await shop.buyer())
    first = await CatchUp(pool, shop.client).run()
    held = await inbox(pool)
    assert set(first.missed) == set(held)
    assert "customer.subscription.created" in held.values()
    assert "customer.created" not in held.values(), "only what Berth acts upon is listed"
    assert await due(pool) == {subscription}
    caused = (await row(pool, subscription, Kind.SUBSCRIPTION)).seq
    until = await read_until(pool)
    assert (await CatchUp(pool, shop.client).run()).missed == ()
    assert (await row(pool, subscription, Kind.SUBSCRIPTION)).seq == caused, (
        "what we had is not enqueued again"
    )
    assert await read_until(pool) > until


async def test_only_what_the_inbox_lacks_is_missed(pool: Pool, shop: Shop) -> None:
    await shop.pay(await shop.buyer())
    listed = await shop.official.v1.events.list_async({"type": "customer.subscription.created"})
    known = parse_event(str(listed.data[0]))
    async with pool.connection() as conn:
        await store_events(conn, [known])
    caught = await CatchUp(pool, shop.client).run()
    assert caught.missed
    assert known.id not in caught.missed


async def test_a_session_that_expired_unheard_frees_its_slug(pool: Pool, shop: Shop) -> None:
    buyer = await shop.buyer()
    checkout = await shop.checkout(buyer, "acme")
    session = await shop.official.v1.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "customer": buyer.stripe_id,
            "line_items": [{"price": await shop.price("mindroom_starter_month"), "quantity": 1}],
            "success_url": "http://127.0.0.1/done",
        }
    )
    await run_sql(pool, "UPDATE checkout SET stripe_session_id = %s WHERE id = %s", session.id, checkout)
    await shop.official.v1.checkout.sessions.expire_async(session.id)
    await CatchUp(pool, shop.client).run()
    async with pool.connection() as conn:
        closed = await (await conn.execute("SELECT closed_at IS NOT NULL FROM checkout")).fetchall()
    assert closed == [(True,)]


async def test_whoever_was_away_longer_than_stripe_lists_goes_on_with_what_it_lists(
    pool: Pool, shop: Shop
) -> None:
    await shop.pay(await shop.buyer())
    await away(pool, "40 days")
    caught = await CatchUp(pool, shop.client).run()
    assert caught.lost.days == 10
    assert await read_until(pool) - caught.since == timedelta(days=30)
    assert set(caught.missed) == set(await inbox(pool)) != set()
    assert (await CatchUp(pool, shop.client).run()).lost == timedelta(0)


async def test_several_at_once_take_each_event_in_once(pool: Pool, shop: Shop) -> None:
    for _ in range(3):
        await shop.pay(await shop.buyer())
    async with StripeClient("sk_test_shop", shop.url) as other:
        caught = await asyncio.gather(*(CatchUp(pool, client).run() for client in (shop.client, other)))
    missed = [id_ for one in caught for id_ in one.missed]
    assert sorted(missed) == sorted(await inbox(pool))


async def test_invariant_10_one_subscription_that_is_not_understood_stops_no_sweep(
    pool: Pool, shop: Shop
) -> None:
    buyer = await shop.buyer()
    await run_sql(
        pool,
        "INSERT INTO subscription (id, customer_id, product, plan, status)"
        " VALUES ('sub_unlisted', %s, 'mindroom', 'starter', 'active')",
        buyer.id,
    )
    strange = subscription("sub_strange", items={"object": "list", "data": []})
    listed = [strange, subscription("sub_new", customer=buyer.stripe_id)]
    answers = {"object": "list", "data": listed, "has_more": False, "url": "/v1/subscriptions"}
    unlisted = subscription("sub_unlisted", created=None)
    async with answering((200, {}, answers), (200, {}, unlisted)) as (client, _):
        await Sweep(pool, client, load_catalogue).run()
    assert await due(pool) == {"sub_strange", "sub_new", "sub_unlisted"}


Answer = tuple[int, dict[str, str], object]


def events(*ids: str) -> Answer:
    data: list[dict[str, Any]] = [
        {"id": id_, "object": "event", "type": "invoice.paid", "created": 1782864000, "data": {"object": {}}}
        for id_ in ids
    ]
    return 200, {}, {"object": "list", "data": data, "has_more": False, "url": "/v1/events"}


async def test_a_list_that_breaks_off_is_read_on_from_the_last_day_that_was_whole(pool: Pool) -> None:
    await away(pool, "2 days 12 hours")
    start = datetime.now(UTC)
    refusal: Answer = 429, {}, {"error": {"type": "rate_limit_error", "message": "slower"}}
    async with answering(events("evt_1"), events("evt_2"), refusal) as (client, canned):
        with pytest.raises(TemporaryError):
            await CatchUp(pool, client).run()
        assert set(await inbox(pool)) == {"evt_1", "evt_2"}
        assert abs(await read_until(pool) - (start - timedelta(hours=12, minutes=15))) < timedelta(minutes=5)
        canned.answers[:] = [events("evt_3")]
        assert (await CatchUp(pool, client).run()).missed == ("evt_3",)
        asked = canned.requests[-1]
    assert "created%5Bgte%5D" in asked or "created[gte]" in asked
    assert "lt%5D" not in asked.replace("created%5Bgte", ""), "the last slice is open: clocks differ"
    assert asked.count("types") == len(ACTED_UPON) <= 20, "Stripe takes no more"


async def test_the_resync_nudges_every_instance_and_hurries_none_in_backoff(pool: Pool, shop: Shop) -> None:
    await bought(shop, "acme")
    ((instance, _),) = await shop.due_instances()
    queue = shop.queue()
    (item,) = await queue.claim(Kind.INSTANCE, 1)
    await queue.fail(item, "no answer", timedelta(hours=1))
    waiting = (await row(pool, instance)).due_at
    await Scheduler(pool, CatchUp(pool, shop.client), sweep(shop)).resync()
    after = await row(pool, instance)
    assert (after.due_at, after.seq) == (waiting, 2)
    async with pool.connection() as conn:
        await nudge(conn, Kind.INSTANCE)
    assert await row(pool, instance) == after
