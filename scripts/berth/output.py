"""How the command line speaks: tables for people, JSON for machines, one sentence and a remedy for errors."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Without a terminal there is no width to keep to: a line is a line, as grep wants it.
WIDTH = None if sys.stdout.isatty() else 200
console = Console(width=WIDTH)
errors = Console(stderr=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class CommandError(Exception):
    """A command cannot go on; the message is one sentence, `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def print_error(message: str, remedy: str | None = None) -> None:
    """Print one error sentence and, if there is one, its remedy, to standard error."""
    errors.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if remedy:
        errors.print(f"[bold]remedy:[/] {escape(remedy)}", soft_wrap=True)


def print_json(value: object) -> None:
    """Print `value` (dataclasses, datetimes and enums included) as indented JSON."""
    sys.stdout.buffer.write(orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def print_rows(rows: Sequence[object], columns: Mapping[str, Callable[[Any], object]], *, empty: str) -> None:
    """Print `rows` as a table; `columns` maps a heading to what it shows of a row."""
    if not rows:
        console.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(show(row)) for show in columns.values()))
    console.print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print name-value pairs, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, _cell(value))
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return age(value)
    return escape(str(value))


def age(moment: datetime) -> str:
    """Return how long ago (or ahead) `moment` is, in its two largest units."""
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    sign, seconds = ("in ", -seconds) if seconds < 0 else ("", seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{sign}{seconds // size}{unit}{seconds % size // part}{smaller}"
    return f"{sign}{seconds}s"
