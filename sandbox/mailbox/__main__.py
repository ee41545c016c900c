"""`python -m sandbox.mailbox`: takes every e-mail and shows it to whoever looks."""

import argparse
import asyncio
import signal
import sys

from sandbox.loopback import PortError
from sandbox.mailbox.app import serve


def main() -> int:
    """Run until told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.mailbox",
        description="Takes e-mails on the loopback interface and shows them; sends none on.",
    )
    parser.add_argument(
        "--smtp-port", type=int, default=1025, help="0 for any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--http-port", type=int, default=8025, help="0 for any free one (default: %(default)s)"
    )
    options = parser.parse_args()
    try:
        asyncio.run(_run(options.smtp_port, options.http_port))
    except PortError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(smtp_port: int, http_port: int) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with serve(smtp_port, http_port) as server:
        sys.stdout.write(f"Mailbox listening on {server.url} (SMTP on 127.0.0.1:{server.smtp_port})\n")
        sys.stdout.flush()
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({stopped, *server.tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


if __name__ == "__main__":
    sys.exit(main())
