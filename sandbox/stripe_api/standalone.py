"""The stand-in as a program of its own: serves until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable

from sandbox.stripe_api.app import Server, serve

DEFAULT_PORT = 12111
"""Where stripe-mock listens too, so that what points at one finds the other."""


async def run(port: int, state: str, base_url: str | None, announce: Callable[[Server], None]) -> None:
    """Serve until SIGINT or SIGTERM, or until a part of the server fails, whose error surfaces.

    Args:
        port: 0 for any free one.
        state: the SQLite file to remember everything in, `:memory:` for none.
        base_url: where browsers reach the pages; None for where the API is called.
        announce: told once it listens.

    Raises:
        PortError: the port is taken.
        StateFileError: the file cannot be used.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with serve(state, port, base_url=base_url) as server:
        announce(server)
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({stopped, *server.tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
