"""The operator's connection to Berth's database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg.rows import dict_row

from scripts.berth.output import CommandError
from scripts.state import from_environment_or_demo

Row = dict[str, Any]

CONNECT_TIMEOUT = 5
STATEMENT_TIMEOUT = "15s"


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
            options=f"-c statement_timeout={STATEMENT_TIMEOUT}",
        )
    except OperationalError as error:
        raise CommandError(
            f"the database cannot be reached: {str(error).splitlines()[0]}",
            "check BERTH_DATABASE_URL, and that the server is up (for the demo: berth sandbox status)",
        ) from error
    async with connection:
        yield connection
