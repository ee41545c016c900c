"""`python -m sandbox.stripe_api`: the stand-in as a process of its own; `berth sandbox stripe` says more."""

import argparse
import asyncio
import sys

from sandbox.loopback import PortError
from sandbox.stripe_api.app import Server
from sandbox.stripe_api.database import StateFileError
from sandbox.stripe_api.standalone import DEFAULT_PORT, run


def main() -> int:
    """Run until told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.stripe_api",
        description="A stand-in for Stripe on the loopback interface. Takes any sk_test_… key.",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 for any free one (default: %(default)s)"
    )
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

    def announce(server: Server) -> None:
        sys.stdout.write(f"Stripe stand-in listening on {server.url} (state: {options.state})\n")
        sys.stdout.flush()

    try:
        asyncio.run(run(options.port, options.state, options.base_url, announce))
    except (PortError, StateFileError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
