"""What the queue's tests share: looking at rows, and moving the database's time under a lease."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from provisioner.contract.queue import Kind, enqueue
from provisioner.metrics import WorkerMetrics
from provisioner.queue_view import QueueRow, show_item
from provisioner.workers import Handler, Station, WorkerOptions, Workers
from provisioner.workqueue import WorkQueue

Pool = AsyncConnectionPool[AsyncConnection[Any]]
LEASE = timedelta(seconds=30)
# An upper bound only, for machines that do much else at the same time; seconds.
PATIENCE = 60.0


async def put(pool: Pool, *keys: str, kind: Kind = Kind.INSTANCE) -> None:
    async with pool.connection() as conn:
        await enqueue(conn, kind, *keys)


async def row(pool: Pool, key: str, kind: Kind = Kind.INSTANCE) -> QueueRow:
    async with pool.connection() as conn:
        found = await show_item(conn, kind, key)
    assert found is not None, f"no work item {key}"
    return found


async def run_sql(pool: Pool, query: str, *arguments: object) -> None:
    async with pool.connection() as conn:
        await conn.execute(query.encode(), arguments)


async def move_to_kiritimati(pool: Pool) -> None:
    """Have the database tell new connections the time of a place that is 14 hours ahead of UTC."""
    async with pool.connection() as conn:
        name = sql.Identifier(conn.info.dbname)
        await conn.execute(sql.SQL("ALTER DATABASE {} SET timezone TO 'Pacific/Kiritimati'").format(name))


async def expire_lease(pool: Pool, key: str) -> None:
    await run_sql(pool, "UPDATE work_item SET lease_until = now() - interval '1 second' WHERE key = %s", key)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what the database will say, at most PATIENCE seconds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 -- the database rings no asyncio.Event
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def working(
    pool: Pool,
    url: str,
    handler: Handler,
    *,
    kind: Kind = Kind.INSTANCE,
    lease: timedelta = LEASE,
    options: WorkerOptions | None = None,
    owner: str = "test",
) -> AsyncIterator[Workers]:
    """Workers running `handler` for `kind`; on leaving they are stopped gracefully."""
    queue = WorkQueue(pool, owner, lease)
    workers = Workers(
        queue,
        url,
        {kind: handler},
        options or WorkerOptions(grace=timedelta(0)),
        WorkerMetrics(CollectorRegistry()),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(workers.run(stop))
    try:
        yield workers
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await task


async def one_pass(queue: WorkQueue, kind: Kind, handler: Handler) -> None:
    """Let a worker make exactly one pass over the one due item, and record how it ended."""
    (item,) = await queue.claim(kind, 1)
    station = Station(queue, kind, handler, WorkerOptions(), WorkerMetrics(CollectorRegistry()))
    await station.attempt(item, asyncio.get_running_loop().time())


class Wire:
    """A TCP connection to Postgres that can be cut and mended."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._target = conninfo_to_dict(url)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return make_conninfo(self._url, host="127.0.0.1", port=self._port)

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(self._target["host"]), self._target.get("port", 5432)
        if host.startswith("/"):
            up_reader, up_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            up_reader, up_writer = await asyncio.open_connection(host, int(str(port)))
        self._open |= {writer, up_writer}
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(65536):
                sink.write(chunk)
                await sink.drain()
        sink.close()
        self._open.discard(sink)
