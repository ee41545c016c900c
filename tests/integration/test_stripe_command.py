"""`berth sandbox stripe`: the stand-in alone, as somebody without the rest of Berth starts it."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe_api.app import serve
from sandbox.stripe_api.control import Control
from sandbox.stripe_api.guide import CONTROLS

BERTH = Path(sys.executable).with_name("berth")


@contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command with --json, and what it said once it listened."""
    with subprocess.Popen(
        [BERTH, "sandbox", "stripe", "--json", *words], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            lines: list[str] = []
            for line in running.stdout:
                lines.append(line)
                if line == "}\n":
                    break
            yield running, json.loads("".join(lines))
        finally:
            running.kill()


def test_it_says_how_to_use_it_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    with started("--port", "0", "--state", str(tmp_path / "stripe.sqlite")) as (running, said):
        client = stripe.StripeClient(said["key"], base_addresses={"api": said["url"]})
        made = client.v1.customers.create({"email": "ada@example.com"})
        assert client.v1.customers.retrieve(made.id).email == "ada@example.com"
        assert httpx.get(f"{said['url']}/_sandbox/health", trust_env=False).json() == {"ok": True}
        assert said["url"] in said["clients"]["Python"]
        assert "pays" in said["cards"]["4242 4242 4242 4242"]
        assert "test clocks" in said["differences"]["lists"]

        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("words", "remedy"),
    [(("--port", "{port}"), "--port 0"), (("--port", "0", "--state", "/proc/x"), "--state FILE")],
)
async def test_what_cannot_be_had_is_one_sentence_and_a_remedy(words: tuple[str, ...], remedy: str) -> None:
    async with serve() as taken:
        port = taken.url.rpartition(":")[2]
        command = [str(BERTH), "sandbox", "stripe", *(word.format(port=port) for word in words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: ASYNC221
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\nremedy: [^\n]+\n", done.stderr), done.stderr
    assert remedy in done.stderr


async def test_the_guide_lists_every_control() -> None:
    async with serve() as server:
        routes = Control(server.ledger).routes()
    listed = {call.partition(" ")[::2] for call in CONTROLS}
    methods = {(method, route.path) for route in routes for method in route.methods or () if method != "HEAD"}
    assert listed == methods
