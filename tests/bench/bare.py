"""The references: the same manifests applied with nothing around them, and a queue that does nothing."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg_pool import AsyncConnectionPool

from provisioner.clients.helm import Charts
from provisioner.clients.kubernetes import KINDS, KubernetesClient
from provisioner.contract.ids import new_id
from provisioner.contract.queue import Kind, enqueue
from provisioner.contract.spec import SPEC, InstanceSpec
from provisioner.plan import Target
from provisioner.render import Renderer, default_charts_folder
from provisioner.secrets import RootKey
from provisioner.values import PlatformSettings
from provisioner.workqueue import WorkQueue
from tests.e2e.harness import Berth

READY_SECONDS = 120.0


def renderer(berth: Berth) -> Renderer:
    """Return a renderer with the settings the provisioner of `berth` has."""
    settings = berth.services.environment()
    platform = PlatformSettings(
        apps_url=settings["BERTH_APPS_URL"],
        ingress_class=settings["BERTH_INGRESS_CLASS"],
        storage_class=settings["BERTH_STORAGE_CLASS"],
        node_selector=json.loads(settings.get("BERTH_TENANT_NODE_SELECTOR", "{}")),
        tolerations=tuple(json.loads(settings.get("BERTH_TENANT_TOLERATIONS", "[]"))),
    )
    root = RootKey(Path(settings["BERTH_ROOT_KEY_FILE"]).read_bytes().strip())
    return Renderer(Charts(default_charts_folder()), platform, root)


async def twins(berth: Berth, count: int) -> list[Target]:
    """Return the manifests of `count` instances that are like the platform's, under other names."""
    rows = await berth.rows("SELECT spec FROM instance ORDER BY id LIMIT %s", count)
    make = renderer(berth)
    return [await make.target(twin(SPEC.validate_python(row["spec"]))) for row in rows]


def twin(spec: InstanceSpec) -> InstanceSpec:
    """Return `spec` for another instance with another address."""
    return replace(spec, instance_id=new_id("i"), slug=new_id("t"), host=f"{new_id('t')}.apps.localhost")


async def apply_all(cluster: KubernetesClient, targets: list[Target], at_once: int) -> float:
    """Apply all manifests, `at_once` instances at a time; return the seconds until every pod is ready."""
    slots = asyncio.Semaphore(at_once)

    async def one(target: Target) -> None:
        async with slots:
            for manifest in target.manifests:
                await cluster.apply(manifest)

    started = time.monotonic()
    await asyncio.gather(*(one(target) for target in targets))
    await until_available(cluster, {target.namespace["metadata"]["name"] for target in targets})
    return time.monotonic() - started


async def until_available(cluster: KubernetesClient, namespaces: set[str]) -> None:
    """Return once the Deployment of each namespace has all its replicas ready; by watch, as Berth does."""
    kind = KINDS["Deployment"]
    async with asyncio.timeout(READY_SECONDS):
        listing = await cluster.list(kind)
        waiting = namespaces - {_namespace(item) for item in listing.items if _available(item)}
        async with cluster.watch(kind, listing.resource_version) as events:
            while waiting:
                event = await anext(events)
                if event.type in {"ADDED", "MODIFIED"} and _available(event.object):
                    waiting.discard(_namespace(event.object))


async def remove(cluster: KubernetesClient, targets: list[Target]) -> None:
    """Delete the namespaces of `targets`."""
    kind = KINDS["Namespace"]
    for target in targets:
        name = target.namespace["metadata"]["name"]
        found = await cluster.get(kind, None, name)
        await cluster.delete(kind, None, name, uid=found["metadata"]["uid"])


async def empty_passes(pool: AsyncConnectionPool[Any], keys: list[str], seconds: float) -> float:
    """Return passes per second of claim and complete with nothing between, on the queue of `pool`."""
    queue = WorkQueue(pool, "bench", timedelta(seconds=30))
    done = 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        async with pool.connection() as conn:
            await enqueue(conn, Kind.EMAIL, *keys)
        while items := await queue.claim(Kind.EMAIL, 8):
            await asyncio.gather(*(queue.finish(item) for item in items))
            done += len(items)
    return done / (time.monotonic() - started)


def _namespace(item: dict[str, Any]) -> str:
    return str(item["metadata"]["namespace"])


def _available(item: dict[str, Any]) -> bool:
    status = item.get("status") or {}
    return bool(status.get("readyReplicas", 0) >= item["spec"]["replicas"] > 0)
