"""One Stripe and two Berths: a calm one that hears everything at once, and a troubled one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import stripe
from prometheus_client import CollectorRegistry
from psycopg.rows import dict_row

from catalogue.loader import load_catalogue
from catalogue.schema import Catalogue
from provisioner.catch_up import CatchUp
from provisioner.clients.stripe import StripeClient
from provisioner.contract.queue import Kind
from provisioner.metrics import WorkerMetrics
from provisioner.reviews import ChargeHandler
from provisioner.settlement import Offer
from provisioner.subscriptions import SubscriptionHandler
from provisioner.sweep import Sweep
from provisioner.workers import Handler, Station, WorkerOptions
from provisioner.workqueue import Lease, WorkItem, WorkQueue
from sandbox import loopback
from sandbox.stripe_api.app import Server, serve
from sandbox.stripe_api.webhooks.delivery import DeliveryPolicy
from scripts.stripe_catalogue.account import Account
from scripts.stripe_catalogue.push import push
from scripts.stripe_catalogue.webhook import ensure_webhook
from tests.integration.platform_api_support import make_settings, running_api
from tests.integration.queue_tools import Pool, run_sql
from tests.simulation.histories import (
    Act,
    Buy,
    Cancel,
    Card,
    Change,
    History,
    PayBills,
    Refund,
    Stay,
    Step,
    Wait,
)

if TYPE_CHECKING:
    from stripe.params import SubscriptionCreateParams

Row = dict[str, Any]
KEY = "sk_test_simulation"
KINDS = (Kind.CHARGE, Kind.SUBSCRIPTION)
PRODUCT = "voxflow"
CUSTOMER = "c1"
DAY = 86_400
LATE = 600  # seconds of the sandbox's clock
PATIENCE = 30.0
_OFFER = Offer("http://{slug}.apps.example.com", {"instance": "1.0.0"})
_LEASE = timedelta(seconds=30)
_MOST_PASSES = 200
_TABLES = """
    TRUNCATE portal_link, outbox, work_item, instance_event, instance, subscription, stripe_event,
             stripe_sync, checkout, api_token, customer
"""


_CUSTOMER = "INSERT INTO customer (id, email, name, stripe_customer_id) VALUES (%s, %s, 'Ann', %s)"
_FORGET = (
    "DELETE FROM attempt",
    "DELETE FROM delivery",
    """DELETE FROM object
        WHERE kind NOT IN ('product', 'price', 'webhook_endpoint', 'billing_portal.configuration')""",
)


class CrashError(BaseException):
    """The process died."""


@dataclass
class Fuse:
    """Lets `left` dealings with the world pass, then the process dies."""

    left: int

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CrashError


@dataclass(frozen=True)
class CrashingLease(Lease):
    """A lease whose holder dies before, in or after a transaction."""

    fuse: Fuse

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        self.fuse.burn()
        async with Lease.transaction(self) as conn:
            yield conn
            self.fuse.burn()
        self.fuse.burn()


@dataclass(frozen=True)
class Berth:
    """One platform: its intake served over HTTP, its queue worked on when the test says so."""

    pool: Pool
    queue: WorkQueue
    endpoint: str
    handlers: dict[Kind, Handler]
    sweep: Sweep
    catch_up: CatchUp

    async def work(self) -> None:
        """Pass after pass, until nothing is due."""
        for _ in range(_MOST_PASSES):
            claimed = [(kind, await self.queue.claim(kind, 10)) for kind in KINDS]
            if not any(items for _, items in claimed):
                return
            for kind, items in claimed:
                for item in items:
                    await self._pass(kind, item)
        raise AssertionError("the queue never comes to rest")

    async def _pass(self, kind: Kind, item: WorkItem) -> None:
        metrics = WorkerMetrics(CollectorRegistry())
        station = Station(self.queue, kind, self.handlers[kind], WorkerOptions(), metrics)
        await station.attempt(item, asyncio.get_running_loop().time())

    async def die_working(self, dealings: int) -> None:
        """Begin what is due and die on the way; another process finds the leases run out."""
        fuse = Fuse(dealings)
        for kind in KINDS:
            for item in await self.queue.claim(kind, 10):
                try:
                    await self.handlers[kind](item, CrashingLease(self.queue, item, fuse))
                except CrashError:
                    break
                except Exception:  # noqa: BLE001, S112 -- it died before it could record why
                    continue
        await run_sql(self.pool, "UPDATE work_item SET lease_until = now() WHERE lease_until IS NOT NULL")

    async def let_time_decide(self) -> None:
        """Look now at what is planned for later: a test clock's time is ahead of the database's."""
        await run_sql(self.pool, "UPDATE work_item SET due_at = now() WHERE due_at IS NOT NULL")
        await self.work()

    async def rows(self, query: str) -> list[Row]:
        async with self.pool.connection() as conn:
            return await (await conn.cursor(row_factory=dict_row).execute(query.encode())).fetchall()


@dataclass
class World:
    """Everything there is; histories happen in it one after another, each from the beginning."""

    server: Server
    client: stripe.StripeClient
    control: httpx.AsyncClient
    calm: Berth
    troubled: Berth
    prices: dict[str, str]
    clock: str = ""
    customer: str = ""
    latest: str | None = None

    async def begin(self) -> None:
        """Forget all that happened; there is one customer, who bought nothing yet."""
        ledger = self.server.ledger
        with ledger.transaction():
            for forget in _FORGET:
                ledger.connection.execute(forget)
        clock = await self.client.v1.test_helpers.test_clocks.create_async(
            {"frozen_time": int(datetime.now(UTC).timestamp())}
        )
        customer = await self.client.v1.customers.create_async(
            {"email": "ann@example.com", "name": "Ann", "test_clock": clock.id}
        )
        self.clock, self.customer, self.latest = clock.id, customer.id, None
        for berth in (self.calm, self.troubled):
            await run_sql(berth.pool, _TABLES)
            await run_sql(berth.pool, _CUSTOMER, CUSTOMER, "ann@example.com", customer.id)
        await self._card("pm_card_visa")

    async def live(self, history: History) -> None:
        """Let everything happen, then let the troubled Berth come to itself."""
        for step in history.steps:
            await self._trouble(step)
            await self._act(step.act)
            await self._delivered(self.calm)
            await self.calm.work()
            if step.let_through:
                await self._let_through()
            await self._delivered(self.troubled, only_due=True)
            for dealings in step.passes:
                if dealings is None:
                    await self.troubled.work()
                else:
                    await self.troubled.die_working(dealings)
        await self._control("DELETE", "faults")
        await self._let_through()
        for berth in (self.calm, self.troubled):
            await self._delivered(berth)
            if history.heal in ("events", "both"):
                await berth.catch_up.run()
            if history.heal in ("sweep", "both"):
                await berth.sweep.run()
            await berth.work()
            await berth.let_time_decide()

    async def _trouble(self, step: Step) -> None:
        late = LATE if step.late else 0
        faults = {
            "endpoint": self.troubled.endpoint,
            "duplicate": step.duplicates,
            "drop": step.drop,
            "delay_seconds": late,
            "shuffle_seconds": late,
            "seed": step.seed,
        }
        await self._control("POST", "faults", faults)

    async def _let_through(self) -> None:
        await self._control("POST", "clock", {"advance_seconds": 2 * LATE + 1})
        await self._delivered(self.troubled)

    async def _delivered(self, berth: Berth, *, only_due: bool = False) -> None:
        """Wait until nothing is on its way to `berth` (that could have arrived by now)."""
        ledger = self.server.ledger
        async with asyncio.timeout(PATIENCE):
            while any(  # noqa: ASYNC110 -- the stand-in rings no Event of ours
                one.endpoint == berth.endpoint and not (only_due and one.due > ledger.clock())
                for one in ledger.outbox.pending(10_000)
            ):
                await asyncio.sleep(0.002)

    async def _control(self, method: str, path: str, body: object = None) -> None:
        answer = await self.control.request(method, f"/_sandbox/{path}", json=body)
        assert answer.is_success, answer.text

    async def _act(self, act: Act) -> None:  # noqa: PLR0911 -- one branch for each kind of act
        match act:
            case Wait(days):
                return await self._wait(days)
            case Card(pays):
                return await self._card("pm_card_visa" if pays else "pm_card_chargeCustomerFail")
            case Buy():
                return await self._buy(act)
            case Refund():
                return await self._refund()
            case PayBills():
                return await self._pay_bills()
            case _:
                pass
        subscription = await self._live()
        if subscription is None:
            return None
        match act:
            case Change():
                await self._change(subscription, act)
            case Cancel(now=True):
                await self.client.v1.subscriptions.cancel_async(subscription.id)
            case Cancel() | Stay() if subscription.status != "incomplete":
                later = isinstance(act, Cancel)
                await self.client.v1.subscriptions.update_async(
                    subscription.id, {"cancel_at_period_end": later}
                )
        return None

    async def _live(self) -> stripe.Subscription | None:
        if self.latest is None:
            return None
        found = await self.client.v1.subscriptions.retrieve_async(self.latest)
        return None if found.status in ("canceled", "incomplete_expired") else found

    async def _wait(self, days: int) -> None:
        clocks = self.client.v1.test_helpers.test_clocks
        now = (await clocks.retrieve_async(self.clock)).frozen_time
        await clocks.advance_async(self.clock, {"frozen_time": now + days * DAY})
        async with asyncio.timeout(PATIENCE):
            while (await clocks.retrieve_async(self.clock)).status != "ready":  # noqa: ASYNC110 -- as a client
                await asyncio.sleep(0.01)

    async def _card(self, method: str) -> None:
        attached = await self.client.v1.payment_methods.attach_async(method, {"customer": self.customer})
        await self.client.v1.customers.update_async(
            self.customer, {"invoice_settings": {"default_payment_method": attached.id}}
        )

    async def _buy(self, act: Buy) -> None:
        if await self._live() is not None:
            return
        wanted: SubscriptionCreateParams = {
            "customer": self.customer,
            "items": [{"price": self.prices[act.plan]}],
            "payment_behavior": "allow_incomplete",
        }
        if act.trial_days:
            wanted["trial_period_days"] = act.trial_days
        made = await self.client.v1.subscriptions.create_async(wanted)
        self.latest = made.id

    async def _change(self, subscription: stripe.Subscription, act: Change) -> None:
        if subscription.status not in ("active", "trialing", "past_due"):
            return
        items = {item.price.id: item for item in subscription["items"].data}
        add_on = items.pop(self.prices["extra-agent"], None)
        (plan,) = items.values()
        wanted: list[Any] = [{"id": plan.id, "price": self.prices[act.plan], "quantity": act.quantity}]
        if act.agents and add_on:
            wanted.append({"id": add_on.id, "quantity": act.agents})
        elif act.agents:
            wanted.append({"price": self.prices["extra-agent"], "quantity": act.agents})
        elif add_on:
            wanted.append({"id": add_on.id, "deleted": True})
        await self.client.v1.subscriptions.update_async(subscription.id, {"items": wanted})

    async def _pay_bills(self) -> None:
        bills = await self.client.v1.invoices.list_async({"customer": self.customer, "status": "open"})
        for bill in bills.data:
            try:
                await self.client.v1.invoices.pay_async(bill.id or "")
            except stripe.CardError:
                continue

    async def _refund(self) -> None:
        charges = await self.client.v1.charges.list_async({"customer": self.customer, "limit": 1})
        for charge in charges.data:
            if charge.status == "succeeded" and not charge.refunded:
                await self.client.v1.refunds.create_async({"charge": charge.id})


@asynccontextmanager
async def open_world(pools: tuple[Pool, Pool], urls: tuple[str, str]) -> AsyncIterator[World]:
    """A Stripe whose account sells one product, and two Berths that listen to it."""
    whole = load_catalogue()
    catalogue = Catalogue({PRODUCT: whole.products[PRODUCT]})
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(policy=DeliveryPolicy(first_retry=0.05)))
        http = stripe.HTTPXClient(timeout=30)
        stack.push_async_callback(http.close_async)
        client = stripe.StripeClient(KEY, base_addresses={"api": server.url}, http_client=http)
        control = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=30))
        assert await push(Account(client), catalogue) == []
        calm, troubled = [
            await stack.enter_async_context(_berth(pool, url, server.url, client, catalogue))
            for pool, url in zip(pools, urls, strict=True)
        ]
        yield World(server, client, control, calm, troubled, await _prices(client, catalogue))


@asynccontextmanager
async def _berth(
    pool: Pool, url: str, stripe_url: str, official: stripe.StripeClient, catalogue: Catalogue
) -> AsyncIterator[Berth]:
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(loopback.listener(0))
        hook = f"http://127.0.0.1:{loopback.port_of(listener)}/webhooks/stripe"
        secret = await ensure_webhook(official, hook, secret_known=False)
        settings = make_settings(url, stripe_url, webhook_secret=secret or "")
        api = await stack.enter_async_context(running_api(settings))
        await stack.enter_async_context(loopback.answering(api.app, listener))
        source = await stack.enter_async_context(StripeClient(KEY, stripe_url))
        endpoints = (await official.v1.webhook_endpoints.list_async({"limit": 10})).data
        (endpoint,) = [one.id for one in endpoints if one.url == hook]
        yield Berth(
            pool,
            WorkQueue(pool, "simulation", _LEASE),
            endpoint,
            {
                Kind.CHARGE: ChargeHandler(source).handle,
                Kind.SUBSCRIPTION: SubscriptionHandler(source, lambda: catalogue, _OFFER).handle,
            },
            Sweep(pool, source, lambda: catalogue),
            CatchUp(pool, source),
        )


async def _prices(client: stripe.StripeClient, catalogue: Catalogue) -> dict[str, str]:
    """Stripe's price of each plan and add-on by its name."""
    product = catalogue.products[PRODUCT]
    named = {name: plan.prices for name, plan in product.plans.items()}
    named |= {name: add_on.prices for name, add_on in product.add_ons.items()}
    keys = {name: prices["month"].lookup_key or "" for name, prices in named.items() if prices}
    found = await client.v1.prices.list_async({"lookup_keys": list(keys.values())})
    by_key = {price.lookup_key: price.id for price in found.data}
    return {name: by_key[key] for name, key in keys.items()}
