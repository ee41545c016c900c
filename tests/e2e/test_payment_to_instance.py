"""Signed event to ready instance, on the real API server, with real and with simulated pods."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from provisioner.clients.kubernetes import KINDS, KubernetesClient
from provisioner.labels import SELECTOR
from scripts.demo import customers
from scripts.demo.loopback import LoopbackTransport
from tests.e2e.conftest import StartBerth
from tests.e2e.harness import until

ISOLATION = ("ResourceQuota", "LimitRange", "NetworkPolicy", "ServiceAccount")

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("simulated", [True, pytest.param(False, marks=pytest.mark.real_pods)])
async def test_invariant_04_isolation_exists_before_the_first_pod(
    start_berth: StartBerth, *, simulated: bool
) -> None:
    async with start_berth(simulated=simulated) as berth, creations(berth.cluster) as seen:
        await berth.services.start()
        await berth.buy("acme")
        [instance] = await berth.wait_ready()
        namespace = f"berth-{instance['id']}"

        mine = [(kind, version) for kind, of, version in seen if of == namespace]
        first_pod = min(version for kind, version in mine if kind == "Pod")
        for kind in ISOLATION:
            assert [version for k, version in mine if k == kind and version < first_pod], kind
        assert len([k for k, version in mine if k == "NetworkPolicy" and version < first_pod]) >= 2

        found = await berth.cluster.get(KINDS["Namespace"], None, namespace)
        assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        for label, value in {
            "app.kubernetes.io/managed-by": "berth",
            "berth.dev/instance": instance["id"],
            "berth.dev/customer": instance["customer_id"],
            "berth.dev/product": "mindroom",
            "berth.dev/plan": "starter",
        }.items():
            assert found["metadata"]["labels"][label] == value


@pytest.mark.real_pods
async def test_a_customer_pays_and_opens_their_own_address(start_berth: StartBerth) -> None:
    async with start_berth(simulated=False) as berth:
        await berth.services.start()
        await asyncio.gather(berth.buy("acme", "starter"), berth.buy("globex", "professional"))
        instances = {row["slug"]: row for row in await berth.wait_ready(2)}
        async with httpx.AsyncClient(transport=LoopbackTransport(), timeout=5) as web:
            for slug, plan, agents in (("acme", "starter", 3), ("globex", "professional", 10)):
                url = berth.services.outside.apps_url.replace("{slug}", slug)
                info = await customers.wait_for_info(web, url, 30)
                assert info["instance"] == instances[slug]["id"]
                assert info["plan"] == plan
                assert info["limits"]["agents"] == agents


async def test_the_customer_is_told_once(start_berth: StartBerth) -> None:
    async with start_berth() as berth, httpx.AsyncClient(timeout=5) as web:
        await berth.services.start()
        account = await berth.buy("acme")
        await berth.wait_ready()

        async def subjects() -> list[str] | None:
            answer = await web.get(
                f"{berth.services.mailbox_url}/api/messages", params={"to": account.buyer.email}
            )
            found = sorted(message["subject"] for message in answer.json()["data"])
            return found if len(found) >= 2 else None

        ready, trial = await until(subjects, 20, berth.describe)
        assert "ready" in ready
        assert "trial" in trial


@asynccontextmanager
async def creations(cluster: KubernetesClient) -> AsyncIterator[list[tuple[str, str, int]]]:
    """Collect (kind, namespace, resource version at creation) of what is made while the block runs."""
    seen: list[tuple[str, str, int]] = []
    started = [asyncio.Event() for _ in (*ISOLATION, "Pod")]

    async def follow(name: str, ready: asyncio.Event) -> None:
        kind = KINDS[name]
        listing = await cluster.list(kind, selector=SELECTOR)
        async with cluster.watch(kind, listing.resource_version, selector=SELECTOR) as events:
            ready.set()
            async for event in events:
                if event.type == "ADDED":
                    metadata = event.object["metadata"]
                    seen.append((name, metadata["namespace"], int(metadata["resourceVersion"])))

    tasks = [
        asyncio.create_task(follow(name, ready))
        for name, ready in zip((*ISOLATION, "Pod"), started, strict=True)
    ]
    try:
        await asyncio.gather(*(ready.wait() for ready in started))
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
