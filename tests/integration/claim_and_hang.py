"""A worker to be killed: claims one item under a short lease, says so, and hangs."""

import asyncio
import os
import sys
from datetime import timedelta

from psycopg_pool import AsyncConnectionPool

from provisioner.contract.queue import Kind
from provisioner.workqueue import WorkQueue


async def main() -> None:
    async with AsyncConnectionPool(os.environ["BERTH_DATABASE_URL"], min_size=1, open=False) as pool:
        (item,) = await WorkQueue(pool, "victim", timedelta(seconds=1)).claim(Kind.INSTANCE, 1)
        sys.stdout.write(f"claimed {item.key} epoch {item.epoch}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
