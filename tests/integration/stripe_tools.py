"""What the stand-in's tests share: a webhook receiver, a catalogue to sell, and paying as a browser would."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import stripe

KEY = "sk_test_berth"
GOOD_CARD = "4242 4242 4242 4242"
PATIENCE = 15.0


@dataclass(frozen=True)
class Received:
    """One webhook as it arrived."""

    body: bytes
    headers: dict[str, str]
    status: int

    def event(self, secret: str) -> stripe.Event:
        """The event, once the official client has verified its signature."""
        event = stripe.Webhook.construct_event(self.body, self.headers["stripe-signature"], secret)
        assert isinstance(event, stripe.Event)
        return event


class Receiver:
    """A webhook endpoint: answers the given statuses in turn and then 200, and keeps what it got."""

    def __init__(self, url: str, statuses: Sequence[int]) -> None:
        self.url = url
        self.received: list[Received] = []
        self._statuses = list(statuses)
        self._arrived = asyncio.Condition()

    async def wait_for(self, count: int) -> list[Received]:
        """All that was received, once there are at least `count`."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
            return list(self.received)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection's one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        async with self._arrived:
            status = self._statuses.pop(0) if self._statuses else 200
            self.received.append(Received(body, headers, status))
            self._arrived.notify_all()
        writer.write(f"HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[Receiver]:
    """Lend a listening webhook endpoint."""
    lent: list[Receiver] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the sender gave up
            await lent[0].answer(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        lent.append(Receiver(f"http://127.0.0.1:{port}/hook", statuses))
        yield lent[0]


@asynccontextmanager
async def client(url: str, key: str = KEY) -> AsyncIterator[stripe.StripeClient]:
    """Lend the official client, pointed at a stand-in."""
    transport = stripe.HTTPXClient(timeout=10)
    try:
        yield stripe.StripeClient(key, base_addresses={"api": url}, http_client=transport)
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


async def new_price(
    api: stripe.StripeClient, lookup_key: str = "mindroom_starter_month", amount: int = 2900
) -> stripe.Price:
    """A monthly price of a product of its own."""
    product = await api.v1.products.create_async({"name": "MindRoom Starter"})
    return await api.v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": amount,
            "recurring": {"interval": "month"},
            "lookup_key": lookup_key,
        }
    )


async def open_session(
    api: stripe.StripeClient, price: str, customer: str | None = None, **more: object
) -> stripe.checkout.Session:
    """A checkout of one price."""
    params: Any = {
        "mode": "subscription",
        "line_items": [{"price": price, "quantity": 1}],
        "success_url": "https://app.test/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://app.test/back",
        **({} if customer is None else {"customer": customer}),
        **more,
    }
    return await api.v1.checkout.sessions.create_async(params)


async def pay(session: stripe.checkout.Session, card_number: str = GOOD_CARD, **more: str) -> httpx.Response:
    """What a browser gets when it sends the hosted page's form."""
    assert session.url is not None
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.post(session.url, data={"card_number": card_number, **more})


async def bought(
    api: stripe.StripeClient, price: stripe.Price | None = None, **more: object
) -> stripe.Subscription:
    """A subscription of a new customer who paid."""
    price = price or await new_price(api)
    customer = await api.v1.customers.create_async({"email": "ada@example.com"})
    session = await open_session(api, price.id, customer.id, **more)
    answer = await pay(session)
    assert answer.status_code == 303
    done = await api.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription"]})
    assert isinstance(done.subscription, stripe.Subscription)
    return done.subscription


async def control(url: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    """The control API's answer, which must be a success."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.request(method, f"{url}/_sandbox/{path}", json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
