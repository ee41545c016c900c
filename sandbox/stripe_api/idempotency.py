"""Idempotency keys: the same key with the same request gets the same answer.

https://docs.stripe.com/api/idempotent_requests
"""

import hashlib
import sqlite3
from dataclasses import dataclass

from sandbox.stripe_api.errors import ApiError

LONGEST_KEY = 255
KEPT_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Call:
    """What an idempotency key stands for: the method and path, and a digest of the parameters."""

    key: str
    endpoint: str
    fingerprint: str


@dataclass(frozen=True)
class Reply:
    """An answer as it went out; `request` is the id of the request that first got it."""

    request: str
    status: int
    body: bytes


def call(key: str, endpoint: str, body: bytes) -> Call:
    """A call as its idempotency key remembers it.

    Raises:
        ApiError: the key is too long.
    """
    if len(key) > LONGEST_KEY:
        raise ApiError(
            f"Idempotency keys have up to {LONGEST_KEY} characters.", type="idempotency_error", began=False
        )
    return Call(key, endpoint, hashlib.sha256(body).hexdigest())


class Replies:
    """Reads and writes the answers given; the caller holds the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, wanted: Call, now: int) -> Reply | None:
        """The answer this call already got.

        Raises:
            ApiError: its key was used for something else.
        """
        self._connection.execute("DELETE FROM idempotency WHERE created < ?", (now - KEPT_SECONDS,))
        row = self._connection.execute(
            "SELECT endpoint, fingerprint, request, status, body FROM idempotency WHERE key = ?",
            (wanted.key,),
        ).fetchone()
        if row is None:
            return None
        if row["endpoint"] != wanted.endpoint:
            raise ApiError(
                f"The idempotency key '{wanted.key}' was first used for {row['endpoint']}: use another key"
                f" for {wanted.endpoint}.",
                type="idempotency_error",
                began=False,
            )
        if row["fingerprint"] != wanted.fingerprint:
            raise ApiError(
                f"The idempotency key '{wanted.key}' was first used with other parameters: use another key to"
                " make another request.",
                type="idempotency_error",
                began=False,
            )
        return Reply(row["request"], row["status"], row["body"])

    def keep(self, given: Call, reply: Reply, now: int) -> None:
        """Remember the answer for 24 hours."""
        self._connection.execute(
            "INSERT INTO idempotency (key, created, endpoint, fingerprint, request, status, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (given.key, now, given.endpoint, given.fingerprint, reply.request, reply.status, reply.body),
        )
