"""`python -m sandbox.stripe_api`: the stand-in as a process of its own."""

import argparse
import asyncio
import signal
import sys

from sandbox.loopback import PortError
from sandbox.stripe_api.app import serve
from sandbox.stripe_api.database import StateFileError


def main() -> int:
    """Run until told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.stripe_api",
        description="A stand-in for Stripe on the loopback interface. Takes any sk_test_… key.",
    )
    parser.add_argument("--port", type=int, default=12111, help="0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--state",
        default=":memory:",
        metavar="FILE",
        help="SQLite file that outlasts restarts (default: none)",
    )
    parser.add_argument(
        "--base-url", metavar="URL", help="where browsers reach the pages (default: where the API is called)"
    )
    options = parser.parse_args()
    try:
        asyncio.run(_run(options.port, options.state, options.base_url))
    except (PortError, StateFileError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(port: int, state: str, base_url: str | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with serve(state, port, base_url=base_url) as server:
        sys.stdout.write(f"Stripe stand-in listening on {server.url} (state: {state})\n")
        sys.stdout.flush()
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({stopped, *server.tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


if __name__ == "__main__":
    sys.exit(main())
