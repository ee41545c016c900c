"""From what Stripe says to what an instance is owed, on the real stand-in and a real database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalogue.loader import load_catalogue
from catalogue.schema import Catalogue
from provisioner.clients.stripe import StripeClient
from provisioner.contract.queue import Kind
from provisioner.contract.spec import Desired
from provisioner.queue_view import State
from provisioner.specs import slug_candidates
from provisioner.subscriptions import SubscriptionHandler
from provisioner.workqueue import Lease, LeaseLostError, retry
from tests.integration.canned_stripe import JULY, answering, items, subscription, telling
from tests.integration.queue_tools import Pool, expire_lease, one_pass, row, run_sql, until, working
from tests.integration.settled import everything, instances, mails, only, timeline
from tests.integration.shop import OFFER, PROFESSIONAL, STARTER, Shop, open_shop


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    async with open_shop(pool) as opened:
        yield opened


async def bought(shop: Shop, slug: str = "acme", key: str = STARTER) -> str:
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, key, await shop.checkout(buyer, slug))
    settled = await shop.settle(subscription)
    assert settled.last_error is None
    return subscription


async def test_a_paid_checkout_becomes_an_instance_with_its_name_plan_and_work(
    pool: Pool, shop: Shop
) -> None:
    await bought(shop)
    instance = await only(pool)
    assert (instance.slug, instance.generation, instance.paid, instance.phase) == ("acme", 1, True, "pending")
    assert (instance.spec.plan, instance.spec.host) == ("starter", "acme.apps.localhost")
    assert (instance.spec.desired, instance.spec.chart_version) == (Desired.RUNNING, "1.2.3")
    assert await shop.due_instances() == [(instance.id, 1)]
    rows = await everything(pool)
    assert [c["closed_at"] is not None for c in rows["checkout"]] == [True]
    assert [(s["status"], s["plan"], s["interval"]) for s in rows["subscription"]] == [
        ("active", "starter", "month")
    ]
    assert await timeline(pool) == ["Created"]


async def test_invariant_3_the_same_event_five_times_and_two_workers_make_one_instance(
    pool: Pool, database_url: str, shop: Shop
) -> None:
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, STARTER, await shop.checkout(buyer, "acme"))
    handle = shop.handler().handle

    async def idle() -> bool:
        return (await row(pool, subscription, Kind.SUBSCRIPTION)).state == State.IDLE

    async with (
        working(pool, database_url, handle, kind=Kind.SUBSCRIPTION, owner="one"),
        working(pool, database_url, handle, kind=Kind.SUBSCRIPTION, owner="two"),
    ):
        await asyncio.gather(*(shop.ring(subscription) for _ in range(5)))
        await until(idle)
        await shop.ring(subscription, 5)
        await until(idle)
    instance = await only(pool)
    assert (instance.generation, await shop.due_instances()) == (1, [(instance.id, 1)])
    assert await timeline(pool) == ["Created"]


async def test_invariant_2_what_counts_is_stripes_state_now_whatever_events_said(
    pool: Pool, shop: Shop
) -> None:
    subscription = await bought(shop)
    for status in ("past_due", "unpaid", "paused", "active"):
        await shop.force(subscription, status)  # each sends an event; only now do they reach us
    before = await only(pool)
    for _ in range(4):
        await shop.settle(subscription)
    assert await only(pool) == before


async def test_invariant_5_nothing_changes_while_stripe_refuses_or_is_away(pool: Pool, shop: Shop) -> None:
    subscription = await bought(shop)
    await shop.force(subscription, "canceled")
    before = await everything(pool)
    await shop.refuse_calls(10)
    refused = await shop.settle(subscription)
    assert refused.state in {State.WAITING, State.DUE}
    assert "slow down" in str(refused.last_error)
    async with StripeClient("sk_test_x", "http://127.0.0.1:9") as nowhere:
        away = await shop.settle(subscription, shop.handler(nowhere))
    assert "could not be reached" in str(away.last_error)
    assert await everything(pool) == before
    await shop.refuse_calls(0)
    await shop.settle(subscription)
    assert (await only(pool)).spec.desired is Desired.SUSPENDED


HEAD = """
product: {product}
title: A product
image: berth.local/sample:1
port: 8080
plans:
"""
PLAN = """
  {name}:
    title: A plan
    prices: {{month: {{lookup_key: {key}}}}}
    size: {{cpu: {{request: 50m, limit: 500m}}, memory: 128Mi, storage: 1Gi}}
"""


def one_plan(key: str) -> str:
    return HEAD.format(product="mindroom") + PLAN.format(name="starter", key=key)


async def test_an_unknown_price_parks_with_a_sentence_and_retry_completes_it_after_the_fix(
    pool: Pool, shop: Shop, tmp_path: Path
) -> None:
    file = tmp_path / "mindroom.yaml"
    file.write_text(one_plan("another_key"))
    handler = SubscriptionHandler(shop.client, lambda: load_catalogue(tmp_path), OFFER)
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, STARTER, await shop.checkout(buyer, "acme"))
    before = await everything(pool)
    parked = await shop.settle(subscription, handler)
    assert parked.state == State.PARKED
    assert parked.last_error == (
        f"subscription {subscription} has a price that the catalogue does not name, {shop.prices[STARTER]}"
        f" (lookup key {STARTER}): add it to catalogue/<product>.yaml plans.<plan>.prices or"
        f" add_ons.<add-on>.prices, or to the former of one of these, then berth queue retry subscription"
        f" {subscription}"
    )
    assert await everything(pool) == before
    file.write_text(one_plan(STARTER))
    async with pool.connection() as conn:
        assert await retry(conn, Kind.SUBSCRIPTION, subscription)
    await one_pass(shop.queue(), Kind.SUBSCRIPTION, handler.handle)
    assert (await only(pool)).slug == "acme"
    assert (await row(pool, subscription, Kind.SUBSCRIPTION)).state == State.IDLE


async def test_a_catalogue_that_became_wrong_is_not_taken_over(
    pool: Pool, shop: Shop, tmp_path: Path
) -> None:
    file = tmp_path / "mindroom.yaml"
    file.write_text(one_plan(STARTER))
    handler = SubscriptionHandler(shop.client, lambda: load_catalogue(tmp_path), OFFER)
    file.write_text("product: [")
    unknown = await shop.pay(await shop.buyer(), PROFESSIONAL)
    assert (await shop.settle(unknown, handler)).state == State.PARKED
    known = await shop.pay(await shop.buyer(), STARTER)
    assert (await shop.settle(known, handler)).state == State.IDLE
    assert len(await instances(pool)) == 1


@pytest.mark.parametrize("status", ["unpaid", "paused", "canceled"])
async def test_suspension_and_return_keep_the_same_instance(pool: Pool, shop: Shop, status: str) -> None:
    subscription = await bought(shop)
    born = await only(pool)
    await shop.force(subscription, status)
    for _ in range(2):
        await shop.settle(subscription)
    suspended = await only(pool)
    assert (suspended.id, suspended.generation, suspended.spec.desired) == (born.id, 2, Desired.SUSPENDED)
    await shop.force(subscription, "active")
    await shop.settle(subscription)
    back = await only(pool)
    assert (back.generation, back.spec, back.slug) == (3, born.spec, born.slug)
    assert await shop.due_instances() == [(born.id, 3)]
    assert await timeline(pool) == ["Created", "Suspending", "Resuming"]


@pytest.mark.parametrize(("status", "held"), [("incomplete", True), ("incomplete_expired", False)])
async def test_an_unpaid_beginning_has_no_instance_and_its_end_frees_the_name(
    pool: Pool, shop: Shop, status: str, held: bool
) -> None:
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, STARTER, await shop.checkout(buyer, "acme"))
    await shop.force(subscription, status)
    await shop.settle(subscription)
    assert await instances(pool) == []
    assert [c["closed_at"] is None for c in (await everything(pool))["checkout"]] == [held]


async def test_a_subscription_that_was_over_before_we_heard_of_it_has_no_instance(
    pool: Pool, shop: Shop
) -> None:
    subscription = await shop.pay(await shop.buyer())
    await shop.force(subscription, "canceled")
    await shop.settle(subscription)
    assert await instances(pool) == []


async def test_what_somebody_had_is_theirs_after_they_became_another_at_stripe(
    pool: Pool, shop: Shop
) -> None:
    subscription = await bought(shop)
    await shop.force(subscription, "canceled")
    await run_sql(pool, "UPDATE customer SET stripe_customer_id = 'cus_new'")
    assert (await shop.settle(subscription)).last_error is None
    assert (await only(pool)).spec.desired is Desired.SUSPENDED


async def test_another_plan_is_a_new_generation_of_the_same_instance(pool: Pool, shop: Shop) -> None:
    subscription = await bought(shop)
    born = await only(pool)
    held = await shop.official.v1.subscriptions.retrieve_async(subscription)
    item_id, price = held.to_dict()["items"]["data"][0]["id"], await shop.price(PROFESSIONAL)
    await shop.official.v1.subscriptions.update_async(
        subscription, {"items": [{"id": item_id, "price": price}]}
    )
    for _ in range(2):
        await shop.settle(subscription)
    changed = await only(pool)
    assert (changed.id, changed.generation, changed.spec.plan) == (born.id, 2, "professional")
    assert changed.spec.size.storage > born.spec.size.storage
    assert changed.spec.limits["agents"] == 10
    assert await timeline(pool) == ["Created", "PlanChanged"]


async def test_quantities_and_add_ons_raise_limits_and_a_year_is_the_same_as_a_month(
    pool: Pool, shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "mindroom.yaml").write_text(WITH_ADD_ON)
    handler = SubscriptionHandler(shop.client, lambda: load_catalogue(tmp_path), OFFER)
    subscription = await shop.pay(await shop.buyer(), "plan_month")
    held = await shop.official.v1.subscriptions.retrieve_async(subscription)
    plan = held.to_dict()["items"]["data"][0]["id"]

    async def change(*items: dict[str, Any]) -> tuple[int, object]:
        changes: Any = {"items": list(items)}
        await shop.official.v1.subscriptions.update_async(subscription, changes)
        assert (await shop.settle(subscription, handler)).last_error is None
        instance = await only(pool)
        return instance.generation, instance.spec.limits["notes"]

    await shop.settle(subscription, handler)
    assert (await only(pool)).spec.limits["notes"] == 10
    assert await change({"price": await shop.price("more_month"), "quantity": 2}) == (2, 60)
    assert await change({"id": plan, "quantity": 3}) == (3, 80)
    assert await change({"id": plan, "price": await shop.price("plan_year")}) == (3, 80)
    assert await timeline(pool) == ["Created", "QuantitiesChanged", "QuantitiesChanged"]
    (row_,) = (await everything(pool))["subscription"]
    assert (row_["quantity"], row_["add_ons"], row_["interval"]) == (3, {"more": 2}, "year")


WITH_ADD_ON = (
    HEAD.format(product="mindroom")
    + """
  starter:
    title: A plan
    prices: {month: {lookup_key: plan_month}, year: {lookup_key: plan_year}}
    limits: {notes: 10}
    size: {cpu: {request: 50m, limit: 500m}, memory: 128Mi, storage: 1Gi}
meters: {notes: {title: Notes}}
add_ons: {more: {title: More, prices: {month: {lookup_key: more_month}}, grants: {notes: 25}}}
"""
)


async def test_a_second_subscription_of_the_same_customer_has_its_own_instance(
    pool: Pool, shop: Shop
) -> None:
    buyer = await shop.buyer()
    for slug in ("acme", "zeta"):
        await shop.settle(await shop.pay(buyer, STARTER, await shop.checkout(buyer, slug)))
    assert [instance.slug for instance in await instances(pool)] == ["acme", "zeta"]


async def test_a_name_that_is_taken_gets_the_subscriptions_suffix(pool: Pool, shop: Shop) -> None:
    await bought(shop, "acme")
    second = await bought(shop, "acme")
    _, suffixed, *_ = slug_candidates("acme", "mindroom", second)
    assert [instance.slug for instance in await instances(pool)] == ["acme", suffixed]
    assert (await instances(pool))[1].spec.host == f"{suffixed}.apps.localhost"


@pytest.mark.parametrize("whose", ["another customer's", "another product's", "nobody's", "none"])
async def test_a_checkout_counts_only_if_it_is_the_buyers_for_that_product(
    pool: Pool, shop: Shop, whose: str
) -> None:
    buyer, other = await shop.buyer(), await shop.buyer()
    checkout = {
        "another customer's": await shop.checkout(other, "theirs"),
        "another product's": await shop.checkout(buyer, "elsewhere", product="voxflow"),
        "nobody's": "co_missing",
        "none": None,
    }[whose]
    subscription = await shop.pay(buyer, STARTER, checkout)
    await shop.settle(subscription)
    assert (await only(pool)).slug == next(slug_candidates(None, "mindroom", subscription))
    assert [c["closed_at"] for c in (await everything(pool))["checkout"]] == [None, None]


async def test_a_name_somebody_holds_in_an_open_checkout_is_not_taken_from_them(
    pool: Pool, shop: Shop
) -> None:
    holder, buyer = await shop.buyer(), await shop.buyer()
    late = await shop.checkout(buyer, "acme")
    await run_sql(pool, "UPDATE checkout SET closed_at = now() WHERE id = %s", late)
    await shop.checkout(holder, "acme")
    await shop.settle(await shop.pay(buyer, STARTER, late))
    slug = (await only(pool)).slug
    assert slug.startswith("acme-")


async def test_a_customer_we_do_not_know_parks_with_the_remedy(pool: Pool, shop: Shop) -> None:
    buyer = await shop.buyer()
    await run_sql(pool, "UPDATE customer SET stripe_customer_id = NULL WHERE id = %s", buyer.id)
    subscription = await shop.pay(buyer)
    before = await everything(pool)
    parked = await shop.settle(subscription)
    assert parked.state == State.PARKED
    assert buyer.stripe_id in str(parked.last_error)
    assert f"berth queue retry subscription {subscription}" in str(parked.last_error)
    assert await everything(pool) == before


async def test_what_another_business_of_the_same_stripe_account_sells_is_left_alone(
    pool: Pool, shop: Shop
) -> None:
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, "another_business_month")
    assert (await shop.settle(subscription)).state == State.PARKED, "our customer bought something"
    await run_sql(pool, "UPDATE customer SET stripe_customer_id = NULL WHERE id = %s", buyer.id)
    left = await shop.settle(subscription)
    assert (left.state, left.last_error) == (State.IDLE, None)
    assert (await everything(pool))["subscription"] == []


async def test_a_subscription_stripe_does_not_have_parks(pool: Pool, shop: Shop) -> None:
    parked = await shop.settle("sub_missing")
    assert (parked.state, await instances(pool)) == (State.PARKED, [])
    assert "sub_missing" in str(parked.last_error)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"status": "frozen"},
            "status 'frozen' is not known to Berth: nothing was changed; upgrade",
        ),
        ({"items": items(STARTER, PROFESSIONAL)}, "has 2 plans at once"),
        ({"customer": "cus_other"}, "moved to another customer"),
    ],
)
async def test_what_stripe_should_not_say_changes_nothing_and_parks(
    pool: Pool, shop: Shop, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    def load() -> Catalogue:
        return load_catalogue(tmp_path)

    for product, keys in (("mindroom", (STARTER, PROFESSIONAL)), ("voxflow", ("voxflow_pro",))):
        (tmp_path / f"{product}.yaml").write_text(two_plans(product, *keys))
    buyer = await shop.buyer()
    await run_sql(
        pool,
        "INSERT INTO customer (id, email, name, stripe_customer_id) VALUES ('o', 'o', 'O', 'cus_other')",
    )
    good = subscription(customer=buyer.stripe_id, items=items(STARTER))
    async with answering((200, {}, good), (200, {}, good | changes)) as (client, _):
        handler = SubscriptionHandler(client, load, OFFER)
        assert (await shop.settle("sub_1", handler)).last_error is None
        before = await everything(pool)
        parked = await shop.settle("sub_1", handler)
    assert parked.state == State.PARKED
    assert says in str(parked.last_error)
    assert await everything(pool) == before


async def test_a_subscription_that_was_moved_to_another_product_no_longer_pays_for_the_instance(
    pool: Pool, shop: Shop, tmp_path: Path
) -> None:
    for product, keys in (("mindroom", (STARTER,)), ("voxflow", ("voxflow_pro",))):
        (tmp_path / f"{product}.yaml").write_text(two_plans(product, *keys))
    good = subscription(customer=(await shop.buyer()).stripe_id, items=items(STARTER))
    said = {"sub_1": good}
    async with telling(said) as client:
        handler = SubscriptionHandler(client, lambda: load_catalogue(tmp_path), OFFER)
        await shop.settle("sub_1", handler)
        born = await only(pool)
        said["sub_1"] = good | {"items": items("voxflow_pro")}
        for _ in range(2):
            parked = await shop.settle("sub_1", handler)
            assert "moved from mindroom to voxflow" in str(parked.last_error)
        assert (await only(pool)).spec == replace(born.spec, desired=Desired.SUSPENDED)
        ((_, told),) = await mails(pool)
        assert told["reason"] == "its subscription pays for voxflow now"
        said["sub_1"] = good
        assert (await shop.settle("sub_1", handler)).last_error is None
        assert (await only(pool)).spec == born.spec


@pytest.mark.parametrize(
    "lines",
    [items("of_the_past"), items(STARTER, PROFESSIONAL)],
    ids=["an unknown price", "two plans"],
)
async def test_who_pays_nothing_runs_nothing_whatever_is_wrong_with_what_they_bought(
    pool: Pool, shop: Shop, tmp_path: Path, lines: dict[str, Any]
) -> None:
    (tmp_path / "mindroom.yaml").write_text(two_plans("mindroom", STARTER, PROFESSIONAL))
    good = subscription(customer=(await shop.buyer()).stripe_id, items=items(STARTER))
    said = {"sub_1": good}
    async with telling(said) as client:
        handler = SubscriptionHandler(client, lambda: load_catalogue(tmp_path), OFFER)
        await shop.settle("sub_1", handler)
        born = await only(pool)
        for status in ("active", "unpaid", "canceled", "canceled"):
            said["sub_1"] = good | {"items": lines, "status": status, "ended_at": JULY}
            assert (await shop.settle("sub_1", handler)).state == State.PARKED
            runs = (await only(pool)).spec.desired is Desired.RUNNING
            assert runs == (status == "active")
        stopped = await only(pool)
        assert stopped.spec == replace(born.spec, desired=Desired.SUSPENDED)
        assert stopped.delete_at is None, "for how long data is kept is not known either"
        assert [template for template, _ in await mails(pool)] == ["suspended"]
        assert stopped.generation == born.generation + 1
        said["sub_1"] = good
        assert (await shop.settle("sub_1", handler)).last_error is None
        assert (await only(pool)).spec == born.spec


def two_plans(product: str, *keys: str) -> str:
    plans = [PLAN.format(name=f"p{n}", key=key) for n, key in enumerate(keys)]
    return HEAD.format(product=product) + "".join(plans)


async def test_invariant_9_a_worker_that_lost_its_lease_creates_nothing(pool: Pool, shop: Shop) -> None:
    subscription = await shop.pay(await shop.buyer())
    await shop.ring(subscription)
    queue = shop.queue()
    (item,) = await queue.claim(Kind.SUBSCRIPTION, 1)
    await expire_lease(pool, subscription)
    before = await everything(pool)
    with pytest.raises(LeaseLostError):
        await shop.handler().handle(item, Lease(queue, item))
    assert await everything(pool) == before
    assert await shop.due_instances() == []


async def test_a_pass_over_the_instance_and_one_over_its_subscription_do_not_deadlock(
    pool: Pool, shop: Shop
) -> None:
    subscription = await bought(shop)
    queue = shop.queue()
    (item,) = await queue.claim(Kind.INSTANCE, 1)
    await shop.force(subscription, "paused")
    async with queue.fenced(item) as conn:
        settling = asyncio.create_task(shop.settle(subscription))
        await until(lambda: somebody_waits(pool))
        await conn.execute("UPDATE instance SET phase = 'provisioning'")
    assert (await settling).last_error is None
    instance = await only(pool)
    assert (instance.phase, instance.spec.desired) == ("provisioning", Desired.SUSPENDED)


async def somebody_waits(pool: Pool) -> bool:
    async with pool.connection() as conn:
        waiting = await conn.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return waiting.rowcount > 0
