import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from provisioner.clients.kubernetes import KINDS, KubernetesClient
from sandbox.progress import QuietProgress
from scripts import machine
from scripts.demo import customers
from scripts.demo.ports import free_ports
from scripts.demo.services import Outside, Services
from scripts.machine import Cluster
from tests.e2e.harness import Berth

NAME = "test"
SIMULATED = {
    "BERTH_TENANT_NODE_SELECTOR": '{"berth.dev/simulated": "true"}',
    "BERTH_TENANT_TOLERATIONS": '[{"key": "berth.dev/simulated", "operator": "Exists"}]',
    "BERTH_STORAGE_CLASS": "simulated",
}

StartBerth = Callable[..., AbstractAsyncContextManager[Berth]]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The one cluster of the test run; nodes that run containers where root allows, and simulated ones."""
    existing = machine.existing_cluster()
    if existing is not None:
        yield existing
        return
    yield asyncio.run(machine.start_cluster(NAME, QuietProgress(), simulated_nodes=20))
    if not os.environ.get("BERTH_KEEP_CLUSTER"):
        asyncio.run(machine.stop_cluster(NAME))


@pytest.fixture
def start_berth(cluster: Cluster, database_url: str, tmp_path: Path) -> StartBerth:
    """What starts a Berth, for a test to use with `async with`."""

    @asynccontextmanager
    async def start(*, simulated: bool = True, **extra: str) -> AsyncIterator[Berth]:
        outside = Outside(
            database_url,
            cluster.provisioner_kubeconfig,
            cluster.apps_url,
            cluster.ingress_class,
            cluster.storage_class,
        )
        own = SIMULATED if simulated else {}
        services = Services(tmp_path / "services", free_ports(), outside, own | extra)
        try:
            await services.start_stand_ins()
            async with (
                httpx.AsyncClient(base_url=services.api_url, timeout=customers.TIMEOUT) as api,
                KubernetesClient.connect(cluster.kubeconfig) as client,
            ):
                berth = Berth(services, client, api)
                yield berth
                await services.stop()
                await _remove_namespaces(berth)
        finally:
            await services.stop()

    return start


async def _remove_namespaces(berth: Berth) -> None:
    """Ask for the deletion of what the test made; the next test does not wait for it."""
    namespaces = KINDS["Namespace"]
    for row in await berth.instances():
        listing = await berth.cluster.list(namespaces, selector=f"berth.dev/instance={row['id']}")
        for item in listing.items:
            metadata = item["metadata"]
            await berth.cluster.delete(namespaces, None, metadata["name"], uid=metadata["uid"])
