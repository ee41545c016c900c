"""kill -9 at random moments: the next pass repairs everything, by itself."""

import asyncio
import os
import random
import secrets
import signal
from functools import partial

import pytest

from provisioner.clients.kubernetes import KINDS
from sandbox.processes import Daemon
from scripts.demo.customers import Account
from scripts.demo.services import START_SECONDS, answers
from tests.e2e.conftest import StartBerth
from tests.e2e.harness import Berth, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

KILLS = 30
INSTANCES = 10


async def test_invariant_08_a_provisioner_killed_thirty_times_still_makes_all_ten_ready(
    start_berth: StartBerth,
) -> None:
    seed = secrets.randbits(32)
    moments = random.Random(seed)  # noqa: S311 - moments to kill at, repeatable by their seed
    async with start_berth(BERTH_LEASE_SECONDS="2") as berth:
        await berth.services.start()
        names = [f"tenant-{number}" for number in range(INSTANCES)]
        buying = asyncio.create_task(buy_one_after_another(berth, names))
        for _ in range(KILLS):
            await asyncio.sleep(moments.uniform(0.2, 3))  # from while it starts to while it works
            await kill(berth.services.provisioner(), berth)
            berth.services.provisioner().start()
        accounts = await buying
        instances = await berth.wait_ready(INSTANCES, 240)

        assert sorted(row["slug"] for row in instances) == sorted(names), f"seed {seed}"
        owners = {account.customer_id for account in accounts}
        assert {row["customer_id"] for row in instances} == owners
        listing = await berth.cluster.list(KINDS["Namespace"], selector="berth.dev/product=mindroom")
        ours = [n for n in listing.items if n["metadata"]["labels"]["berth.dev/customer"] in owners]
        assert {n["metadata"]["name"] for n in ours} == {f"berth-{row['id']}" for row in instances}


async def test_platform_api_killed_between_commit_and_answer_loses_and_doubles_nothing(
    start_berth: StartBerth,
) -> None:
    async with start_berth() as berth:
        await berth.services.start()
        api = berth.services.platform_api
        for number in range(3):
            await berth.buy(f"tenant-{number}")
            await kill(api, berth)
            api.start()
            await api.wait_ready(partial(answers, f"{berth.services.api_url}/readyz"), START_SECONDS)
        instances = await berth.wait_ready(3)
        assert len(instances) == 3
        events = await berth.rows("SELECT count(*), count(DISTINCT id) AS ids FROM stripe_event")
        assert events[0]["count"] == events[0]["ids"]


async def buy_one_after_another(berth: Berth, names: list[str]) -> list[Account]:
    return [await berth.buy(name) for name in names]


async def kill(daemon: Daemon, berth: Berth) -> None:
    """Send SIGKILL and return once the process is gone."""
    pid = daemon.pid()
    assert pid is not None, daemon.log_tail()
    os.kill(pid, signal.SIGKILL)

    async def gone() -> bool | None:
        return None if daemon.is_running() else True

    await until(gone, 10, berth.describe)
