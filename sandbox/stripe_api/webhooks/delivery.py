"""Webhooks on their way: signed, bounded, retried until answered with 2xx, none forgotten by a restart."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from sandbox.stripe_api.database import transaction
from sandbox.stripe_api.ledger import Ledger, encoded
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.webhooks.outbox import Attempt, Delivery
from sandbox.stripe_api.webhooks.signature import signature, signing_secrets

LONGEST_ERROR = 200


@dataclass(frozen=True)
class DeliveryPolicy:
    """How deliveries are tried; seconds, of the sandbox clock unless said otherwise.

    A delivery that was not answered with 2xx is made again after 1 s, then 2 s, 4 s and so on up to 4 hours,
    for 3 days. Stripe publishes that it tries for up to three days, ever more rarely, and no more than that:
    https://docs.stripe.com/webhooks#automatic-retries. Ours begins sooner, for whoever develops with it.

    Attributes:
        timeout: for one attempt, connecting included; of real time.
        concurrency: how many at once.
        first_retry: the delay after the first failure; it doubles with each.
        longest_retry: where it stops doubling.
        give_up_after: no retry is made later than this after the event.
    """

    timeout: float = 10.0
    concurrency: int = 8
    first_retry: float = 1.0
    longest_retry: float = 4 * 3600.0
    give_up_after: float = 3 * 86400.0

    def delay(self, attempts: int) -> float:
        """How long to wait after that many failures."""
        return min(self.first_retry * 2.0 ** min(attempts - 1, 30), self.longest_retry)


class DeliveryEngine:
    """Makes the ledger's pending deliveries until cancelled; whatever was under way then is made again."""

    def __init__(self, ledger: Ledger, policy: DeliveryPolicy) -> None:
        self._ledger = ledger
        self._policy = policy
        self._flying: set[int] = set()

    async def run(self) -> None:
        """Deliver for ever."""
        limits = httpx.Limits(max_connections=self._policy.concurrency)
        async with (
            httpx.AsyncClient(timeout=self._policy.timeout, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                ring = self._ledger.bell.next_ring()
                wait = self._start_due(lambda one: tasks.create_task(self._deliver(client, one)))
                await _wait(ring, wait)

    def _start_due(self, start: Callable[[Delivery], object]) -> float | None:
        """Start what is due, as far as there is room; return the seconds until more is due, if known."""
        limit = self._policy.concurrency + len(self._flying)
        for delivery in self._ledger.outbox.pending(limit):
            if delivery.id in self._flying:
                continue
            wait = delivery.due - self._ledger.clock()
            if wait > 0:
                return wait
            if len(self._flying) >= self._policy.concurrency:
                return None
            self._flying.add(delivery.id)
            start(delivery)
        return None

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        try:
            endpoint = self._ledger.store.find(delivery.endpoint)
            event = self._ledger.store.find(delivery.event)
            if endpoint is None or event is None or endpoint["status"] != "enabled":
                with transaction(self._ledger.connection):
                    self._ledger.end(delivery, "abandoned")
                return
            attempt = await self._attempt(client, endpoint, event)
            with transaction(self._ledger.connection):
                self._settle(delivery, attempt)
        finally:
            self._flying.discard(delivery.id)
            self._ledger.bell.ring()

    async def _attempt(self, client: httpx.AsyncClient, endpoint: Json, event: Json) -> Attempt:
        began, watch = self._ledger.clock(), time.monotonic()
        body = encoded(event)
        # Receivers compare with their own clock, which no sandbox clock moves.
        signed = signature(body, signing_secrets(endpoint, began), int(time.time()))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signed,
            "User-Agent": "Stripe/1.0 (stand-in)",
        }
        if self._ledger.outbox.faults().tamper:
            body = body.replace(b'"livemode": false', b'"livemode": true')
        status: int | None = None
        error: str | None = None
        try:
            async with (
                asyncio.timeout(self._policy.timeout),
                client.stream("POST", endpoint["url"], content=body, headers=headers) as response,
            ):
                status = response.status_code
        except TimeoutError:
            error = f"No answer within {self._policy.timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = f"{type(failure).__name__}: {failure}"[:LONGEST_ERROR]
        return Attempt(began, time.monotonic() - watch, status, error)

    def _settle(self, delivery: Delivery, attempt: Attempt) -> None:
        outbox = self._ledger.outbox
        outbox.record(delivery, attempt)
        due = self._ledger.clock() + self._policy.delay(delivery.attempts + 1)
        if attempt.status is not None and 200 <= attempt.status < 300:
            self._ledger.end(delivery, "delivered")
        elif due > delivery.made + self._policy.give_up_after:
            self._ledger.end(delivery, "failed")
        else:
            outbox.retry(delivery, due)


async def _wait(ring: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await ring.wait()
    except TimeoutError:
        return
