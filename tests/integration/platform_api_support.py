"""Runs platform_api for a test: over ASGI for its logic, over a socket where bytes and connections matter."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx
import stripe
import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp

from catalogue.loader import load_catalogue
from platform_api.app import make_app
from platform_api.database import Pool, connect, make_pool
from platform_api.metrics import Metrics, make_metrics
from platform_api.settings import Settings
from platform_api.stripe_gateway import StripeGateway, open_client
from provisioner.contract.ids import new_id

SECRET = "whsec_the_first"
NEXT_SECRET = "whsec_the_next"


@dataclasses.dataclass(frozen=True)
class Api:
    """A running platform_api, and a customer without token to talk to it."""

    app: FastAPI
    pool: Pool
    metrics: Metrics
    client: httpx.AsyncClient

    async def sign_up(self, name: str = "Ada") -> tuple[str, dict[str, str]]:
        """Return a new customer's id and the headers that speak for them."""
        answer = await self.client.post(
            "/v1/customers", json={"email": f"{new_id('someone')}@example.com", "name": name}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], {"Authorization": f"Bearer {answer.json()['token']}"}

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a query with the service's rights."""
        async with connect(self.pool) as conn:
            cursor = await conn.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []


def make_settings(
    database_url: str,
    stripe_url: str = "http://127.0.0.1:9",
    trusted_hosts: str = "*",
    webhook_secret: str = f"{SECRET} {NEXT_SECRET}",
) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        stripe_api_key=SecretStr("sk_test_platform_api"),
        stripe_api_url=stripe_url,
        webhook_secret=SecretStr(webhook_secret),
        apps_url="http://{slug}.apps.example.com",
        trusted_hosts=trusted_hosts,
    )


@contextlib.asynccontextmanager
async def running_api(settings: Settings) -> AsyncIterator[Api]:
    """Assemble the app as `__main__` does and lend a client that calls it without a socket."""
    async with (
        open_client(settings.stripe_api_key.get_secret_value(), settings.stripe_api_url) as client,
        make_pool(settings.database_url.get_secret_value()) as pool,
    ):
        metrics = make_metrics()
        gateway = StripeGateway(client, structlog.stdlib.get_logger())
        app = make_app(settings, pool, load_catalogue(settings.catalogue_dir), gateway, metrics)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://berth.test") as http:
            yield Api(app, pool, metrics, http)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serve any ASGI app on `port` of this machine (0: any); lends its URL."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


def event(
    event_type: str = "customer.subscription.updated", obj: Mapping[str, Any] | None = None, **more: object
) -> dict[str, Any]:
    """Return a Stripe event about `obj`, by default a subscription of its own."""
    return {
        "id": new_id("evt_"),
        "object": "event",
        "api_version": "2026-06-24.dahlia",
        "created": int(time.time()),
        "livemode": False,
        "type": event_type,
        "data": {"object": obj if obj is not None else {"id": new_id("sub_"), "object": "subscription"}},
        **more,
    }


def sign(body: str, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers with which Stripe would send `body`."""
    stamp = int(time.time() if at is None else at)
    header = stripe.WebhookSignature.generate_signature_header(body, secret, stamp)
    return {"Stripe-Signature": header, "Content-Type": "application/json"}


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    """Wait until `condition` holds; it is not told when it does."""
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def deliver(
    client: httpx.AsyncClient, what: Mapping[str, Any], path: str = "/webhooks/stripe"
) -> httpx.Response:
    """Send an event as Stripe does."""
    body = json.dumps(what)
    return await client.post(path, content=body, headers=sign(body))
