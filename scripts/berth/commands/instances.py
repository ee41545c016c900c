"""berth instances: what runs, how it is, and what happened to it."""

import asyncio
from difflib import get_close_matches
from typing import Annotated

import typer
from psycopg import AsyncConnection

from provisioner.contract.queue import Kind, enqueue
from scripts.berth import instance_queries as queries
from scripts.berth.database import Row, connect
from scripts.berth.output import (
    CommandError,
    JsonFlag,
    console,
    print_fields,
    print_json,
    print_rows,
)
from scripts.state import from_environment_or_demo

app = typer.Typer(no_args_is_help=True, help="See and nudge customers' instances.")

Name = Annotated[str, typer.Argument(help="An instance's id, slug or subscription id.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many rows.")]


@app.command("list", epilog="Example: berth instances list --phase degraded --json")
def list_(
    phase: Annotated[str | None, typer.Option(help="Only this phase, such as ready or degraded.")] = None,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    limit: Limit = 200,
    as_json: JsonFlag = False,
) -> None:
    """List instances, newest first."""
    rows = asyncio.run(_list(phase, product, limit))
    if as_json:
        print_json([{**row, "url": _url(row)} for row in rows])
        return
    columns = {
        "INSTANCE": lambda row: row["id"],
        "SLUG": lambda row: row["slug"],
        "PRODUCT": lambda row: row["product"],
        "PLAN": lambda row: row["plan"],
        "PHASE": lambda row: row["phase"],
        "FOR": lambda row: row["phase_since"],
        "CUSTOMER": lambda row: row["customer"],
        "URL": _url,
    }
    print_rows(rows, columns, empty="no instances")


@app.command(epilog="Example: berth instances show acme")
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show one instance: phase, conditions, size and the newest of its timeline."""
    row, events = asyncio.run(_show(name))
    if as_json:
        print_json({**row, "url": _url(row), "events": events})
        return
    size = row["spec"]["size"]
    print_fields(
        [
            ("instance", row["id"]),
            ("namespace", f"berth-{row['id']}"),
            ("url", _url(row)),
            ("phase", row["phase"]),
            ("product, plan", f"{row['product']}, {row['plan']}"),
            ("customer", f"{row['customer']} ({row['customer_id']})"),
            ("subscription", f"{row['subscription_id']} ({row['subscription_status']})"),
            ("generation", f"{row['generation']} wanted, {row['observed_generation']} observed"),
            ("size", f"{size['cpu_limit']} m CPU, {size['memory'] >> 20} MiB, {size['storage'] >> 30} GiB"),
        ]
    )
    console.print("\n[bold]conditions[/]")
    columns = {
        "TYPE": lambda condition: condition["type"],
        "STATUS": lambda condition: {True: "true", False: "false", None: "unknown"}[condition["status"]],
        "REASON": lambda condition: condition["reason"],
        "MESSAGE": lambda condition: condition["message"],
    }
    print_rows(row["conditions"], columns, empty="none yet")
    console.print("\n[bold]timeline[/]")
    _print_events(events)


@app.command(epilog="Example: berth instances events acme --limit 20")
def events(name: Name, limit: Limit = 100, as_json: JsonFlag = False) -> None:
    """Show what happened to an instance, oldest first."""
    _, rows = asyncio.run(_show(name, limit))
    if as_json:
        print_json(rows)
    else:
        _print_events(rows)


@app.command(epilog="Example: berth instances reconcile acme")
def reconcile(name: Name, as_json: JsonFlag = False) -> None:
    """Ask for a pass over an instance now, whatever its queue item waits for."""
    row = asyncio.run(_reconcile(name))
    if as_json:
        print_json({"instance": row["id"], "enqueued": True})
    else:
        console.print(f"enqueued {row['id']} ({row['slug']})")


@app.command(
    "final-backup", epilog="Example: berth instances final-backup acme --where s3://x/acme.tar --by ann"
)
def final_backup(
    name: Name,
    where: Annotated[str, typer.Option(help="Where the backup is.")],
    by: Annotated[str, typer.Option(help="Who restored it and saw that it is good.")],
    as_json: JsonFlag = False,
) -> None:
    """Record that a suspended instance's last backup was verified: without it, no data is ever deleted."""
    row = asyncio.run(_final_backup(name, f"{where}, verified by {by}"))
    if as_json:
        print_json({"instance": row["id"], "final_backup": where, "verified_by": by})
    else:
        console.print(f"recorded for {row['id']} ({row['slug']})")


async def _final_backup(name: str, note: str) -> Row:
    async with connect() as conn, conn.transaction():
        row = await _find(conn, name)
        if not await queries.record_final_backup(conn, row["id"], note):
            raise CommandError(
                f"{row['slug']} is {row['phase']} and is to be {row['spec']['desired']}: a backup is final"
                " only once the instance is stopped, and to stay so",
                "wait until its phase is suspended, take the backup again",
            )
        return row


async def _list(phase: str | None, product: str | None, limit: int) -> list[Row]:
    async with connect() as conn:
        return await queries.list_instances(conn, phase=phase, product=product, limit=limit)


async def _show(name: str, limit: int = 100) -> tuple[Row, list[Row]]:
    async with connect() as conn:
        row = await _find(conn, name)
        return row, await queries.instance_events(conn, row["id"], limit)


async def _reconcile(name: str) -> Row:
    async with connect() as conn:
        row = await _find(conn, name)
        await enqueue(conn, Kind.INSTANCE, row["id"])
        return row


async def _find(conn: AsyncConnection[Row], name: str) -> Row:
    row = await queries.find_instance(conn, name)
    if row is None:
        near = get_close_matches(name, await queries.similar_names(conn), n=1)
        hint = f"did you mean {near[0]}? otherwise" if near else "see"
        raise CommandError(f"there is no instance {name!r}", f"{hint} berth instances list")
    return row


def _url(row: Row) -> str:
    template = from_environment_or_demo("BERTH_APPS_URL")
    return template.replace("{slug}", row["slug"]) if template else f"https://{row['spec']['host']}"


def _print_events(rows: list[Row]) -> None:
    start = rows[0]["at"] if rows else None
    columns = {
        "AFTER": lambda row: f"{(row['at'] - start).total_seconds():.1f} s",
        "AT": lambda row: f"{row['at']:%Y-%m-%d %H:%M:%S}",
        "REASON": lambda row: row["reason"],
        "MESSAGE": lambda row: row["message"],
    }
    print_rows(rows, columns, empty="nothing has happened yet")
