"""Small servers on the loopback interface, embedded in whatever program needs them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socket import AF_INET, IPPROTO_TCP, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, TCP_NODELAY, socket

import uvicorn
from starlette.applications import Starlette

BACKLOG = 128
SHUTDOWN_SECONDS = 3
MOST_CONNECTIONS = 1000


class PortError(Exception):
    """The port cannot be had: one sentence and the remedy."""


@contextmanager
def listener(port: int) -> Iterator[socket]:
    """Lend a socket that listens on the loopback interface; `port` 0 for any free one.

    Raises:
        PortError: the port is taken or reserved.
    """
    with socket(AF_INET, SOCK_STREAM) as lent:
        lent.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        # Accepted connections inherit it; asyncio sets it only where a socket names its protocol. Without it
        # an answer's second part waits 40 ms for the acknowledgement of its first.
        lent.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        try:
            lent.bind(("127.0.0.1", port))
            lent.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            raise PortError(f"Port {port} cannot be had ({error}): choose another.") from error
        yield lent


def port_of(listening: socket) -> int:
    """The port a socket listens on."""
    port: int = listening.getsockname()[1]
    return port


class _EmbeddedServer(uvicorn.Server):
    """Leaves signals to the program it runs in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def answering(app: Starlette, listening: socket) -> AsyncIterator[asyncio.Task[None]]:
    """Answer HTTP on the socket until the block ends; requests under way then get three seconds."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _EmbeddedServer(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield task
    finally:
        server.should_exit = True
        await task
