"""A server that gives canned answers in Stripe's place: for what no well-behaved stand-in would say."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from provisioner.clients.stripe import StripeClient

JULY, AUGUST = 1782864000, 1785542400


@dataclass
class Canned:
    """Answers every request with the next of `answers`, the last one for ever."""

    answers: list[tuple[int, Mapping[str, str], object]]
    requests: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await _request(reader))
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await _answer(writer, status, headers, body)


async def _request(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n", 1)[0]


async def _answer(
    writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str], body: object
) -> None:
    content = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + content)
    await writer.drain()
    writer.close()


@asynccontextmanager
async def answering(
    *answers: tuple[int, Mapping[str, str], object],
) -> AsyncIterator[tuple[StripeClient, Canned]]:
    canned = Canned(list(answers))
    server = await asyncio.start_server(canned.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, StripeClient("sk_test_hidden", f"http://127.0.0.1:{port}/") as client:
        yield client, canned


@asynccontextmanager
async def telling(said: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[StripeClient]:
    """A Stripe that has just the subscriptions in `said`, by id, and of invoices the latest ones in them."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = urlsplit((await _request(reader)).split()[1])
        if url.path == "/v1/invoices":
            (id_,) = parse_qs(url.query)["subscription"]
            await _answer(writer, 200, {}, {"object": "list", "data": [said[id_]["latest_invoice"]]})
        elif (found := said.get(url.path.rpartition("/")[2])) is not None:
            await _answer(writer, 200, {}, found)
        else:
            error = {"type": "invalid_request_error", "code": "resource_missing", "message": "none"}
            await _answer(writer, 404, {}, {"error": error})

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, StripeClient("sk_test_hidden", f"http://127.0.0.1:{port}/") as client:
        yield client


def price(key: str | None) -> dict[str, Any]:
    return {"id": "price_1", "object": "price", "lookup_key": key, "recurring": {"interval": "month"}}


def items(*lookup_keys: str) -> dict[str, Any]:
    """Lines of a subscription, one per price."""
    lines = [
        {
            "id": f"si_{n}",
            "quantity": 1,
            "price": price(key),
            "current_period_start": JULY,
            "current_period_end": AUGUST,
        }
        for n, key in enumerate(lookup_keys)
    ]
    return {"object": "list", "data": lines, "has_more": False}


def invoice(id_: str, status: str, finalized: int | None, created: int = JULY) -> dict[str, Any]:
    """A bill as Stripe shows it, of what we read."""
    return {
        "id": id_,
        "object": "invoice",
        "status": status,
        "created": created,
        "status_transitions": {"finalized_at": finalized},
        "amount_due": 2900,
        "currency": "usd",
        "attempt_count": 1,
    }


def subscription(id_: str = "sub_1", **changes: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
    """A subscription as Stripe shows it."""
    return {
        "id": id_,
        "object": "subscription",
        "status": "active",
        "customer": "cus_1",
        "items": items("mindroom_pro_month"),
        "cancel_at_period_end": False,
        "metadata": {"berth_checkout": "co1"},
        "created": JULY,
        "trial_end": None,
        "cancel_at": None,
        "ended_at": None,
        "latest_invoice": invoice("in_1", "paid", JULY),
        "test_clock": None,
        **changes,
    }
