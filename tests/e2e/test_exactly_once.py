"""However often and however raced an event arrives: one instance, one namespace."""

import asyncio
import time

import httpx
import pytest
import stripe

from provisioner.clients.kubernetes import KINDS
from provisioner.contract.queue import Kind
from scripts.demo.services import stripe_client
from tests.e2e.conftest import StartBerth
from tests.e2e.harness import Berth, until

pytestmark = pytest.mark.cluster


async def test_invariant_03_one_subscription_one_instance_whatever_is_replayed(
    start_berth: StartBerth,
) -> None:
    async with start_berth() as berth:
        await berth.services.start()
        berth.services.provisioner(2).start()
        try:
            await duplicate_deliveries(berth, 5)
            account = await berth.buy("acme")
            await asyncio.gather(*(replay_all_events(berth) for _ in range(5)))
            [instance] = await berth.wait_ready()
            await queue_is_idle(berth)
        finally:
            await berth.services.provisioner(2).stop()

        assert len(await berth.instances()) == 1
        own = f"berth.dev/customer={account.customer_id}"
        namespaces = await berth.cluster.list(KINDS["Namespace"], selector=own)
        assert [n["metadata"]["name"] for n in namespaces.items] == [f"berth-{instance['id']}"]
        deployments = await berth.cluster.list(KINDS["Deployment"], selector=own)
        assert len(deployments.items) == 1


async def duplicate_deliveries(berth: Berth, times: int) -> None:
    async with httpx.AsyncClient(timeout=5) as web:
        answer = await web.post(f"{berth.services.stripe_url}/_sandbox/faults", json={"duplicate": times})
        answer.raise_for_status()


async def replay_all_events(berth: Berth) -> None:
    """Deliver every event Stripe knows once more, all at once, signed now."""
    async with stripe_client(berth.services.stripe_url) as client:
        events = await client.v1.events.list_async({"limit": 100})
    secret = berth.services.webhook_secret_file.read_text(encoding="utf-8")
    answers = await asyncio.gather(*(deliver(berth, str(event), secret) for event in events.data))
    assert {answer.status_code for answer in answers} == {200}


async def deliver(berth: Berth, payload: str, secret: str) -> httpx.Response:
    stamp = int(time.time())
    signature = stripe.WebhookSignature._compute_signature(f"{stamp}.{payload}", secret)
    headers = {"Stripe-Signature": f"t={stamp},v1={signature}", "Content-Type": "application/json"}
    return await berth.api.post("/webhooks/stripe", content=payload.encode(), headers=headers)


async def queue_is_idle(berth: Berth) -> None:
    async def idle() -> bool | None:
        busy = await berth.rows(
            "SELECT 1 FROM work_item WHERE kind = %s AND (due_at <= now() OR lease_until > now())",
            Kind.SUBSCRIPTION,
        )
        return None if busy else True

    await until(idle, 30, berth.describe)
