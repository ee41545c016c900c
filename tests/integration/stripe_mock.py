"""Stripe's own stripe-mock, which refuses what Stripe's API would not understand, and what was sent to it.

What it says of a request is outside truth; its answers are fixtures that nothing of ours could work with. So
requests are answered by a stand-in, and shown to stripe-mock on the way.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import loopback
from sandbox.binaries import BINARIES, ensure
from sandbox.gobuild import GoCommand
from sandbox.progress import QuietProgress

MODULE = "github.com/stripe/stripe-mock"
START_SECONDS = 60.0
_METHODS = ["GET", "POST", "DELETE"]
_DROPPED = {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Shown:
    """A request, and what stripe-mock said of it; `refusal` is None when it took it."""

    method: str
    path: str
    refusal: str | None


@dataclass
class Witness:
    """Passes requests on to a stand-in, and shows each to stripe-mock first."""

    stand_in: str
    mock: str
    http: httpx.AsyncClient
    shown: list[Shown] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        """The stand-in's answer."""
        content, path = await request.body(), request.url.path
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        if request.url.query:
            path = f"{path}?{request.url.query}"
        told = await self.http.request(request.method, self.mock + path, headers=headers, content=content)
        refusal = None if told.is_success else told.json()["error"]["message"]
        self.shown.append(Shown(request.method, request.url.path, refusal))
        given = await self.http.request(
            request.method, self.stand_in + path, headers=headers, content=content
        )
        kept = {name: value for name, value in given.headers.items() if name.lower() not in _DROPPED}
        return Response(given.content, given.status_code, kept)


@asynccontextmanager
async def witness(stand_in: str, folder: Path) -> AsyncIterator[tuple[str, Witness]]:
    """Lend an address to call the stand-in at, and the record of what was called."""
    async with (
        stripe_mock(folder) as mock,
        httpx.AsyncClient(timeout=20, trust_env=False) as http,
    ):
        watching = Witness(stand_in, mock, http)
        app = Starlette(routes=[Route("/{path:path}", watching.answer, methods=_METHODS)])
        with loopback.listener(0) as listening:
            async with loopback.answering(app, listening):
                yield f"http://127.0.0.1:{loopback.port_of(listening)}", watching


@asynccontextmanager
async def stripe_mock(folder: Path) -> AsyncIterator[str]:
    """Run stripe-mock, built from its Go module; `folder` is for its file."""
    program = (await ensure(["stripe-mock"], QuietProgress()))["stripe-mock"]
    source = await GoCommand.find().module_directory(BINARIES["stripe-mock"].folder, MODULE)
    document = folder / "spec3.json"
    document.write_text(json.dumps(closed(json.loads((source / "embedded/openapi/spec3.json").read_bytes()))))
    command = [
        str(program),
        "-http-addr",
        "127.0.0.1:0",
        "-https-addr",
        "127.0.0.1:0",
        "-spec",
        str(document),
    ]
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            yield await _address(running)
    finally:
        running.kill()
        await running.wait()


async def _address(running: asyncio.subprocess.Process) -> str:
    said = ""
    assert running.stdout is not None
    async for line in running.stdout:
        said += line.decode()
        if "Listening for HTTP at address:" in said:
            return "http://" + said.split("Listening for HTTP at address:")[1].split()[0]
    raise AssertionError(f"stripe-mock did not start: {said}")


def closed(document: Any) -> Any:  # noqa: ANN401  # any JSON
    """The document with closed objects in its requests: as published, only the outermost are."""
    for calls in document["paths"].values():
        for call in calls.values():
            for place in (call, *call.get("parameters", ())):
                _close(place.get("requestBody", {}).get("content", {}))
                _close(place.get("schema", {}))
    return document


def _close(node: Any) -> None:  # noqa: ANN401  # any JSON
    if isinstance(node, dict):
        if "properties" in node and node.get("type") == "object":
            node.setdefault("additionalProperties", False)
        for value in node.values():
            _close(value)
    elif isinstance(node, list):
        for value in node:
            _close(value)
