"""make bench: runs every benchmark and writes docs/benchmarks.md; `ARGS=ingest` runs that alone."""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from psycopg_pool import AsyncConnectionPool
from rich.console import Console

from migrations.runner import migrate
from provisioner.clients.kubernetes import KubernetesClient
from provisioner.contract.queue import Kind, enqueue
from sandbox import postgres
from scripts import machine
from scripts.berth.progress import RichProgress
from scripts.demo import customers
from scripts.demo.ports import free_port, free_ports
from scripts.demo.services import Outside, Services
from scripts.machine import Cluster
from tests.bench import bare, ingest
from tests.bench.report import Figure, write
from tests.e2e.conftest import SIMULATED
from tests.e2e.harness import Berth

NAMES = {"ingest", "provision", "ready"}
NAME = "bench"
INSTANCES = 50
REAL_INSTANCES = 5
NOOP_SECONDS = 10.0
WORKERS = 8

console = Console()


async def main(names: set[str]) -> None:
    """Run the benchmarks of these names; only all of them together make the document."""
    figures = []
    if "ingest" in names:
        console.print("ingest: events against a running platform_api")
        figures += await ingest.figures(console)
    if names != {"ingest"}:
        figures += await cluster_figures(names)
    sys.stdout.write(write(figures) if names == NAMES else "".join(f"{figure.row()}\n" for figure in figures))


async def cluster_figures(names: set[str]) -> list[Figure]:
    """Return the figures that take a cluster, measured on one of their own."""
    figures = []
    cluster = await machine.start_cluster(NAME, RichProgress(console), simulated_nodes=10)
    try:
        if "provision" in names:
            figures += await simulated_figures(cluster)
        if "ready" in names and not cluster.simulated:
            figures.append(await ready_figure(cluster))
    finally:
        await machine.stop_cluster(NAME)
    return figures


async def simulated_figures(cluster: Cluster) -> list[Figure]:
    """Return provisions/s with simulated pods, then no-op passes/s over the same instances."""
    async with berth_on(cluster, simulated=True) as berth:
        console.print(f"provision: {INSTANCES} instances with simulated pods")
        await berth.services.start_all_but_provisioner()
        for number in range(INSTANCES):
            await berth.buy(f"tenant-{number}")
        started = time.monotonic()
        await berth.services.start_provisioner()
        await berth.wait_ready(INSTANCES, bare.READY_SECONDS)
        ours = INSTANCES / (time.monotonic() - started)
        noop = await noop_figure(berth)
        await berth.services.provisioner().stop()
        targets = await bare.twins(berth, INSTANCES)
        reference = INSTANCES / await bare.apply_all(berth.cluster, targets, WORKERS)
    return [
        Figure(
            "provision",
            "instances/s",
            ours,
            reference,
            f"{INSTANCES} paid subscriptions to ready, against a bare server-side apply of the same"
            f" manifests, {WORKERS} at a time (kwok nodes; the provisioner's own start included)",
        ),
        noop,
    ]


async def noop_figure(berth: Berth) -> Figure:
    """Return no-op passes per second over all instances, by the provisioner's own counter."""
    console.print("noop: passes that change nothing")
    keys = [row["id"] for row in await berth.instances()]
    url = f"http://127.0.0.1:{berth.services.ports.provisioner_metrics}/metrics"
    async with (
        AsyncConnectionPool(berth.services.outside.database_url, min_size=4, max_size=16) as pool,
        httpx.AsyncClient(timeout=5) as web,
    ):
        before, started = await completed(web, url), time.monotonic()
        while time.monotonic() - started < NOOP_SECONDS:
            async with pool.connection() as conn:
                await enqueue(conn, Kind.INSTANCE, *keys)
            await asyncio.sleep(0.02)
        ours = (await completed(web, url) - before) / (time.monotonic() - started)
        reference = await bare.empty_passes(pool, keys, NOOP_SECONDS)
    return Figure(
        "no-op reconcile",
        "passes/s",
        ours,
        reference,
        "against claim and complete of the same queue with nothing between",
    )


async def ready_figure(cluster: Cluster) -> Figure:
    """Return the median seconds from payment to ready on the real kubelet."""
    console.print(f"ready: {REAL_INSTANCES} instances on the real kubelet, one after another")
    async with berth_on(cluster, simulated=False) as berth:
        await berth.services.start()
        ours, reference = [], []
        for number in range(REAL_INSTANCES):
            paid = (await berth.buy(f"tenant-{number}")).paid_at or 0.0
            rows = await berth.wait_ready(number + 1)
            ours.append(rows[-1]["ready_at"].timestamp() - paid)
        for target in await bare.twins(berth, REAL_INSTANCES):
            reference.append(await bare.apply_all(berth.cluster, [target], 1))
            await bare.remove(berth.cluster, [target])
    return Figure(
        "payment to ready",
        "s",
        statistics.median(ours),
        statistics.median(reference),
        "real kubelet, median; against a bare server-side apply of the same manifests until the pod is"
        " ready (goal 1.15)",
    )


async def completed(web: httpx.AsyncClient, url: str) -> float:
    """Return how many instance passes the provisioner has completed."""
    wanted = 'berth_work_outcomes_total{kind="instance",outcome="completed"}'
    lines = (await web.get(url)).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(wanted))


@asynccontextmanager
async def berth_on(cluster: Cluster, *, simulated: bool) -> AsyncIterator[Berth]:
    """Start the stand-ins and a durable database for one benchmark, and remove them after it."""
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        home = Path(folder)
        url = await asyncio.to_thread(postgres.start, home / "postgres", free_port())
        try:
            await asyncio.to_thread(migrate, url)
            outside = Outside(
                url,
                cluster.provisioner_kubeconfig,
                cluster.apps_url,
                cluster.ingress_class,
                cluster.storage_class,
            )
            extra = (SIMULATED if simulated else {}) | {"BERTH_WORKERS": str(WORKERS)}
            services = Services(home / "services", free_ports(), outside, extra)
            async with (
                httpx.AsyncClient(base_url=services.api_url, timeout=customers.TIMEOUT) as api,
                KubernetesClient.connect(cluster.kubeconfig) as client,
            ):
                try:
                    yield Berth(services, client, api)
                finally:
                    await services.stop()
        finally:
            await asyncio.to_thread(postgres.stop, home / "postgres")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench", description="Measure Berth beside references.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(sorted(NAMES))} (all)")
    chosen = set(parser.parse_args().names) or NAMES
    if unknown := chosen - NAMES:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    asyncio.run(main(chosen))
