"""One Berth under test: its own database, stand-ins and processes, on the cluster that all tests share."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from provisioner.clients.kubernetes import KINDS, KubernetesClient
from provisioner.labels import SELECTOR
from scripts.demo import customers
from scripts.demo.customers import Account, Buyer
from scripts.demo.services import Services

T = TypeVar("T")
Row = dict[str, Any]
READY_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Berth:
    """What a test drives."""

    services: Services
    cluster: KubernetesClient
    api: httpx.AsyncClient

    async def buy(self, name: str, plan: str = "starter", product: str = "mindroom") -> Account:
        """Let a new customer `name` sign up and pay."""
        buyer = Buyer(name, f"{name}@customers.example", name, product, plan)
        return await customers.buy(self.api, await customers.sign_up(self.api, buyer))

    async def rows(self, query: str, *arguments: object) -> list[Row]:
        """Run one query on the platform's database."""
        url = self.services.outside.database_url
        async with await AsyncConnection.connect(url, row_factory=dict_row, connect_timeout=5) as conn:
            return await (await conn.execute(query.encode(), arguments)).fetchall()

    async def instances(self) -> list[Row]:
        """Return every instance, oldest first."""
        return await self.rows("SELECT * FROM instance ORDER BY created_at, id")

    async def wait_ready(self, count: int = 1, seconds: float = READY_SECONDS) -> list[Row]:
        """Return the instances once `count` of them are ready."""

        async def ready() -> list[Row] | None:
            found = await self.instances()
            return found if sum(row["phase"] == "ready" for row in found) >= count else None

        return await until(ready, seconds, self.describe)

    async def namespaces(self) -> set[str]:
        """Return the names of this platform's namespaces in the cluster, by the instances it knows."""
        listing = await self.cluster.list(KINDS["Namespace"], selector=SELECTOR)
        return {item["metadata"]["name"] for item in listing.items}

    async def describe(self) -> str:
        """Say how things stand, for a failing test's message."""
        instances = await self.rows("SELECT id, slug, phase, conditions FROM instance")
        queue = await self.rows("SELECT kind, key, attempts, last_error, parked_at FROM work_item")
        return json.dumps({"instances": instances, "queue": queue}, default=str, indent=1)


async def until(
    look: Callable[[], Awaitable[T | None]], seconds: float, describe: Callable[[], Awaitable[str]]
) -> T:
    """Return what `look` finds once it finds something; fails after `seconds` with what `describe` says."""
    deadline = time.monotonic() + seconds
    while (found := await look()) is None:
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {await describe()}")
        await asyncio.sleep(0.05)
    return found
