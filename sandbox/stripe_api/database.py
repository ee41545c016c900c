"""One SQLite file holds everything the stand-in knows, so that a restart forgets nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

_FORMAT = 2
_SCHEMA = """
CREATE TABLE object (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    label TEXT,  -- what its lists are most often filtered by: see store.py
    created INTEGER NOT NULL,
    clock TEXT,  -- the test clock it lives by, NULL for the sandbox's own
    due INTEGER,  -- when time will do something to it: see timetable.py
    body TEXT NOT NULL
);
CREATE INDEX object_by_kind ON object (kind, seq);
CREATE INDEX object_by_due ON object (clock, due, seq) WHERE due IS NOT NULL;
CREATE INDEX object_by_label ON object (kind, label, seq);
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'dropped', 'abandoned')),
    made REAL NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX delivery_due ON delivery (due, id) WHERE state = 'pending';
CREATE INDEX delivery_of_event ON delivery (event);
CREATE TABLE attempt (
    delivery INTEGER NOT NULL REFERENCES delivery (id),
    at REAL NOT NULL,
    status INTEGER,
    error TEXT,
    seconds REAL NOT NULL
);
CREATE INDEX attempt_of_delivery ON attempt (delivery);
CREATE TABLE setting (name TEXT PRIMARY KEY, body TEXT NOT NULL);
"""


class StateFileError(Exception):
    """The state file cannot be used: one sentence and the remedy."""


@contextmanager
def open_database(path: str) -> Iterator[sqlite3.Connection]:
    """Lend the state file at `path` (`:memory:` for none), made if missing, for this process alone.

    Statements take well under a millisecond, so they run on the event loop's own thread: each request is
    then one uninterrupted transaction.

    Raises:
        StateFileError: another process has it, or it is not ours.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=2)
    except sqlite3.Error as error:
        raise StateFileError(
            f"Cannot open {path} ({error}): name a file in a folder you can write."
        ) from error
    try:
        _prepare(connection, path)
        yield connection
    finally:
        connection.close()


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StateFileError(
            f"Cannot use {path} ({error}): stop the other stand-in that uses it, or name another file."
        ) from error
    if found not in (0, _FORMAT):
        raise StateFileError(f"{path} is of format {found}, not {_FORMAT}: delete it, or name another file.")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block's writes, or none. The block must not await."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
