"""Whatever becomes of the news, and whenever a worker dies: after a sweep all is as if nothing had been."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from provisioner.contract.spec import SPEC, Desired
from provisioner.subscription_queries import OVER
from tests.conftest import _TEMPLATE, PostgresServer, _database
from tests.integration.queue_tools import Pool
from tests.simulation.histories import History, histories
from tests.simulation.world import Berth, Row, World, open_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
HISTORIES = int(os.environ.get("BERTH_HISTORIES", "50"))
"""How many to try: `make soak` tries 1000."""

_SUBSCRIPTIONS = """
    SELECT id, status, plan, quantity, add_ons, price_id, interval, current_period_end, cancel_at_period_end,
           trial_end, past_due_since, ended_at, review_since IS NOT NULL AS under_review
      FROM subscription ORDER BY id
"""
_INSTANCES = "SELECT subscription_id, spec, delete_at, phase FROM instance"
_TROUBLES = "SELECT kind, key, last_error FROM work_item WHERE parked_at IS NOT NULL OR attempts > 0"


@pytest.fixture(scope="module")
def urls(postgres_server: PostgresServer) -> Iterator[tuple[str, str]]:
    made = [_database(postgres_server, _TEMPLATE) for _ in range(2)]
    yield next(made[0]), next(made[1])
    for one in made:
        next(one, None)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as lent:
        yield lent


@pytest.fixture(scope="module")
def world(runner: asyncio.Runner, urls: tuple[str, str]) -> Iterator[World]:
    async def opened() -> World:
        pools = [await stack.enter_async_context(_pool(url)) for url in urls]
        return await stack.enter_async_context(open_world((pools[0], pools[1]), urls))

    stack = AsyncExitStack()
    try:
        yield runner.run(opened())
    finally:
        runner.run(stack.aclose())


def _pool(url: str) -> Pool:
    return AsyncConnectionPool[AsyncConnection[Any]](url, min_size=1, max_size=10, timeout=15, open=False)


@given(history=histories())
@settings(max_examples=HISTORIES, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
def test_a_troubled_berth_ends_where_a_calm_one_does(
    runner: asyncio.Runner, world: World, history: History
) -> None:
    runner.run(_compare(world, history))


async def _compare(world: World, history: History) -> None:
    await world.begin()
    await world.live(history)
    calm, troubled = world.calm, world.troubled
    assert await troubled.rows(_TROUBLES) == await calm.rows(_TROUBLES) == []
    ours, theirs = await _subscriptions(calm), await _subscriptions(troubled)
    if history.heal == "sweep":
        # A list of live subscriptions does not tell of what came and went unheard.
        known = {row["id"] for row in theirs}
        ours = [row for row in ours if row["id"] in known or row["status"] not in OVER]
    assert theirs == ours
    await _same_instances(calm, troubled)
    for berth in (calm, troubled):
        await _is_what_stripe_says(world, berth)


async def _subscriptions(berth: Berth) -> list[Row]:
    return await berth.rows(_SUBSCRIPTIONS)


async def _same_instances(calm: Berth, troubled: Berth) -> None:
    """The same, but that who slept through all of a subscription's life has nothing of it to keep."""
    ours, theirs = await _instances(calm), await _instances(troubled)
    assert len(ours) <= 1
    assert len(theirs) <= 1
    for id_, instance in theirs.items():
        assert id_ in ours or not _runs(instance)
    for id_, instance in ours.items():
        if _runs(instance) or id_ in theirs:
            assert theirs[id_] == instance


async def _instances(berth: Berth) -> dict[str, dict[str, Any]]:
    found = {}
    for row in await berth.rows(_INSTANCES):
        spec = SPEC.validate_python(row["spec"])
        found[row["subscription_id"]] = {
            "desired": spec.desired,
            "plan": spec.plan,
            "limits": dict(spec.limits),
            "environment": dict(spec.environment),
            # Storage never shrinks: who saw a larger plan in between keeps more.
            "size": (spec.size.cpu_request, spec.size.cpu_limit, spec.size.memory, spec.size.replicas),
            "delete_at": row["delete_at"],
        }
    return found


def _runs(instance: dict[str, Any]) -> bool:
    return bool(instance["desired"] is Desired.RUNNING)


async def _is_what_stripe_says(world: World, berth: Berth) -> None:
    """Asked of Stripe itself, by rules written down here once more."""
    found = await _instances(berth)
    if world.latest is None:
        assert found == {}
        return
    subscription = await world.client.v1.subscriptions.retrieve_async(world.latest)
    instance = found.get(subscription.id)
    match subscription.status:
        case "active" | "trialing":
            assert instance is not None
            assert _runs(instance)
            named = {price: name for name, price in world.prices.items()}
            bought = {named[item.price.id]: item.quantity for item in subscription["items"].data}
            agents = bought.pop("extra-agent", 0)
            ((plan, quantity),) = bought.items()
            assert instance["plan"] == plan
            assert instance["limits"]["agents"] == {"pro": 10, "enterprise": 100}[plan] * quantity + agents
        case "unpaid" | "canceled" | "paused" | "incomplete_expired":
            assert instance is None or not _runs(instance)
