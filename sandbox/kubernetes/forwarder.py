"""Forwards a loopback port to an address only this machine reaches: how a browser meets the ingress.

Runs alone (`python -I forwarder.py PORT HOST:PORT`), so it imports nothing of ours.
"""

import asyncio
import sys
from contextlib import suppress

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 600.0
_CONNECTIONS = 512
_CHUNK = 64 * 1024


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the one side has said all, then say so to the other."""
    while True:
        async with asyncio.timeout(_IDLE_SECONDS):
            chunk = await reader.read(_CHUNK)
        if not chunk:
            break
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


class Forwarder:
    """Takes connections and passes them on to one target."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end; a target that cannot be reached closes it."""
        async with self._free:
            with suppress(OSError, TimeoutError):
                await self._serve(reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_CONNECT_SECONDS):
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.ensure_future(_copy(reader, there_writer)),
            asyncio.ensure_future(_copy(there_reader, writer)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            there_writer.close()


async def serve(port: int, target: str) -> None:
    """Forward 127.0.0.1:`port` to `target` ("host:port") until cancelled."""
    host, _, target_port = target.rpartition(":")
    forwarder = Forwarder(host, int(target_port))
    server = await asyncio.start_server(forwarder.accept, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
