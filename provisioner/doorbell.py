"""Wakes workers when something is enqueued; without it they would find the item at their next poll."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection, sql

from provisioner.contract.queue import CHANNEL, Kind

CONNECT_TIMEOUT = 5
RECONNECT_FIRST = 0.5
RECONNECT_CAP = 15.0
# A silent connection is asked for a sign of life this often (seconds).
SILENCE = 30.0


class Bell(Protocol):
    """Whatever wants to be woken; `asyncio.Event` does."""

    def set(self) -> object:
        """Ring."""


class Doorbell:
    """Listens on a connection of its own, reconnecting for ever.

    Args:
        database_url: where to listen.
        bells: one per kind; rung for each notification of that kind, and all after each (re)connection,
            because what was sent in between is lost.
    """

    def __init__(self, database_url: str, bells: Mapping[Kind, Bell]) -> None:
        self._url = database_url
        self._bells = bells
        self._log = structlog.get_logger(component="doorbell")
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        pause = RECONNECT_FIRST
        while True:
            try:
                async with await self._connect() as conn:
                    pause = RECONNECT_FIRST
                    await self._listen(conn)
            except (psycopg.Error, TimeoutError) as error:
                self._log.warning(
                    "cannot listen to the database; polling goes on", error=type(error).__name__
                )
            finally:
                self.connected.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_CAP)

    async def _connect(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name="berth doorbell"
        )

    async def _listen(self, conn: AsyncConnection[Any]) -> None:
        await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
        self.connected.set()
        self._ring(self._bells)
        while True:
            async for notification in conn.notifies(timeout=SILENCE):
                self._ring([kind for kind in self._bells if kind == notification.payload])
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await conn.execute("SELECT 1")

    def _ring(self, kinds: Iterable[Kind]) -> None:
        for kind in kinds:
            self._bells[kind].set()
