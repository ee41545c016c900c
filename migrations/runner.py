"""Applies `NNNN_name.sql` in order, each once, and keeps a ledger of what was applied."""

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import Connection

from migrations.connection import MigrationError, connect, sentence
from migrations.statements import Statement, split

__all__ = ["MigrationError", "MigrationResult", "migrate"]

_FOLDER = Path(__file__).parent
_SCHEMA_FILE = "schema.sql"
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_NON_TRANSACTIONAL = "-- migrate: non-transactional"
_TRANSACTION_CONTROL = {"begin", "start", "commit", "end", "rollback", "abort", "prepare transaction"}

_LOCK_WAIT_SECONDS = 60.0
_LOCK_POLL_SECONDS = 0.2
# Any number will do as long as nothing else in this database uses it.
_LOCK_KEY = 0x62657274685F6D69

_LEDGER: LiteralString = """
    CREATE TABLE IF NOT EXISTS schema_migration (
        version    integer PRIMARY KEY,
        name       text NOT NULL,
        checksum   text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
_LEDGER_EXISTS: LiteralString = "SELECT to_regclass('schema_migration') IS NOT NULL"
_APPLIED: LiteralString = "SELECT version, name, checksum, applied_at FROM schema_migration"
_RECORD: LiteralString = "INSERT INTO schema_migration (version, name, checksum) VALUES (%s, %s, %s)"


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """File names: what was applied now, what had been before, and, after a check, what is missing."""

    applied: tuple[str, ...]
    skipped: tuple[str, ...]
    pending: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return `N applied, M skipped`, and what a check found missing."""
        text = f"{len(self.applied)} applied, {len(self.skipped)} skipped"
        return f"{text}, {len(self.pending)} pending" if self.pending else text


@dataclass(frozen=True, slots=True)
class _Migration:
    version: int
    name: str
    checksum: str
    transactional: bool
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class _LedgerRow:
    version: int
    name: str
    checksum: str
    applied_at: datetime


def migrate(database_url: str, folder: Path | None = None, *, check: bool = False) -> MigrationResult:
    """Bring the database to the newest schema; several may try at once, one does it.

    Each file runs in one transaction together with its ledger row, so a file that fails leaves nothing.
    A file whose first line is `-- migrate: non-transactional` runs statement by statement outside a
    transaction; when it fails, its earlier statements stay, so each must bear repeating.

    Args:
        database_url: a `postgresql://` URL; its role must own the schema.
        folder: holds the files; None means this package's own.
        check: apply nothing, only report what is pending.

    Raises:
        MigrationError: a file is unusable or was edited after it was applied, a statement failed (the
            message names file and line), the database is newer than the files, or it cannot be reached.
    """
    migrations = _load(folder or _FOLDER)
    with connect(database_url) as conn, _reported(), _alone(conn):
        ledger = _read_ledger(conn)
        _require_agreement(migrations, ledger)
        skipped = tuple(m.name for m in migrations if m.version in ledger)
        missing = [m for m in migrations if m.version not in ledger]
        if check:
            return MigrationResult((), skipped, tuple(m.name for m in missing))
        if missing:
            conn.execute(_LEDGER)
        for migration in missing:
            _apply(conn, migration)
        return MigrationResult(tuple(m.name for m in missing), skipped)


def _load(folder: Path) -> list[_Migration]:
    files = sorted(path for path in folder.glob("*.sql") if path.name != _SCHEMA_FILE)
    if not files:
        raise MigrationError(f"{folder} holds no migrations: name the folder that has 0001_….sql")
    migrations = [_load_file(file) for file in files]
    for wanted, migration in enumerate(migrations, start=1):
        if migration.version < wanted:
            raise MigrationError(
                f"{migrations[wanted - 2].name} and {migration.name} have the same number: "
                "renumber the newer one"
            )
        if migration.version > wanted:
            raise MigrationError(
                f"migration {wanted:04} is missing before {migration.name}: "
                "restore it or renumber what follows"
            )
    return migrations


def _load_file(file: Path) -> _Migration:
    match = _FILE_NAME.fullmatch(file.name)
    if match is None:
        raise MigrationError(
            f"{file.name} is no migration's name: call it NNNN_what_it_does.sql (a-z, 0-9, _)"
        )
    try:
        text = file.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise MigrationError(f"{file.name} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise MigrationError(f"{file} cannot be read ({error.strerror}): correct its permissions") from error
    statements = tuple(split(text))
    if not statements:
        raise MigrationError(f"{file.name} holds no statement: write one or remove the file")
    for statement in statements:
        if statement.keyword in _TRANSACTION_CONTROL:
            raise MigrationError(
                f"{file.name}:{statement.line} controls the transaction ({statement.keyword.upper()}): "
                "remove that statement, the runner opens and commits one per file"
            )
    return _Migration(
        version=int(match[1]),
        name=file.name,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
        transactional=text.split("\n", 1)[0].strip() != _NON_TRANSACTIONAL,
        statements=statements,
    )


def _require_agreement(migrations: Sequence[_Migration], ledger: Mapping[int, _LedgerRow]) -> None:
    known = {migration.version: migration for migration in migrations}
    for row in ledger.values():
        migration = known.get(row.version)
        if migration is None:
            raise MigrationError(
                f"the database has {row.name} applied, which these migrations lack: "
                "it belongs to a newer Berth, so update this one (or name the right database)"
            )
        if migration.name != row.name:
            raise MigrationError(f"{migration.name} was applied as {row.name}: give it that name again")
        if migration.checksum != row.checksum:
            raise MigrationError(
                f"{migration.name} was edited after it was applied ({row.applied_at:%Y-%m-%d %H:%M} UTC): "
                "restore its text and put the change into a new migration"
            )
    newest = max(ledger, default=0)
    for migration in migrations:
        if migration.version < newest and migration.version not in ledger:
            raise MigrationError(
                f"{migration.name} comes before {ledger[newest].name}, which is applied already: "
                "give it a number after that one"
            )


def _apply(conn: Connection, migration: _Migration) -> None:
    if migration.transactional:
        try:
            with conn.transaction():
                _run(conn, migration)
                # SET without LOCAL in a file must reach neither the ledger nor the next file.
                _reset(conn)
                _record(conn, migration)
        except psycopg.IntegrityError as error:
            raise MigrationError(
                f"{migration.name} failed at its commit: {sentence(error)} (it left nothing): "
                "correct the file and run it again"
            ) from error
    else:
        try:
            _run(conn, migration)
        finally:
            _reset(conn)
        _record(conn, migration)


def _run(conn: Connection, migration: _Migration) -> None:
    for statement in migration.statements:
        try:
            conn.execute(statement.text.encode())
        except psycopg.Error as error:
            line = statement.line_of(error.diag.statement_position)
            kept = "it left nothing" if migration.transactional else "its statements before that line stay"
            raise MigrationError(
                f"{migration.name}:{line} failed: {sentence(error)} ({kept}): "
                "correct the file and run it again"
            ) from error


def _reset(conn: Connection) -> None:
    conn.execute("RESET SESSION AUTHORIZATION")
    conn.execute("RESET ROLE")
    conn.execute("RESET ALL")


def _record(conn: Connection, migration: _Migration) -> None:
    conn.execute(_RECORD, (migration.version, migration.name, migration.checksum))


def _read_ledger(conn: Connection) -> dict[int, _LedgerRow]:
    exists = conn.execute(_LEDGER_EXISTS).fetchone()
    if exists is None or not exists[0]:
        return {}
    rows = (_LedgerRow(*row) for row in conn.execute(_APPLIED))
    return {row.version: row for row in rows}


@contextmanager
def _alone(conn: Connection) -> Iterator[None]:
    """Hold the advisory lock; asked for again and again, because waiting for it in SQL would hold a snapshot.

    CREATE INDEX CONCURRENTLY waits for all snapshots, so two migrating programs would wait for each other.
    """
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        got = conn.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
        if got is not None and got[0]:
            break
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another program has been migrating this database for {_LOCK_WAIT_SECONDS:.0f} s: "
                "wait for it to end, then run this again"
            )
        time.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        if not conn.broken:
            conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))


@contextmanager
def _reported() -> Iterator[None]:
    """Turn what the database refuses outside the files' own statements into a sentence."""
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(
            f"the database refused ({sentence(error)}): check that the URL's role owns the schema"
        ) from error
