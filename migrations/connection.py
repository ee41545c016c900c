"""The session in which a database is migrated."""

from typing import Final

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

_CONNECT_SECONDS: Final = 10
# A table that stays locked fails the migration instead of queueing every other query behind it.
_SESSION: Final = "-c lock_timeout=30s -c statement_timeout=1h -c client_encoding=UTF8"


class MigrationError(Exception):
    """The database was not migrated: one sentence and the remedy."""


def connect(database_url: str) -> Connection:
    """Open an autocommit session whose waits are bounded; they are its defaults, so RESET ALL keeps them.

    Raises:
        MigrationError: the URL cannot be read, or the database not be reached.
    """
    try:
        options = f"{conninfo_to_dict(database_url).get('options', '')} {_SESSION}"
        return psycopg.connect(
            database_url, autocommit=True, connect_timeout=_CONNECT_SECONDS, options=options
        )
    except psycopg.OperationalError as error:
        raise MigrationError(
            f"the database cannot be reached ({sentence(error)}): check the URL and that the server is up"
        ) from error
    except psycopg.ProgrammingError:
        # Its text repeats the URL and with it the password.
        raise MigrationError(
            "the database's URL cannot be read: write it as postgresql://user:password@host:port/name"
        ) from None


def sentence(error: psycopg.Error) -> str:
    """Return an error's first line, without the statement and its details."""
    return error.diag.message_primary or str(error).strip().split("\n", 1)[0]
