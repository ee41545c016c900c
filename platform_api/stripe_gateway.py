"""What we ask of Stripe, with bounds on time and retries, and its errors as problems."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import stripe

from platform_api import problems
from platform_api.logs import Log
from platform_api.problems import Problem

if TYPE_CHECKING:
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsSubscriptionData

_ATTEMPT_TIMEOUT = 10.0  # seconds, one try
_CALL_TIMEOUT = 20.0  # seconds, all tries of one call
_RETRIES = 2
_PRICE_TTL = 300.0  # seconds
_DEFAULT_RETRY_AFTER = 5  # seconds
_MAX_RETRY_AFTER = 120


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A subscription to sell; `id` is ours, and makes a repeated request find the same session."""

    id: str
    customer_id: str
    stripe_customer_id: str
    price_id: str
    trial_days: int
    success_url: str
    cancel_url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A Checkout Session as Stripe has it; status is `open`, `complete` or `expired`."""

    id: str
    status: str | None
    url: str | None


@asynccontextmanager
async def open_client(api_key: str, api_url: str) -> AsyncIterator[stripe.StripeClient]:
    """Lend a client of the Stripe at `api_url`."""
    transport = stripe.HTTPXClient(timeout=_ATTEMPT_TIMEOUT)
    try:
        yield stripe.StripeClient(
            api_key, base_addresses={"api": api_url}, http_client=transport, max_network_retries=_RETRIES
        )
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


class StripeGateway:
    """Stripe's API as this service uses it. Every method raises Problem (502 or 503) when Stripe will not."""

    def __init__(self, client: stripe.StripeClient, log: Log) -> None:
        self._client = client
        self._log = log
        self._prices: dict[str, tuple[str, float]] = {}

    async def create_customer(self, customer_id: str, email: str, name: str) -> str:
        """Return the Stripe id of our customer, made if Stripe has none by that idempotency key."""
        async with self._asking("create customer"):
            made = await self._client.v1.customers.create_async(
                {"email": email, "name": name, "metadata": {"berth_customer": customer_id}},
                {"idempotency_key": f"customer-{customer_id}"},
            )
        return made.id

    async def price(self, lookup_key: str) -> str:
        """Return the id of the active price that carries `lookup_key`, remembered for five minutes."""
        now = time.monotonic()
        known = self._prices.get(lookup_key)
        if known is not None and known[1] > now:
            return known[0]
        async with self._asking("list prices"):
            found = await self._client.v1.prices.list_async(
                {"lookup_keys": [lookup_key], "active": True, "limit": 1}
            )
        if not found.data:
            self._log.error("Stripe has no active price for a plan on sale", lookup_key=lookup_key)
            raise Problem(
                problems.BILLING_UNAVAILABLE,
                "This plan cannot be bought at the moment; we have been told.",
                retry_after=_MAX_RETRY_AFTER,
            )
        self._prices[lookup_key] = (found.data[0].id, now + _PRICE_TTL)
        return found.data[0].id

    async def create_session(self, request: SessionRequest) -> Session:
        """Open a Checkout Session, or find the one a lost answer opened."""
        terms: SessionCreateParamsSubscriptionData = {"metadata": {"berth_checkout": request.id}}
        if request.trial_days > 0:
            terms["trial_period_days"] = request.trial_days
        params: SessionCreateParams = {
            "mode": "subscription",
            "customer": request.stripe_customer_id,
            "client_reference_id": request.customer_id,
            "line_items": [{"price": request.price_id, "quantity": 1}],
            "subscription_data": terms,
            "metadata": {"berth_checkout": request.id},
            "success_url": request.success_url,
            "cancel_url": request.cancel_url,
            "expires_at": int(request.expires_at.timestamp()),
        }
        async with self._asking("create checkout session"):
            made = await self._client.v1.checkout.sessions.create_async(
                params, {"idempotency_key": f"checkout-{request.id}"}
            )
        return Session(made.id, made.status, made.url)

    async def session(self, session_id: str) -> Session:
        """Return the session as it is now."""
        async with self._asking("retrieve checkout session"):
            found = await self._client.v1.checkout.sessions.retrieve_async(session_id)
        return Session(found.id, found.status, found.url)

    async def end_session(self, session_id: str) -> Session:
        """Expire the session if it is still open; either way return it as it then is."""
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                ended = await self._client.v1.checkout.sessions.expire_async(session_id)
        except (stripe.StripeError, TimeoutError):
            return await self.session(session_id)  # it was not open, or Stripe is away: that call tells
        return Session(ended.id, ended.status, ended.url)

    @asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                yield
        except TimeoutError as error:
            raise _unavailable(_DEFAULT_RETRY_AFTER) from error
        except (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError) as error:
            self._log.warning("Stripe is unavailable", call=what, status=error.http_status, code=error.code)
            raise _unavailable(_retry_after(error)) from error
        except stripe.StripeError as error:
            self._log.error(
                "Stripe refused a request of ours",
                call=what,
                error=type(error).__name__,
                status=error.http_status,
                code=error.code,
                param=getattr(error, "param", None),
                stripe_request=error.request_id,
            )
            raise Problem(
                problems.BILLING_REFUSED, "Nothing was bought; we have been told, try again later."
            ) from error


def _unavailable(retry_after: int) -> Problem:
    return Problem(
        problems.BILLING_UNAVAILABLE,
        "Nothing was bought and no name is held; try again in a moment.",
        retry_after=retry_after,
    )


def _retry_after(error: stripe.StripeError) -> int:
    headers = {name.lower(): value for name, value in dict(error.headers or {}).items()}
    given = str(headers.get("retry-after", ""))
    return min(max(int(given), 1), _MAX_RETRY_AFTER) if given.isdecimal() else _DEFAULT_RETRY_AFTER
