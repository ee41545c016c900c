"""Sends signed events over keep-alive connections and times the answers; a process of its own.

Closed loop for the greatest rate: each connection sends again as soon as it is answered. Open loop for the
latency at a given rate: events come due at random moments (Poisson) whether or not earlier ones are answered,
and each is timed from the moment it was due, as `pgbench --rate` does it.
"""

import asyncio
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import stripe
import uvloop

from provisioner.contract.ids import new_id

HOST = "127.0.0.1"
_PATH = "/webhooks/stripe"
_GREATEST_RATE = 8000  # events/s prepared for: should more be taken, the run ends a little early
_ANSWER_SECONDS = 15.0


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


@dataclass(slots=True)
class Outcome:
    """What came of it: `seconds` until the last answer, and a latency for each event acknowledged."""

    seconds: float = 0.0
    refused: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Acknowledged events per second."""
        return len(self.latencies) / self.seconds


def send(load: Load) -> Outcome:
    """Prepare the requests, send them, and return when all are answered."""
    count = int(load.seconds * (load.rate or _GREATEST_RATE) * 1.2) + load.connections
    requests = deque(itertools.islice(_requests(load), count))
    return uvloop.run(_Run(load, requests).run())


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


class _Run:
    def __init__(self, load: Load, requests: deque[bytes]) -> None:
        self.outcome = Outcome()
        self._load = load
        self._requests = requests
        self._idle: list[_Connection] = []
        self._due: deque[float] = deque()
        self._under_way = 0
        self._end = 0.0
        self._done = asyncio.Event()

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        for _ in range(self._load.connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), HOST, self._load.port)
            self._idle.append(connection)
        started = time.perf_counter()
        self._end = started + self._load.seconds
        if self._load.rate is None:
            self._due.extend([started] * self._load.connections)
            self._dispatch()
        else:
            await self._come_due(self._load.rate, started)
        async with asyncio.timeout(self._load.seconds + _ANSWER_SECONDS):
            await self._done.wait()
        self.outcome.seconds = time.perf_counter() - started
        return self.outcome

    def answered(self, connection: "_Connection", status: int, due: float) -> None:
        now = time.perf_counter()
        self._under_way -= 1
        self._idle.append(connection)
        if status == 200:
            self.outcome.latencies.append(now - due)
        else:
            self.outcome.refused += 1
        if self._load.rate is None and now < self._end:
            self._due.append(now)
        self._dispatch()
        if not self._under_way and (now >= self._end or not self._requests):
            self._done.set()

    async def _come_due(self, rate: float, started: float) -> None:
        chance = random.Random(1)  # noqa: S311  # the same moments in every run
        at = started
        while (at := at + chance.expovariate(rate)) < self._end:
            if (wait := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._due.append(at)
            self._dispatch()
        if not self._under_way:
            self._done.set()
        self._end = 0.0

    def _dispatch(self) -> None:
        while self._due and self._idle and self._requests:
            self._under_way += 1
            self._idle.pop().send(self._requests.popleft(), self._due.popleft())


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._due = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = b""
        self._run.answered(self, int(head[9:12]), self._due)
