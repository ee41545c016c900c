"""Postgres for the tests: one server per run, a migrated template, and a fresh copy of it for each test."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

from migrations.runner import migrate
from sandbox import postgres
from scripts.demo.ports import free_port

_TEMPLATE = "berth_template"


def pytest_configure() -> None:
    # A busy machine is slow, which is no defect; each test's timeout bounds it.
    hypothesis.settings.register_profile("berth", deadline=None)
    hypothesis.settings.load_profile("berth")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """The run's server; a test that stops it starts it again before it ends."""

    state_dir: Path
    port: int

    def start(self) -> str:
        """Start the server and return its URL, the same each time."""
        return postgres.start(self.state_dir, self.port, durable=False)

    def stop(self) -> None:
        postgres.stop(self.state_dir)

    @property
    def url(self) -> str:
        """A database of the server that no test writes to."""
        password = (self.state_dir / "password").read_text(encoding="utf-8")
        return f"postgresql://{postgres.USER}:{password}@{postgres.HOST}:{self.port}/{postgres.DATABASE}"

    def url_of(self, database: str) -> str:
        return self.url.removesuffix(postgres.DATABASE) + database

    def run_sql(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=30) as conn:
            conn.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server without durability, with a migrated template; gone at the end of the run."""
    parent = Path(tempfile.gettempdir()) / f"berth-tests-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    folder = parent / uuid4().hex[:12]
    with ExitStack() as held:
        # A run that cleans up must not see this folder before its lock is held.
        with (parent / "lock").open("w") as cleaning:
            fcntl.flock(cleaning, fcntl.LOCK_EX)
            _remove_remains(parent)
            folder.mkdir()
            fcntl.flock(held.enter_context((folder / "in-use").open("w")), fcntl.LOCK_EX)
        server = PostgresServer(folder / "postgres", free_port())
        try:
            server.start()
            server.run_sql(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
            migrate(server.url_of(_TEMPLATE))
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder)


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a database without tables, dropped after the test."""
    yield from _database(postgres_server, "template0")


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a database with the current schema and no rows, dropped after the test."""
    yield from _database(postgres_server, _TEMPLATE)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncConnectionPool[AsyncConnection[Any]]]:
    """An open pool on `database_url`."""
    async with AsyncConnectionPool(
        make_conninfo(database_url, connect_timeout=10), min_size=1, max_size=10, timeout=15, open=False
    ) as opened:
        yield opened


def _database(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    server.run_sql(
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
    )
    yield server.url_of(name)
    server.run_sql(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _remove_remains(parent: Path) -> None:
    """Stop and remove servers of test runs that were killed: nobody holds their lock any more."""
    for lock_file in parent.glob("*/in-use"):
        with suppress(OSError), lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            postgres.stop(lock_file.parent / "postgres")
            shutil.rmtree(lock_file.parent)
