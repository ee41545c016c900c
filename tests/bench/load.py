"""Signed events, sent over keep-alive connections by a program of its own (`sandbox/go/load`)."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import stripe

from provisioner.contract.ids import new_id

HOST = "127.0.0.1"
_PATH = "/webhooks/stripe"
_GREATEST_RATE = 8000  # events/s prepared for: should more be taken, the run ends a little early


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: events like `template`, each with an id of its own, about `subscriptions` in turn.

    `rate` is in events/s; None means as many as are answered.
    """

    port: int
    secret: str
    template: str
    subscriptions: int
    connections: int
    seconds: float
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: `seconds` until the last answer, and a latency for each event acknowledged."""

    seconds: float
    refused: int
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Acknowledged events per second."""
        return len(self.latencies) / self.seconds


async def send(program: Path, load: Load) -> Outcome:
    """Prepare the requests, let `program` send them, and return when all are answered."""
    count = int(load.seconds * (load.rate or _GREATEST_RATE) * 1.2) + load.connections
    requests = await asyncio.to_thread(_prepared, load, count)
    process = await asyncio.create_subprocess_exec(
        program,
        *("-port", str(load.port), "-connections", str(load.connections)),
        *("-seconds", str(load.seconds), "-rate", str(load.rate or 0)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(requests)
    if process.returncode != 0:
        raise RuntimeError("the load generator failed: its words stand above")
    return Outcome(**json.loads(output))


def _prepared(load: Load, count: int) -> bytes:
    requests = itertools.islice(_requests(load), count)
    return b"".join(len(request).to_bytes(4) + request for request in requests)


def _requests(load: Load) -> Iterator[bytes]:
    event = json.loads(load.template)
    own, about = event["id"], event["data"]["object"]["id"]
    subscriptions = [new_id("sub_") for _ in range(load.subscriptions)]
    for subscription in itertools.cycle(subscriptions):
        # A subscription's items name it too.
        body = load.template.replace(own, new_id("evt_")).replace(about, subscription)
        signature = stripe.WebhookSignature.generate_signature_header(body, load.secret)
        yield (
            f"POST {_PATH} HTTP/1.1\r\nHost: {HOST}:{load.port}\r\nContent-Type: application/json\r\n"
            f"User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nAccept: */*\r\n"
            f"Stripe-Signature: {signature}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}"
        ).encode()
