"""`python -m platform_api` as it is run: how it starts, dies and stops."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from sandbox.processes import Daemon
from scripts.demo.ports import free_port
from tests.integration.platform_api_support import SECRET, deliver, event, until

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "platform_api")


def environment(folder: Path, database_url: str) -> dict[str, str]:
    """Secrets by file, as in production."""
    (folder / "database").write_text(database_url + "\n")
    (folder / "secret").write_text(SECRET + "\n")
    return {
        "BERTH_DATABASE_URL_FILE": str(folder / "database"),
        "BERTH_WEBHOOK_SECRET_FILE": str(folder / "secret"),
        "BERTH_STRIPE_API_KEY": "sk_test_process",
        "BERTH_STRIPE_API_URL": "http://127.0.0.1:9",
        "BERTH_APPS_URL": "http://{slug}.apps.localhost",
        "BERTH_API_PORT": str(free_port()),
        "BERTH_API_METRICS_PORT": str(free_port()),
    }


class Process:
    """A platform_api of its own, and a client that outlives it."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.daemon = Daemon("api", COMMAND, folder, settings, REPOSITORY)
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings['BERTH_API_PORT']}", timeout=15)
        self.metrics_url = f"http://127.0.0.1:{settings['BERTH_API_METRICS_PORT']}/metrics"

    async def start(self) -> None:
        self.daemon.start()
        await self.daemon.wait_ready(self._is_ready, 60)

    async def _is_ready(self) -> bool:
        try:
            return (await self.client.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def kill(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        pid = self.daemon.pid()
        assert pid is not None
        os.kill(pid, number)
        await until(self._has_ended)

    async def _has_ended(self) -> bool:
        return not self.daemon.is_running()


@pytest.fixture
async def process(tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    running = Process(tmp_path, environment(tmp_path, database_url))
    try:
        await running.start()
        yield running
    finally:
        await running.daemon.stop()
        await running.client.aclose()


async def rows(database_url: str, query: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        return await (await conn.execute(query.encode())).fetchall()


async def deliver_until_acknowledged(client: httpx.AsyncClient, what: dict[str, Any]) -> None:
    """Send one event as Stripe does: again until it is acknowledged, though not after hours."""
    for _ in range(600):
        try:
            if (await deliver(client, what)).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError("never acknowledged")


async def test_invariant_01_killed_at_any_moment_it_has_stored_what_it_acknowledged(
    process: Process, database_url: str
) -> None:
    events = [event() for _ in range(400)]
    waiting = iter(events)
    acknowledged: list[str] = []

    async def send() -> None:
        for what in waiting:
            await deliver_until_acknowledged(process.client, what)
            acknowledged.append(what["id"])

    async def so_many(count: int) -> bool:
        return len(acknowledged) >= count

    sending = asyncio.gather(*(send() for _ in range(8)))
    for kill in range(1, 6):
        await until(partial(so_many, kill * 60))
        await process.kill(signal.SIGKILL)
        stored = {row[0] for row in await rows(database_url, "SELECT id FROM stripe_event")}
        assert set(acknowledged) <= stored
        await process.start()
    await sending
    assert sorted(await rows(database_url, "SELECT id FROM stripe_event")) == sorted(
        (what["id"],) for what in events
    )
    assert sorted(await rows(database_url, "SELECT key FROM work_item")) == sorted(
        (what["data"]["object"]["id"],) for what in events
    )


async def test_it_stops_when_asked_and_answers_what_it_had_begun(process: Process, database_url: str) -> None:
    # A lock keeps the requests waiting until the signal has been given.
    async def five_wait() -> bool:
        metrics = (await process.client.get(process.metrics_url)).text
        return "\nberth_api_stripe_events_waiting 5.0\n" in metrics

    async with await psycopg.AsyncConnection.connect(database_url) as locking:
        await locking.execute("LOCK TABLE stripe_event")
        begun = [asyncio.create_task(deliver(process.client, event())) for _ in range(5)]
        await until(five_wait)
        stopping = asyncio.create_task(process.kill(signal.SIGTERM))
        await locking.rollback()
    assert [answer.status_code for answer in await asyncio.gather(*begun)] == [200] * 5
    await stopping
    log = process.daemon.log_file.read_text(encoding="utf-8").splitlines()
    assert json.loads(log[-1])["event"] == "stopped"


async def test_it_keeps_counts_on_a_port_of_their_own_and_secrets_out_of_its_log(
    process: Process, database_url: str
) -> None:
    await deliver(process.client, event())
    await process.client.post("/webhooks/stripe", content="{}")
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(process.metrics_url)).text
    assert 'berth_api_requests_total{method="POST",route="/webhooks/stripe",status="200"} 1.0' in metrics
    assert (await process.client.get("/metrics")).status_code == 404
    log = process.daemon.log_file.read_text(encoding="utf-8")
    assert "/webhooks/stripe" in log
    password = database_url.partition("@")[0].rpartition(":")[2]
    for secret in (SECRET, "sk_test_process", password):
        assert secret not in log


def run(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, cwd=REPOSITORY, env=settings, capture_output=True, text=True, timeout=60, check=False
    )


def test_missing_settings_are_named_all_at_once() -> None:
    ended = run({"BERTH_APPS_URL": "http://no-place.example.com", "BERTH_WEBHOOK_SECRET": "whsec_hidden"})
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    for name in ("BERTH_DATABASE_URL", "BERTH_STRIPE_API_KEY", "BERTH_APPS_URL", "{slug}"):
        assert name in ended.stderr
    assert "whsec_hidden" not in ended.stderr


@pytest.mark.parametrize("setting", ["BERTH_API_PORT", "BERTH_API_METRICS_PORT"])
def test_a_port_in_use_is_one_sentence_with_the_remedy(tmp_path: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = environment(tmp_path, "postgresql://127.0.0.1:9/x?connect_timeout=1")
        ended = run(settings | {setting: str(taken.getsockname()[1])})
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert setting in last
    assert "in use" in last
    assert "Traceback" not in ended.stderr
