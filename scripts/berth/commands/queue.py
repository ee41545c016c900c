"""berth queue: what waits, what runs, what is stuck and why."""

import asyncio
from typing import Annotated

import typer

from provisioner import queue_view, workqueue
from provisioner.contract.queue import Kind
from provisioner.queue_view import QueueRow, State
from scripts.berth.database import connect
from scripts.berth.output import CommandError, JsonFlag, console, print_fields, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="See and mend the work queue.")

KindArgument = Annotated[Kind, typer.Argument(help="The object's kind.")]
KeyArgument = Annotated[
    str, typer.Argument(help="The object's key: ch_…, sub_…, an instance's id, an e-mail's number.")
]


@app.command("list", epilog="Example: berth queue list --state parked")
def list_(
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.")] = None,
    state: Annotated[State | None, typer.Option(help="Only items in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many rows.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List work items: parked ones first, then by when they are due."""
    rows = asyncio.run(_list(kind, state, limit))
    if as_json:
        print_json(rows)
        return
    columns = {
        "KIND": lambda row: row.kind,
        "KEY": lambda row: row.key,
        "STATE": lambda row: row.state,
        "DUE": lambda row: row.due_at,
        "ATTEMPTS": lambda row: row.attempts,
        "LAST ERROR": lambda row: row.last_error,
    }
    print_rows(
        rows, columns, empty="the queue is empty" if kind is None and state is None else "no such items"
    )


@app.command(epilog="Example: berth queue show subscription sub_1Nx…")
def show(kind: KindArgument, key: KeyArgument, as_json: JsonFlag = False) -> None:
    """Show one work item."""
    row = asyncio.run(_show(kind, key))
    if as_json:
        print_json(row)
    else:
        print_fields((name, getattr(row, name)) for name in QueueRow.__dataclass_fields__)


@app.command(epilog="Example: berth queue retry subscription sub_1Nx…")
def retry(kind: KindArgument, key: KeyArgument, as_json: JsonFlag = False) -> None:
    """Make an item due now: after you have mended what parked it, or to cut a backoff short."""
    asyncio.run(_retry(kind, key))
    if as_json:
        print_json({"kind": kind, "key": key, "retried": True})
    else:
        console.print(f"{kind} {key} is due now")


async def _list(kind: Kind | None, state: State | None, limit: int) -> list[QueueRow]:
    async with connect() as conn:
        return await queue_view.list_items(conn, kind, state, limit)


async def _show(kind: Kind, key: str) -> QueueRow:
    async with connect() as conn:
        row = await queue_view.show_item(conn, kind, key)
    if row is None:
        raise _unknown(kind, key)
    return row


async def _retry(kind: Kind, key: str) -> None:
    async with connect() as conn:
        if not await workqueue.retry(conn, kind, key):
            raise _unknown(kind, key)


def _unknown(kind: Kind, key: str) -> CommandError:
    return CommandError(f"there is no work item {kind} {key!r}", "see berth queue list")
