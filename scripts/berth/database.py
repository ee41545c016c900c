"""The operator's connection to Berth's database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from scripts.berth.output import CommandError
from scripts.state import from_environment_or_demo

Row = dict[str, Any]

CONNECT_TIMEOUT = 5
OPTIONS = "-c statement_timeout=15s -c timezone=UTC"


def database_url() -> str:
    """Return the database's URL; `CommandError` when nothing names one."""
    url = from_environment_or_demo("BERTH_DATABASE_URL")
    if url is None:
        raise CommandError(
            "no database is named and no demo is running",
            "set BERTH_DATABASE_URL (or BERTH_DATABASE_URL_FILE), or start one with: berth demo",
        )
    return url


@asynccontextmanager
async def connect() -> AsyncIterator[AsyncConnection[Row]]:
    """Open one transaction on Berth's database; `CommandError` when it cannot be reached."""
    try:
        connection = await AsyncConnection.connect(
            database_url(),
            row_factory=dict_row,
            connect_timeout=CONNECT_TIMEOUT,
            options=OPTIONS,
        )
    except OperationalError as error:
        raise CommandError(
            f"the database cannot be reached: {str(error).splitlines()[0]}",
            "check BERTH_DATABASE_URL, and that the server is up; berth demo starts what of a demo is down",
        ) from error
    async with connection:
        yield connection


@asynccontextmanager
async def open_pool() -> AsyncIterator[AsyncConnectionPool[AsyncConnection[Any]]]:
    """Open a small pool, for what the provisioner does too; `CommandError` when the database is away."""
    url = make_conninfo(
        database_url(),
        connect_timeout=CONNECT_TIMEOUT,
        options=OPTIONS,
    )
    async with connect():  # it says why it cannot, which a pool does not
        pass
    async with AsyncConnectionPool(url, min_size=1, max_size=4, timeout=CONNECT_TIMEOUT, open=False) as pool:
        yield pool
