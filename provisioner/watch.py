"""What the cluster holds of all instances, kept current by one list and watch per kind.

It also rings the queue's doorbell for each instance something changed about.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from provisioner.clients.kubernetes import (
    KINDS,
    GoneError,
    KubernetesClient,
    RefusedError,
    ResourceKind,
    WatchEvent,
)
from provisioner.contract.errors import TemporaryError
from provisioner.contract.queue import Kind, nudge
from provisioner.labels import SELECTOR
from provisioner.observed import Object, Observed, Ref

NAMESPACE_PREFIX: Final = "berth-"

_COALESCE: Final = timedelta(milliseconds=50)
_BACKOFF_FIRST: Final = 0.2  # seconds
_BACKOFF_CAP: Final = 10.0
_KEYS_PER_NUDGE: Final = 1000

log = structlog.get_logger(__name__)


class WatchCache:
    """Run `run()` as a task; read with `observed()`.

    Args:
        client: the cluster.
        pool: the queue's database, for nudges.
    """

    def __init__(self, client: KubernetesClient, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._client = client
        self._pool = pool
        self._namespaces: dict[str, dict[Ref, Object]] = {}
        self._synced: dict[str, asyncio.Event] = {name: asyncio.Event() for name in KINDS}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Follow every kind until cancelled; failures are retried with backoff, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ring())
            for kind in KINDS.values():
                tasks.create_task(self._follow(kind))

    def observed(self, namespace: str) -> Observed | None:
        """Return what is in an instance's namespace; None: unknown, for some kind is not being followed."""
        if not all(self.synced().values()):
            return None
        return Observed(dict(self._namespaces.get(namespace, {})))

    def synced(self) -> Mapping[str, bool]:
        """Per kind: whether it was listed and its changes are arriving."""
        return {name: event.is_set() for name, event in self._synced.items()}

    async def wait_synced(self) -> None:
        """Return once every kind is followed."""
        await asyncio.gather(*(event.wait() for event in self._synced.values()))

    def learn(self, found: Object) -> None:
        """Take over an object the API server just answered with, ahead of its watch event."""
        self._store(KINDS[found["kind"]], found)

    async def _follow(self, kind: ResourceKind) -> None:
        version: str | None = None
        failures = 0
        while True:
            try:
                if version is None:
                    version = await self._relist(kind)
                async with self._client.watch(kind, version, selector=SELECTOR) as events:
                    self._synced[kind.name].set()
                    async for event in events:
                        version = self._take(kind, event)
                        failures = 0
            except GoneError:
                version = None
                failures += 1
            except (TemporaryError, RefusedError) as error:
                self._synced[kind.name].clear()
                failures += 1
                log.warning("watch lost", kind=kind.name, error=str(error), failures=failures)
            if failures:
                ceiling = min(_BACKOFF_CAP, _BACKOFF_FIRST * 2 ** min(failures - 1, 10))
                await asyncio.sleep(ceiling * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret

    async def _relist(self, kind: ResourceKind) -> str:
        listing = await self._client.list(kind, selector=SELECTOR)
        newest = int(listing.resource_version)
        present = {(_namespace(item), item["metadata"]["name"]) for item in listing.items}
        for namespace, objects in list(self._namespaces.items()):
            gone = [
                key
                for key, known in objects.items()
                if key.kind == kind.name
                and (namespace, key.name) not in present
                and _version(known) <= newest  # what we applied after the list was taken stays
            ]
            for key in gone:
                self._drop(namespace, key)
        for item in listing.items:
            if self._store(kind, item):
                self._mark(_namespace(item))
        return listing.resource_version

    def _take(self, kind: ResourceKind, event: WatchEvent) -> str:
        found = event.object
        if event.type == "DELETED":
            self._drop(_namespace(found), Ref(kind.name, found["metadata"]["name"]))
        elif event.type != "BOOKMARK" and self._store(kind, found):
            self._mark(_namespace(found))
        version: str = found["metadata"]["resourceVersion"]
        return version

    def _store(self, kind: ResourceKind, found: Object) -> bool:
        """Keep `found`; False when it is no newer than what is known."""
        namespace, key = _namespace(found), Ref(kind.name, found["metadata"]["name"])
        if not namespace.startswith(NAMESPACE_PREFIX):
            return False
        known = self._namespaces.get(namespace, {}).get(key)
        if known is not None and _version(known) >= _version(found):
            return False
        self._namespaces.setdefault(namespace, {})[key] = _trimmed(kind, found)
        return True

    def _drop(self, namespace: str, key: Ref) -> None:
        objects = self._namespaces.get(namespace, {})
        if objects.pop(key, None) is None:
            return
        if not objects:
            del self._namespaces[namespace]
        self._mark(namespace)

    def _mark(self, namespace: str) -> None:
        self._changed.add(namespace.removeprefix(NAMESPACE_PREFIX))
        self._wake.set()

    async def _ring(self) -> None:
        # Ringing for an instance that cannot be judged yet would only spend its turn.
        await self.wait_synced()
        while True:
            await self._wake.wait()
            await asyncio.sleep(_COALESCE.total_seconds())
            self._wake.clear()
            keys = sorted(self._changed)
            self._changed.clear()
            try:
                await self._nudge(keys)
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("cannot nudge", instances=len(keys), error=str(error))
                self._changed.update(keys)
                self._wake.set()
                await asyncio.sleep(1)

    async def _nudge(self, keys: Iterable[str]) -> None:
        remaining = list(keys)
        while remaining:
            batch, remaining = remaining[:_KEYS_PER_NUDGE], remaining[_KEYS_PER_NUDGE:]
            async with self._pool.connection() as conn:
                await nudge(conn, Kind.INSTANCE, *batch)


def _namespace(found: Object) -> str:
    metadata = found["metadata"]
    namespace: str = metadata["name"] if found["kind"] == "Namespace" else metadata["namespace"]
    return namespace


def _version(found: Object) -> int:
    # Comparable as numbers: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    return int(found["metadata"]["resourceVersion"])


def _trimmed(kind: ResourceKind, found: Object) -> Object:
    """Field ownership is bulk, except where it is all there is to tell that content was changed."""
    if kind.metadata_only:
        return found
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    return {**found, "metadata": metadata}
