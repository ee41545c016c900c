"""What the database says after passes over subscriptions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from provisioner.contract.spec import SPEC, InstanceSpec
from tests.integration.queue_tools import Pool


@dataclass(frozen=True)
class Instance:
    id: str
    slug: str
    generation: int
    paid: bool
    phase: str
    delete_at: datetime | None
    spec: InstanceSpec


async def instances(pool: Pool) -> list[Instance]:
    async with pool.connection() as conn:
        found = await conn.execute(
            "SELECT id, slug, generation, paid_at IS NOT NULL, phase, delete_at, spec"
            "  FROM instance ORDER BY created_at"
        )
        return [
            Instance(id_, slug, generation, paid, phase, delete_at, SPEC.validate_python(spec))
            async for id_, slug, generation, paid, phase, delete_at, spec in found
        ]


async def only(pool: Pool) -> Instance:
    (instance,) = await instances(pool)
    return instance


async def everything(pool: Pool) -> dict[str, list[dict[str, Any]]]:
    """Every row that a pass over a subscription may write."""
    async with pool.connection() as conn:
        cursor = conn.cursor(row_factory=dict_row)
        tables = ("checkout", "subscription", "instance", "instance_event", "outbox")
        query = sql.SQL("SELECT * FROM {} ORDER BY 1")
        return {t: await (await cursor.execute(query.format(sql.Identifier(t)))).fetchall() for t in tables}


async def timeline(pool: Pool) -> list[str]:
    async with pool.connection() as conn:
        return [
            reason async for (reason,) in await conn.execute("SELECT reason FROM instance_event ORDER BY id")
        ]


async def mails(pool: Pool) -> list[tuple[str, dict[str, str]]]:
    """Every e-mail in the outbox, its template and data, oldest first."""
    async with pool.connection() as conn:
        rows = await conn.execute("SELECT template, data - 'portal_token' FROM outbox ORDER BY id")
        return [(template, data) async for template, data in rows]
