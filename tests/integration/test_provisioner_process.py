"""`python -m provisioner` as it is run: what it survives, and how it starts, dies and stops."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest

from provisioner.contract.queue import Kind
from provisioner.queue_view import State
from scripts.demo.ports import free_port
from tests.integration.queue_tools import PATIENCE, Pool, Wire, row, until
from tests.integration.shop import STARTER, Shop, open_shop

REPOSITORY = Path(__file__).resolve().parents[2]
NOWHERE = 9
KUBECONFIG = f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{NOWHERE}"}}}}]
users: [{{name: u, user: {{token: hidden}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
"""


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    async with open_shop(pool) as opened:
        yield opened


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> dict[str, str]:
    """Kubernetes, Stripe and mail are away unless a test says otherwise; the secret comes from a file."""
    kubeconfig, root_key = tmp_path / "kubeconfig", tmp_path / "root-key"
    kubeconfig.write_text(KUBECONFIG)
    root_key.write_text("k" * 32)
    return {
        "BERTH_DATABASE_URL": database_url,
        "BERTH_STRIPE_API_KEY": "sk_test_process",
        "BERTH_STRIPE_API_URL": f"http://127.0.0.1:{NOWHERE}",
        "BERTH_APPS_URL": "http://{slug}.apps.localhost:8088",
        "BERTH_API_URL": "http://127.0.0.1:8080",
        "BERTH_ROOT_KEY_FILE": str(root_key),
        "BERTH_SMTP_URL": f"smtp://127.0.0.1:{NOWHERE}",
        "BERTH_MAIL_FROM": "hello@berth.example",
        "BERTH_KUBECONFIG": str(kubeconfig),
        "BERTH_LEASE_SECONDS": "2",
        "BERTH_PROVISIONER_METRICS_PORT": str(free_port()),
    }


@contextlib.asynccontextmanager
async def running(settings: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A provisioner that serves its metrics, killed at the end if it still runs."""
    process = await start(settings)
    try:
        await until(lambda: answers(settings))
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def start(settings: Mapping[str, str]) -> asyncio.subprocess.Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "provisioner",
        cwd=REPOSITORY,
        env={**kept, **settings},
        stderr=asyncio.subprocess.PIPE,
    )


async def answers(settings: Mapping[str, str]) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return "berth_work_claimed" in await metrics(settings)
    return False


async def metrics(settings: Mapping[str, str]) -> str:
    async with httpx.AsyncClient(timeout=5) as client:
        return (await client.get(f"http://127.0.0.1:{settings['BERTH_PROVISIONER_METRICS_PORT']}")).text


async def paid(shop: Shop) -> str:
    buyer = await shop.buyer()
    subscription = await shop.pay(buyer, STARTER, await shop.checkout(buyer, "acme"))
    await shop.ring(subscription)
    return subscription


async def is_settled(pool: Pool, subscription: str) -> bool:
    return (await row(pool, subscription, Kind.SUBSCRIPTION)).state == State.IDLE


async def test_without_kubernetes_what_was_paid_for_is_recorded_and_waits(
    pool: Pool, shop: Shop, settings: dict[str, str]
) -> None:
    async with running(settings | {"BERTH_STRIPE_API_URL": shop.url}) as process:
        subscription = await paid(shop)
        await until(lambda: is_settled(pool, subscription))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    assert b"Traceback" not in log
    assert b"sk_test_process" not in log
    assert b"hidden" not in log
    ((instance, _),) = await shop.due_instances()
    left = await row(pool, instance)
    assert (left.lease_until, left.lease_owner) == (None, None)
    assert await phases(pool) == ["pending"], "invariant 5: unknown is not down"


async def phases(pool: Pool) -> list[str]:
    async with pool.connection() as conn:
        return [phase async for (phase,) in await conn.execute("SELECT phase FROM instance")]


async def test_the_sweep_at_start_finds_what_was_paid_while_nobody_listened(
    pool: Pool, shop: Shop, settings: dict[str, str]
) -> None:
    await shop.pay(await shop.buyer())
    async with running(settings | {"BERTH_STRIPE_API_URL": shop.url}):
        await until(lambda: has_instances(pool, 1))


async def has_instances(pool: Pool, count: int) -> bool:
    return len(await phases(pool)) == count


async def test_a_database_that_is_away_at_start_is_waited_for(
    pool: Pool, database_url: str, shop: Shop, settings: dict[str, str]
) -> None:
    wire = Wire(database_url)
    await wire.mend()
    await wire.cut()
    subscription = await paid(shop)
    async with running(settings | {"BERTH_DATABASE_URL": wire.url, "BERTH_STRIPE_API_URL": shop.url}):
        assert not await is_settled(pool, subscription)
        await wire.mend()
        await until(lambda: is_settled(pool, subscription))
        await wire.cut()


async def test_invariant_8_a_killed_provisioner_leaves_nothing_that_the_next_one_does_not_finish(
    pool: Pool, shop: Shop, settings: dict[str, str]
) -> None:
    settings = settings | {"BERTH_STRIPE_API_URL": shop.url}
    async with running(settings) as process:
        subscription = await paid(shop)
        await until(lambda: was_claimed(pool, subscription))
        process.kill()
        await process.communicate()
    async with running(settings):
        await until(lambda: is_settled(pool, subscription))
    assert len(await phases(pool)) == 1


async def was_claimed(pool: Pool, subscription: str) -> bool:
    return (await row(pool, subscription, Kind.SUBSCRIPTION)).epoch > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"BERTH_APPS_URL": "http://apps.localhost"}, "BERTH_APPS_URL"),
        ({"BERTH_SMTP_URL": "http://u:hidden@mail"}, "BERTH_SMTP_URL"),
        ({"BERTH_ROOT_KEY_FILE": "/missing/key"}, "BERTH_ROOT_KEY_FILE"),
        ({"BERTH_ROOT_KEY_FILE": "", "BERTH_ROOT_KEY": "hidden"}, "BERTH_ROOT_KEY"),
        ({"BERTH_KUBECONFIG": "/missing/kubeconfig"}, "BERTH_KUBECONFIG"),
        ({"BERTH_CHARTS_DIR": "/missing"}, "BERTH_CHARTS_DIR"),
        ({"BERTH_CATALOGUE_DIR": "/missing"}, "/missing"),
        ({"BERTH_WORKERS": "0"}, "BERTH_WORKERS"),
    ],
)
async def test_what_cannot_work_ends_at_once_with_one_sentence(
    settings: dict[str, str], change: dict[str, str], says: str
) -> None:
    settings = {name: value for name, value in (settings | change).items() if value}
    process = await start(settings)
    async with asyncio.timeout(PATIENCE):
        _, log = await process.communicate()
    last = log.decode().strip().splitlines()[-1]
    assert process.returncode == 2, log.decode()
    assert last.startswith("provisioner: ")
    assert says in last
    assert "hidden" not in last


async def test_a_port_in_use_is_named_with_the_setting(settings: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(settings["BERTH_PROVISIONER_METRICS_PORT"]))):
        process = await start(settings)
        async with asyncio.timeout(PATIENCE):
            _, log = await process.communicate()
    assert process.returncode == 2
    assert "BERTH_PROVISIONER_METRICS_PORT" in log.decode()
