"""A Stripe stand-in with something to buy, and our side of each purchase."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import stripe

from catalogue.loader import load_catalogue
from provisioner.clients.stripe import StripeClient
from provisioner.contract.queue import Kind, enqueue
from provisioner.queue_view import QueueRow, list_items
from provisioner.settlement import Offer
from provisioner.subscriptions import SubscriptionHandler
from provisioner.workqueue import WorkQueue
from sandbox.stripe_api.app import serve
from tests.integration.queue_tools import LEASE, Pool, one_pass, row, run_sql

OFFER = Offer("http://{slug}.apps.localhost:8088", {"instance": "1.2.3"})
STARTER, PROFESSIONAL = "mindroom_starter_month", "mindroom_professional_month"
PAYS, FAILS_LATER = "4242424242424242", "4000000000000341"  # Stripe's own test cards
API_KEY = "sk_test_shop"


@dataclass(frozen=True)
class Buyer:
    """A customer, here and at Stripe."""

    id: str
    stripe_id: str


@dataclass
class Shop:
    """What a test buys and does at Stripe, and what our database then says."""

    pool: Pool
    url: str
    official: stripe.StripeClient
    pages: httpx.AsyncClient
    client: StripeClient
    prices: dict[str, str] = field(default_factory=dict)

    def handler(self, client: StripeClient | None = None) -> SubscriptionHandler:
        return SubscriptionHandler(client or self.client, load_catalogue, OFFER)

    def queue(self, owner: str = "test") -> WorkQueue:
        return WorkQueue(self.pool, owner, LEASE)

    async def price(self, lookup_key: str) -> str:
        """The price of that lookup key, made when first asked for."""
        if lookup_key not in self.prices:
            product = await self.official.v1.products.create_async({"name": lookup_key})
            made = await self.official.v1.prices.create_async(
                {
                    "product": product.id,
                    "currency": "usd",
                    "unit_amount": 2900,
                    "recurring": {"interval": "month"},
                    "lookup_key": lookup_key,
                }
            )
            self.prices[lookup_key] = made.id
        return self.prices[lookup_key]

    async def buyer(self, clock: str | None = None) -> Buyer:
        """A customer, on a test clock of Stripe's if one is named."""
        id_ = "c" + secrets.token_hex(6)
        email = f"{id_}@example.com"
        made = await self.official.v1.customers.create_async(
            {"email": email, "name": "Ann", "test_clock": clock} if clock else {"email": email, "name": "Ann"}
        )
        await run_sql(
            self.pool,
            "INSERT INTO customer (id, email, name, stripe_customer_id) VALUES (%s, %s, 'Ann', %s)",
            id_,
            email,
            made.id,
        )
        return Buyer(id_, made.id)

    async def checkout(self, buyer: Buyer, slug: str, product: str = "mindroom") -> str:
        """An open checkout of ours that holds `slug`; returns its id."""
        id_ = "co" + secrets.token_hex(6)
        await run_sql(
            self.pool,
            "INSERT INTO checkout (id, customer_id, product, plan, interval, slug, expires_at)"
            " VALUES (%s, %s, %s, 'starter', 'month', %s, now() + interval '1 day')",
            id_,
            buyer.id,
            product,
            slug,
        )
        return id_

    async def pay(
        self,
        buyer: Buyer,
        lookup_key: str = STARTER,
        checkout: str | None = None,
        *,
        card: str = PAYS,
        trial_days: int = 0,
    ) -> str:
        """Pay on Stripe's hosted page; returns the subscription's id."""
        given: stripe.params.checkout.SessionCreateParamsSubscriptionData = {}
        if checkout:
            given["metadata"] = {"berth_checkout": checkout}
        if trial_days:
            given["trial_period_days"] = trial_days
        session = await self.official.v1.checkout.sessions.create_async(
            {
                "mode": "subscription",
                "customer": buyer.stripe_id,
                "line_items": [{"price": await self.price(lookup_key), "quantity": 1}],
                "subscription_data": given,
                "success_url": "http://127.0.0.1/done",
                "cancel_url": "http://127.0.0.1/left",
            }
        )
        form = {"card_number": card, "expiry": "12 / 40"}
        answer = await self.pages.post(str(session.url), data=form)
        assert answer.status_code == 303, answer.text
        paid = await self.official.v1.checkout.sessions.retrieve_async(session.id)
        return str(paid.subscription)

    async def force(self, subscription: str, status: str) -> None:
        """Put a subscription into any status Stripe has."""
        answer = await self.pages.post(
            f"{self.url}/_sandbox/subscriptions/{subscription}", json={"status": status}
        )
        assert answer.status_code == 200, answer.text

    async def refuse_calls(self, count: int) -> None:
        answer = await self.pages.post(f"{self.url}/_sandbox/faults", json={"rate_limit": count})
        assert answer.status_code == 200, answer.text

    async def ring(self, subscription: str, times: int = 1) -> None:
        """What our webhook does with an event, once or more."""
        for _ in range(times):
            async with self.pool.connection() as conn:
                await enqueue(conn, Kind.SUBSCRIPTION, subscription)

    async def settle(self, subscription: str, handler: SubscriptionHandler | None = None) -> QueueRow:
        """Ring, and let one worker make one pass; returns the item after it."""
        await self.ring(subscription)
        await one_pass(self.queue(), Kind.SUBSCRIPTION, (handler or self.handler()).handle)
        return await row(self.pool, subscription, Kind.SUBSCRIPTION)

    async def due_instances(self) -> list[tuple[str, int]]:
        """The instances on the work queue, with how often each was enqueued."""
        async with self.pool.connection() as conn:
            return [(item.key, item.seq) for item in await list_items(conn, Kind.INSTANCE)]


@asynccontextmanager
async def open_shop(pool: Pool) -> AsyncIterator[Shop]:
    """A stand-in of one's own, gone afterwards."""
    async with (
        serve() as server,
        httpx.AsyncClient(timeout=10) as pages,
        StripeClient(API_KEY, server.url) as client,
    ):
        http = stripe.HTTPXClient(timeout=10)
        official = stripe.StripeClient(API_KEY, base_addresses={"api": server.url}, http_client=http)
        try:
            yield Shop(pool, server.url, official, pages, client)
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]  # the library left it untyped
