"""The sample tenant application as its own process, as a pod would run it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from sandbox.binaries import BINARIES, ensure
from sandbox.progress import QuietProgress
from scripts.demo.ports import free_port

_START_SECONDS = 10.0
_BOUGHT = {
    "instance": "i1",
    "customer": "Acme",
    "product": "mindroom",
    "title": "MindRoom",
    "plan": "starter",
    "slug": "acme",
    "limits": {"notes": 2, "users": None},
}


@dataclass(frozen=True)
class Place:
    """Where one tenant's files are."""

    data: Path
    entitlements: Path

    def environment(self, port: int) -> dict[str, str]:
        return {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DATA_DIR": str(self.data),
            "BERTH_ENTITLEMENTS_FILE": str(self.entitlements),
        }


@dataclass(frozen=True)
class Running:
    """The application, and a client of it."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient


@pytest.fixture
async def program() -> Path:
    return (await ensure(["sample"], QuietProgress()))["sample"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    data = tmp_path / "data"
    data.mkdir()
    entitlements = tmp_path / "entitlements.json"
    entitlements.write_text(json.dumps(_BOUGHT))
    return Place(data, entitlements)


async def _start(program: Path, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        program, env=environment, cwd="/", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )


@asynccontextmanager
async def _running(program: Path, place: Place, **more: str) -> AsyncIterator[Running]:
    port = free_port()
    process = await _start(program, place.environment(port) | more)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            await _answering(client)
            yield Running(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _answering(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await client.get("/metrics")
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
            else:
                return


async def _requests(client: httpx.AsyncClient) -> int:
    """How many requests the application has received, this one included."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("requests_total "))


async def test_tells_what_was_bought(program: Path, place: Place) -> None:
    async with _running(program, place) as app:
        info = (await app.client.get("/api/info")).json()
        assert info.items() >= _BOUGHT.items()
        assert info["hostname"] == socket.gethostname()
        assert info["started_at"].endswith("Z")
        page = (await app.client.get("/")).text
        assert "acme" in page
        assert "starter" in page
        place.entitlements.write_text(json.dumps(_BOUGHT | {"plan": "professional"}))
        assert (await app.client.get("/api/info")).json()["plan"] == "professional"


async def test_a_note_that_was_answered_for_survives_a_kill(program: Path, place: Place) -> None:
    async with _running(program, place) as app:
        kept = await app.client.post("/api/notes", json={"text": "remember"})
        assert kept.status_code == 201
        app.process.kill()
        await app.process.wait()
    async with _running(program, place) as app:
        notes = (await app.client.get("/api/notes")).json()["notes"]
        assert [note["text"] for note in notes] == ["remember"]
        metrics = (await app.client.get("/metrics")).text.splitlines()
        assert "notes_total 1" in metrics
        assert "up 1" in metrics


async def test_the_plan_s_limit_and_the_largest_body_hold(program: Path, place: Place) -> None:
    async with _running(program, place) as app:
        sizes = [10, 10, 10, 65 * 1024]
        answers = [await app.client.post("/api/notes", json={"text": "x" * size}) for size in sizes]
        assert [answer.status_code for answer in answers] == [201, 201, 403, 413]
        assert "limit" in answers[2].json()["error"]


async def test_ends_in_peace_even_while_hanging(program: Path, place: Place) -> None:
    async with _running(program, place, BERTH_SAMPLE_MODE="hang") as app:
        before = await _requests(app.client)
        hanging = asyncio.create_task(app.client.get("/healthz"))
        async with asyncio.timeout(_START_SECONDS):
            asked = 1
            while await _requests(app.client) == before + asked:
                asked += 1
        assert not hanging.done()
        app.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(app.process.wait(), 8) == 0
        await asyncio.gather(hanging, return_exceptions=True)


@pytest.mark.parametrize(("mode", "status"), [("ok", 200), ("fail", 500)])
async def test_starts_in_the_mode_it_is_told(program: Path, place: Place, mode: str, status: int) -> None:
    async with _running(program, place, BERTH_SAMPLE_MODE=mode) as app:
        assert (await app.client.get("/healthz")).status_code == status
        await app.client.post("/api/switch", json={"mode": "ok"})
        assert (await app.client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("mode", ["crash", "nonsense"])
async def test_crashes_when_told(program: Path, place: Place, mode: str) -> None:
    process = await _start(program, place.environment(free_port()) | {"BERTH_SAMPLE_MODE": mode})
    _, said = await asyncio.wait_for(process.communicate(), _START_SECONDS)
    assert process.returncode == 1
    assert mode in said.decode()


@pytest.mark.slow
def test_its_own_go_tests_pass() -> None:
    run = subprocess.run(
        ["go", "test", "./..."],
        cwd=BINARIES["sample"].folder,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
