"""The server: API, pages and control over one ledger, with deliveries and the passing of time beside them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from starlette.applications import Starlette

from sandbox import loopback
from sandbox.stripe_api.api import Api, internal_error
from sandbox.stripe_api.bell import Bell
from sandbox.stripe_api.control import Control
from sandbox.stripe_api.database import open_database
from sandbox.stripe_api.idempotency import Replies
from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.objects import Cause
from sandbox.stripe_api.operation import Moment
from sandbox.stripe_api.pages.checkout import CheckoutPages
from sandbox.stripe_api.pages.invoices import InvoicePages
from sandbox.stripe_api.pages.portal import PortalPages
from sandbox.stripe_api.pages.site import Site
from sandbox.stripe_api.resources.portal import default_configuration
from sandbox.stripe_api.store import Query, Store, every
from sandbox.stripe_api.timekeeper import catch_up
from sandbox.stripe_api.webhooks.delivery import DeliveryEngine, DeliveryPolicy
from sandbox.stripe_api.webhooks.outbox import Outbox

TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Server:
    """A stand-in that listens at `url`.

    Attributes:
        ledger: what it remembers.
        tasks: what runs beside the caller; none of them ends by itself unless it failed.
    """

    url: str
    ledger: Ledger
    tasks: tuple[asyncio.Task[None], ...]


def make_app(ledger: Ledger, base_url: str | None = None) -> Starlette:
    """The ASGI application over a ledger; by itself it delivers nothing and expires no session.

    Args:
        ledger: what it remembers.
        base_url: where the hosted pages are; None for wherever the API is called at.
    """
    site = Site(ledger, base_url)
    parts = (
        Api(ledger, base_url),
        CheckoutPages(site),
        InvoicePages(site),
        PortalPages(site),
        Control(ledger),
    )
    return Starlette(
        routes=[route for part in parts for route in part.routes()],
        exception_handlers={Exception: internal_error},
    )


@asynccontextmanager
async def serve(
    state: str = ":memory:",
    port: int = 0,
    *,
    policy: DeliveryPolicy | None = None,
    base_url: str | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Server]:
    """Run a stand-in on the loopback interface for as long as the block lasts.

    Args:
        state: the SQLite file to remember everything in.
        port: 0 for any free one.
        policy: how webhooks are tried.
        base_url: where the hosted pages are; None for wherever the API is called at.
        clock: the time, Unix seconds.

    Raises:
        PortError: the port is taken.
        StateFileError: the file cannot be used.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(loopback.listener(port))
        connection = stack.enter_context(open_database(state))
        stores = Store(connection), Outbox(connection), Replies(connection)
        ledger = Ledger(connection, *stores, clock, Bell())
        _furnish(ledger)
        url = f"http://127.0.0.1:{loopback.port_of(listener)}"
        engine = DeliveryEngine(ledger, policy or DeliveryPolicy())
        tasks = (
            await stack.enter_async_context(_alongside(engine.run())),
            await stack.enter_async_context(_alongside(_keep_time(ledger, base_url or url))),
            await stack.enter_async_context(loopback.answering(make_app(ledger, base_url), listener)),
        )
        yield Server(url, ledger, tasks)


def _furnish(ledger: Ledger) -> None:
    """What every account has from the start."""
    if not every(ledger.store, Query("billing_portal.configuration"), 1):
        with ledger.transaction():
            ledger.commit(default_configuration(Moment(int(ledger.clock()), new_id, "")), Cause())


@asynccontextmanager
async def _alongside(work: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` until the block ends; an error it stopped with surfaces then."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_time(ledger: Ledger, base_url: str) -> None:
    """Let happen what is due, whether or not anybody asks."""
    while True:
        ring = ledger.bell.next_ring()
        await catch_up(ledger, base_url)
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                await ring.wait()
