import asyncio

import psycopg

from platform_api.database import Pool, connect
from platform_api.logs import Log, describe
from provisioner.contract.queue import Kind, ring

_PAUSE = 0.05  # seconds from one ring to the next: a burst of events is one ring, a lone event rings at once


class Doorbell:
    """Wakes workers after a commit. Rings that come close together are one; a lost one costs only time.

    NOTIFY inside the transaction would do the same, but transactions that notify hold one lock of the whole
    server while they commit (PreCommit_Notify in Postgres's async.c), so a burst of events would commit one
    by one, each waiting for its own flush.
    """

    def __init__(self, pool: Pool, log: Log) -> None:
        self._pool = pool
        self._log = log
        self._kinds: set[Kind] = set()
        self._rung = asyncio.Event()

    def ring(self, kind: Kind) -> None:
        """Wake those who wait for `kind`, soon; work that is already committed is found without it too."""
        self._kinds.add(kind)
        self._rung.set()

    async def run(self) -> None:
        """Pass rings on until cancelled."""
        while True:
            await self._rung.wait()
            self._rung.clear()
            kinds, self._kinds = self._kinds, set()
            try:
                async with connect(self._pool) as conn:
                    await ring(conn, *sorted(kinds))
            except (psycopg.Error, TimeoutError) as error:
                self._log.warning("workers not woken: they will find the work themselves", **describe(error))
            await asyncio.sleep(_PAUSE)
