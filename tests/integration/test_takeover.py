"""Whoever pays again gets the same instance back; so do free plans and paid ones from each other."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalogue.loader import load_catalogue
from provisioner.contract.ids import FREE_PREFIX
from provisioner.contract.queue import Kind, hold
from provisioner.contract.spec import Desired
from provisioner.queue_view import QueueRow, State
from provisioner.subscriptions import SubscriptionHandler
from tests.integration.canned_stripe import items, subscription, telling
from tests.integration.queue_tools import Pool, one_pass, row, run_sql, until, working
from tests.integration.settled import everything, instances, only, timeline
from tests.integration.shop import OFFER, PROFESSIONAL, STARTER, Buyer, Shop, open_shop

JULY = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
FREE = FREE_PREFIX + "plan"


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    async with open_shop(pool) as opened:
        yield opened


async def settle(shop: Shop, subscription_id: str, handler: SubscriptionHandler | None = None) -> QueueRow:
    """Ring for a subscription, and let a worker make passes until none is due."""
    await shop.ring(subscription_id)
    queue = shop.queue()
    while (wait := await queue.wait(Kind.SUBSCRIPTION)) is not None and wait <= timedelta(0):
        await one_pass(queue, Kind.SUBSCRIPTION, (handler or shop.handler()).handle)
    return await row(shop.pool, subscription_id, Kind.SUBSCRIPTION)


async def bought(shop: Shop, buyer: Buyer, slug: str, key: str = STARTER) -> str:
    id_ = await shop.pay(buyer, key, await shop.checkout(buyer, slug))
    assert (await settle(shop, id_)).last_error is None
    return id_


async def given_free(shop: Shop, buyer: Buyer, slug: str) -> None:
    """What platform_api writes when a customer takes a free plan."""
    await run_sql(shop.pool, "UPDATE customer SET email_verified_at = now() WHERE id = %s", buyer.id)
    await run_sql(
        shop.pool,
        "INSERT INTO checkout (id, customer_id, product, plan, interval, slug, stripe_session_id, expires_at)"
        " VALUES (%s, %s, 'mindroom', 'free', 'month', %s, %s, now() + interval '1 hour')",
        FREE,
        buyer.id,
        slug,
        FREE,
    )
    await run_sql(
        shop.pool,
        "INSERT INTO subscription (id, customer_id, product, plan, status, source)"
        " VALUES (%s, %s, 'mindroom', 'free', 'active', 'free')",
        FREE,
        buyer.id,
    )


async def statuses(pool: Pool) -> dict[str, str]:
    return {held["id"]: held["status"] for held in (await everything(pool))["subscription"]}


@pytest.mark.parametrize("told", [True, False], ids=["told of the end", "not told of it"])
async def test_paying_again_brings_the_same_instance_back_whatever_we_heard_first(
    pool: Pool, shop: Shop, told: bool
) -> None:
    buyer = await shop.buyer()
    former = await bought(shop, buyer, "acme")
    born = await only(pool)
    await run_sql(pool, "UPDATE instance SET final_backup_at = now(), final_backup_note = 'on tape'")
    await shop.force(former, "canceled")
    if told:
        await settle(shop, former)
        assert (await only(pool)).spec.desired is Desired.SUSPENDED
        assert (await only(pool)).delete_at is not None
    again = await bought(shop, buyer, "acme", PROFESSIONAL)
    back = await only(pool)
    assert (back.id, back.slug, back.spec.namespace) == (born.id, born.slug, born.spec.namespace)
    assert (back.spec.desired, back.spec.plan, back.delete_at) == (Desired.RUNNING, "professional", None)
    rows = await everything(pool)
    assert [held["subscription_id"] for held in rows["instance"]] == [again]
    assert [checkout["closed_at"] is None for checkout in rows["checkout"]] == [False, False]
    if told:
        assert rows["instance"][0]["final_backup_at"] is None, "what runs again outgrows its backup"
    assert await statuses(pool) == {former: "canceled", again: "active"}
    before = await everything(pool)
    await settle(shop, former)
    after = await everything(pool)
    assert after["instance"] == before["instance"], "the former subscription has no say any more"
    assert after["instance_event"] == before["instance_event"]
    assert "TakenOver" in await timeline(pool)


@pytest.mark.parametrize(("phase", "same"), [("suspended", True), ("deleting", False), ("deleted", False)])
async def test_an_instance_is_had_back_until_its_deletion_begins(
    pool: Pool, shop: Shop, phase: str, same: bool
) -> None:
    buyer = await shop.buyer()
    former = await bought(shop, buyer, "acme")
    born = await only(pool)
    await shop.force(former, "canceled")
    await settle(shop, former)
    await run_sql(
        pool,
        "UPDATE instance SET spec = jsonb_set(spec, '{desired}', '\"deleted\"'), phase = %s",
        phase,
    )
    await settle(shop, await shop.pay(buyer))
    *_, youngest = await instances(pool)
    assert (youngest.id == born.id) is same
    assert youngest.spec.desired is Desired.RUNNING


async def test_who_has_two_kept_instances_gets_the_one_they_name(pool: Pool, shop: Shop) -> None:
    buyer = await shop.buyer()
    both = [await bought(shop, buyer, slug) for slug in ("acme", "zeta")]
    for former in both:
        await shop.force(former, "canceled")
        await settle(shop, former)
    again = await bought(shop, buyer, "acme")
    assert [held.slug for held in await instances(pool)] == ["acme", "zeta"]
    owners = {held["slug"]: held["subscription_id"] for held in (await everything(pool))["instance"]}
    assert owners == {"acme": again, "zeta": both[1]}


@pytest.mark.parametrize(
    ("whose", "product"), [("another customer's", "mindroom"), ("their own", "voxflow")], ids=str
)
async def test_nothing_of_another_customer_or_product_is_taken_over(
    pool: Pool, shop: Shop, whose: str, product: str
) -> None:
    buyer = await shop.buyer()
    former = await bought(shop, buyer, "acme")
    await shop.force(former, "canceled")
    await settle(shop, former)
    if whose == "another customer's":
        buyer = await shop.buyer()
    await settle(
        shop, await shop.pay(buyer, f"{product}_{'starter' if product == 'mindroom' else 'pro'}_month")
    )
    assert [held.spec.desired for held in await instances(pool)] == [Desired.SUSPENDED, Desired.RUNNING]


@pytest.mark.parametrize("heard", [("sub_2", "sub_1"), ("sub_1", "sub_2")], ids=" first, then ".join)
@pytest.mark.parametrize(("ended", "count"), [(JULY, 1), (JULY + 1, 2)], ids=["before", "during"])
async def test_subscriptions_that_ran_side_by_side_keep_an_instance_each_whatever_we_hear_first(
    pool: Pool, shop: Shop, ended: int, count: int, heard: tuple[str, ...]
) -> None:
    buyer = await shop.buyer()
    said = {"sub_1": subscription("sub_1", customer=buyer.stripe_id, items=items(STARTER), created=JULY - 9)}
    async with telling(said) as client:
        handler = SubscriptionHandler(client, load_catalogue, OFFER)
        await settle(shop, "sub_1", handler)
        said["sub_1"] |= {"status": "canceled", "ended_at": ended}
        said["sub_2"] = subscription("sub_2", customer=buyer.stripe_id, items=items(STARTER), created=JULY)
        for id_ in heard:
            assert (await settle(shop, id_, handler)).last_error is None
    assert len(await instances(pool)) == count


async def test_one_that_stripe_forgot_gives_its_instance_to_the_next(pool: Pool, shop: Shop) -> None:
    buyer = await shop.buyer()
    said = {"sub_1": subscription("sub_1", customer=buyer.stripe_id, items=items(STARTER))}
    async with telling(said) as client:
        handler = SubscriptionHandler(client, load_catalogue, OFFER)
        await settle(shop, "sub_1", handler)
        said["sub_2"] = said.pop("sub_1") | {"id": "sub_2"}
        await settle(shop, "sub_2", handler)
    held = (await everything(pool))["instance"]
    assert [instance["subscription_id"] for instance in held] == ["sub_2"]


async def test_invariant_3_two_new_subscriptions_at_once_do_not_share_one_instance(
    pool: Pool, database_url: str, shop: Shop
) -> None:
    buyer = await shop.buyer()
    former = await bought(shop, buyer, "acme")
    await shop.force(former, "canceled")
    both = [await shop.pay(buyer), await shop.pay(buyer)]

    async def settled() -> bool:
        return {(await row(pool, id_, Kind.SUBSCRIPTION)).state for id_ in both} == {State.IDLE}

    async def both_wait() -> bool:
        async with pool.connection() as conn:
            waiting = await conn.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return waiting.rowcount == len(both)

    handle = shop.handler().handle
    async with working(pool, database_url, handle, kind=Kind.SUBSCRIPTION):
        async with pool.connection() as conn:
            await hold(conn, Kind.SUBSCRIPTION, former)
            for id_ in both:
                await shop.ring(id_)
            await until(both_wait)
        await until(settled)
    held = (await everything(pool))["instance"]
    assert {instance["subscription_id"] for instance in held} == set(both)


async def test_a_free_plan_runs_under_the_name_it_reserved(pool: Pool, shop: Shop) -> None:
    buyer = await shop.buyer()
    await given_free(shop, buyer, "acme")
    assert (await settle(shop, FREE)).last_error is None
    instance = await only(pool)
    assert (instance.slug, instance.spec.plan, instance.spec.desired) == ("acme", "free", Desired.RUNNING)
    assert instance.spec.limits["agents"] == 1
    assert [checkout["closed_at"] is None for checkout in (await everything(pool))["checkout"]] == [False]


async def test_a_free_plan_is_refused_without_a_verified_address_and_given_after(
    pool: Pool, shop: Shop
) -> None:
    buyer = await shop.buyer()
    await given_free(shop, buyer, "acme")
    await run_sql(pool, "UPDATE customer SET email_verified_at = NULL")
    before = await everything(pool)
    parked = await settle(shop, FREE)
    assert parked.state == State.PARKED
    assert f"verify the address of customer {buyer.id}" in str(parked.last_error)
    assert await everything(pool) == before
    await run_sql(pool, "UPDATE customer SET email_verified_at = now()")
    assert (await settle(shop, FREE)).last_error is None
    assert len(await instances(pool)) == 1


@pytest.mark.parametrize("seen", [True, False], ids=["after its first pass", "before it"])
async def test_a_paid_plan_ends_the_free_one_and_keeps_its_instance(
    pool: Pool, shop: Shop, seen: bool
) -> None:
    buyer = await shop.buyer()
    await given_free(shop, buyer, "acme")
    if seen:
        await settle(shop, FREE)
    paid = await bought(shop, buyer, "zeta")
    await settle(shop, FREE)
    instance = await only(pool)
    assert (instance.slug, instance.spec.plan) == ("acme" if seen else "zeta", "starter")
    assert await statuses(pool) == {FREE: "canceled", paid: "active"}
    assert [checkout["closed_at"] is None for checkout in (await everything(pool))["checkout"]] == [False] * 2


async def test_a_free_plan_that_its_customer_ends_is_suspended_and_kept_for_a_while(
    pool: Pool, shop: Shop
) -> None:
    await given_free(shop, await shop.buyer(), "acme")
    await settle(shop, FREE)
    await run_sql(pool, "UPDATE subscription SET status = 'canceled', ended_at = now()")
    waiting = await settle(shop, FREE)
    kept = await only(pool)
    assert kept.spec.desired is Desired.SUSPENDED
    assert (kept.delete_at, waiting.due_at) != (None, None)
    (told,) = (await everything(pool))["outbox"]
    # Nothing of a free plan is in the billing portal: a link would lead nowhere.
    assert (told["template"], "portal_token" in told["data"]) == ("suspended", False)
    await run_sql(pool, "UPDATE subscription SET ended_at = now() - interval '31 days'")
    await settle(shop, FREE)
    assert (await only(pool)).spec.desired is Desired.DELETED


async def test_a_free_plan_goes_on_under_its_new_name_and_can_be_ended_when_it_is_sold_no_more(
    pool: Pool, shop: Shop, tmp_path: Path
) -> None:
    await given_free(shop, await shop.buyer(), "acme")
    await settle(shop, FREE)
    file = tmp_path / "mindroom.yaml"
    sold = (Path("catalogue") / file.name).read_text()
    file.write_text(sold.replace("\n  free:\n", "\n  hobby:\n    aliases: [free]\n"))
    handler = SubscriptionHandler(shop.client, lambda: load_catalogue(tmp_path), OFFER)
    assert (await settle(shop, FREE, handler)).last_error is None
    assert (await only(pool)).spec.plan == "hobby"
    file.write_text(sold.replace("\n  free:\n", "\n  hobby:\n"))
    handler = SubscriptionHandler(shop.client, lambda: load_catalogue(tmp_path), OFFER)
    for status, desired in (("active", Desired.RUNNING), ("canceled", Desired.SUSPENDED)):
        await run_sql(pool, "UPDATE subscription SET status = %s", status)
        assert (await settle(shop, FREE, handler)).state == State.PARKED
        assert (await only(pool)).spec.desired is desired


async def test_a_free_plan_after_a_paid_one_has_the_same_instance_with_no_less_storage(
    pool: Pool, shop: Shop
) -> None:
    buyer = await shop.buyer()
    former = await bought(shop, buyer, "acme")
    born = await only(pool)
    await shop.force(former, "canceled")
    await given_free(shop, buyer, "zeta")
    await settle(shop, FREE)
    back = await only(pool)
    assert (back.id, back.slug, back.spec.plan) == (born.id, "acme", "free")
    assert back.spec.size.storage == born.spec.size.storage
