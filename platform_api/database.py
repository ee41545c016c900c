"""Connections: short waits, bounded statements, and the role under which a customer's queries run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

POOL_SIZE = 10
POOL_TIMEOUT = 3.0  # seconds to wait for a connection: Stripe gives an endpoint about ten in all
_POOL_QUEUE = 500
_STATEMENT_TIMEOUT = 5.0  # seconds, enforced by the server
_USE_TIMEOUT = 8.0  # seconds, for a server that has stopped enforcing anything


def make_pool(url: str) -> Pool:
    """Return a closed pool on the database at `url`, in autocommit; open it with `async with`.

    Opening does not wait for the database: until it answers, `connect` raises and `/readyz` says so.
    """
    milliseconds = int(_STATEMENT_TIMEOUT * 1000)
    return AsyncConnectionPool(
        make_conninfo(
            url,
            application_name="berth-api",
            connect_timeout=3,
            tcp_user_timeout=5000,
            options=f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} "
            f"-c idle_in_transaction_session_timeout={milliseconds} -c timezone=UTC",
        ),
        kwargs={"autocommit": True},
        min_size=2,
        max_size=POOL_SIZE,
        timeout=POOL_TIMEOUT,
        max_waiting=_POOL_QUEUE,
        # Short, because a long attempt backs off for minutes while the database is back already; the next
        # request starts a new one.
        reconnect_timeout=2.0,
        name="platform_api",
        open=False,
    )


@asynccontextmanager
async def connect(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection with the service's own rights.

    Raises:
        psycopg.OperationalError: the database cannot be reached, or not in time.
        TimeoutError: it took longer than a request may.
    """
    async with asyncio.timeout(_USE_TIMEOUT), pool.connection() as conn:
        yield conn


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection inside a transaction, with the service's own rights."""
    async with connect(pool) as conn, conn.transaction():
        yield conn


@asynccontextmanager
async def customer_transaction(pool: Pool, customer_id: str) -> AsyncIterator[Connection]:
    """Lend a connection that sees only what belongs to `customer_id`: row-level security decides."""
    async with transaction(pool) as conn:
        # set_config(…, true) is SET LOCAL, which takes no parameters.
        await conn.execute(
            "SELECT set_config('role', 'berth_customer', true), set_config('berth.customer_id', %s, true)",
            (customer_id,),
        )
        yield conn
