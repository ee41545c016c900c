"""The handler of instance items: make one instance match its spec, and say how it is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from provisioner.clients.helm import Charts
from provisioner.clients.kubernetes import KubernetesClient
from provisioner.secrets import RootKey
from provisioner.values import PlatformSettings
from provisioner.watch import WatchCache
from provisioner.workqueue import Lease, WorkItem


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHandler:
    """Handles Kind.INSTANCE.

    Attributes:
        pool: the database, for reading; writes go through the lease.
        client: the cluster.
        cache: what is in the cluster; someone must be running it.
        charts: the charts instances are made from.
        platform: what all instances share.
        root: the key instance secrets come from.
    """

    pool: AsyncConnectionPool[AsyncConnection[Any]]
    client: KubernetesClient
    cache: WatchCache
    charts: Charts
    platform: PlatformSettings
    root: RootKey

    async def handle(self, item: WorkItem, lease: Lease) -> datetime | None:
        """Bring the instance `item.key` closer to its spec; returns when to look again at the latest."""
        raise NotImplementedError
