"""How fast events are taken in: signed, unique, answered once durable; beside pgbench on the same server."""

import asyncio
import json
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psycopg
from psycopg_pool import AsyncConnectionPool
from rich.console import Console

from migrations.runner import migrate
from sandbox import postgres
from sandbox.binaries import ensure
from sandbox.progress import QuietProgress
from scripts.demo.ports import free_port, free_ports
from scripts.demo.services import START_SECONDS, Outside, Services, answers, write_private
from tests.bench.load import Load, Outcome, send
from tests.bench.pgbench import PgBench
from tests.bench.report import Figure
from tests.integration.shop import API_KEY, open_shop

CONNECTIONS = 64
ROUNDS = 3
RATE_SECONDS = 2.5
LATENCY_SECONDS = 5.0
MANY, FEW = 20_000, 10  # subscriptions
SECRET = "whsec_bench"


async def figures(console: Console) -> list[Figure]:
    """Return events/s about many and about few subscriptions, and the latency at half load."""
    async with _services() as services:
        load = await _load(services)
        reference = PgBench(services.outside.database_url, load.template, CONNECTIONS)
        await reference.prepare()
        programs = await ensure(["load"], QuietProgress())
        sender = _Sender(console, programs["load"])
        found = await _measure(console, sender, load, reference)
        await _require_stored(services.outside.database_url, sender.acknowledged)
        return found


async def _measure(console: Console, sender: "_Sender", load: Load, reference: PgBench) -> list[Figure]:
    """Measure in turns, so that a change of the machine's mood meets both sides."""
    many, bare = [], []
    await sender.send("warm-up", replace(load, seconds=1.0))
    for _ in range(ROUNDS):
        bare.append(await reference.rate(RATE_SECONDS))
        console.print(f"  pgbench: {bare[-1]:.0f} rows/s")
        many.append((await sender.send("many subscriptions", load)).rate)
    few = (await sender.send("few subscriptions", replace(load, subscriptions=FEW))).rate
    ours, rows = statistics.median(many), statistics.median(bare)
    half = ours / 2
    timed = await sender.send("half load", replace(load, seconds=LATENCY_SECONDS, rate=half))
    twin = await reference.latencies(LATENCY_SECONDS, half)
    compared = (
        "unique signed events, each about another subscription, answered by one process once durable; against"
        f" pgbench inserting the same JSON, one row per transaction, {CONNECTIONS} connections each"
    )
    at_half = f"at {half:.0f} events/s, from when each was due; against pgbench at that rate"
    return [
        Figure("ingest", "events/s", ours, rows, f"{compared} (goal 0.5)"),
        Figure("ingest, few subscriptions", "events/s", few, rows, f"about {FEW} of them"),
        Figure("ingest p50", "ms", _percentile(timed.latencies, 50), _percentile(twin, 50), at_half),
        Figure(
            "ingest p99",
            "ms",
            _percentile(timed.latencies, 99),
            _percentile(twin, 99),
            f"{at_half} (goal: below 50 ms)",
        ),
    ]


@dataclass(slots=True)
class _Sender:
    """Sends, and counts what was acknowledged."""

    console: Console
    program: Path
    acknowledged: int = 0

    async def send(self, what: str, load: Load) -> Outcome:
        outcome = await send(self.program, load)
        if outcome.refused:
            raise RuntimeError(f"{outcome.refused} events were refused: see the log of platform_api")
        self.acknowledged += len(outcome.latencies)
        self.console.print(f"  {what}: {outcome.rate:.0f} events/s")
        return outcome


def _percentile(seconds: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1000


async def _require_stored(database_url: str, acknowledged: int) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        row = await (await conn.execute("SELECT count(*) FROM stripe_event")).fetchone()
    if row is None or row[0] < acknowledged:
        raise RuntimeError(f"{acknowledged} events were acknowledged and {row} are stored")


async def _load(services: Services) -> Load:
    """Return a load of events like the one that the Stripe stand-in makes of a change to a subscription."""
    async with (
        AsyncConnectionPool(services.outside.database_url, min_size=1, open=False) as pool,
        open_shop(pool) as shop,
    ):
        await shop.pay(await shop.buyer())
        made = await shop.pages.get(
            f"{shop.url}/v1/events", params={"type": "customer.subscription.created"}, auth=(API_KEY, "")
        )
    event = made.raise_for_status().json()["data"][0] | {"type": "customer.subscription.updated"}
    return Load(
        port=services.ports.api,
        secret=SECRET,
        template=json.dumps(event, indent=2),
        subscriptions=MANY,
        connections=CONNECTIONS,
        seconds=RATE_SECONDS,
    )


@asynccontextmanager
async def _services() -> AsyncIterator[Services]:
    """Start a durable database and platform_api, and nothing else: no event is acted upon."""
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        home = Path(folder)
        url = await asyncio.to_thread(postgres.start, home / "postgres", free_port())
        try:
            await asyncio.to_thread(migrate, url)
            nowhere = Outside(url, home / "no-cluster", "http://{slug}.apps.localhost", "none", "none")
            services = Services(home, free_ports(), nowhere, {})
            services.write_secrets()
            write_private(services.webhook_secret_file, SECRET)
            api = services.platform_api
            try:
                api.start()
                await api.wait_ready(partial(answers, f"{services.api_url}/readyz"), START_SECONDS)
                yield services
            finally:
                await api.stop()
        finally:
            await asyncio.to_thread(postgres.stop, home / "postgres")
