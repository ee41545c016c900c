"""The stand-in's webhooks: signed, retried, remembered over a restart, and faulty on request."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from sandbox.loopback import PortError
from sandbox.stripe_api.app import serve
from sandbox.stripe_api.database import StateFileError
from sandbox.stripe_api.webhooks.delivery import DeliveryPolicy
from tests.integration.stripe_tools import (
    KEY,
    PATIENCE,
    Receiver,
    bought,
    client,
    control,
    new_price,
    open_session,
    pay,
    receiver,
)

QUICK = DeliveryPolicy(first_retry=0.05, longest_retry=0.2)


async def listen(api: stripe.StripeClient, hook: Receiver, *types: str) -> str:
    """Have the stand-in tell `hook`; returns the endpoint's secret."""
    kinds: Any = list(types) or ["*"]
    made = await api.v1.webhook_endpoints.create_async({"url": hook.url, "enabled_events": kinds})
    assert made.secret is not None
    return made.secret


async def settled(url: str, event: str | None = None) -> list[dict[str, Any]]:
    """All deliveries, once none is owed for an hour to come."""
    await control(url, "GET", f"idle?timeout_seconds={PATIENCE}&within_seconds=3600")
    listed = await control(url, "GET", f"deliveries?event={event}" if event else "deliveries")
    return list(listed["data"])


async def test_the_official_client_accepts_what_is_delivered() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        secret = await listen(api, hook)
        subscription = await bought(api)

        webhooks = await hook.wait_for(10)

        events = [one.event(secret) for one in webhooks]
        assert Counter(event.type for event in events)["customer.subscription.created"] == 1
        told = next(event for event in events if event.type == "customer.subscription.created")
        assert told.data.object["id"] == subscription.id
        assert told.data.object["items"]["data"][0]["price"]["lookup_key"] == "mindroom_starter_month"
        assert webhooks[0].headers["content-type"] == "application/json; charset=utf-8"
        with pytest.raises(stripe.SignatureVerificationError):
            webhooks[0].event(secret + "x")
        with pytest.raises(stripe.SignatureVerificationError):
            replace(webhooks[0], body=webhooks[0].body + b" ").event(secret)
        await settled(server.url)
        assert (await api.v1.events.retrieve_async(told.id)).pending_webhooks == 0


async def test_an_endpoint_hears_only_what_it_asked_for() -> None:
    async with serve() as server, client(server.url) as api, receiver() as one, receiver() as off:
        await listen(api, one, "price.created", "checkout.session.completed")
        silent = await api.v1.webhook_endpoints.create_async({"url": off.url, "enabled_events": ["*"]})
        await api.v1.webhook_endpoints.update_async(silent.id, {"disabled": True})

        await bought(api)
        deliveries = await settled(server.url)

        assert sorted(delivery["state"] for delivery in deliveries) == ["delivered", "delivered"]
        types = [stripe_type(webhook.body) for webhook in one.received]
        assert sorted(types) == ["checkout.session.completed", "price.created"]
        assert off.received == []


def stripe_type(body: bytes) -> str:
    return next(line for line in body.decode().splitlines() if line.startswith('  "type"')).split('"')[3]


async def test_an_error_is_answered_with_the_same_event_again() -> None:
    async with serve(policy=QUICK) as server, client(server.url) as api, receiver(500, 503, 302) as hook:
        secret = await listen(api, hook)
        await api.v1.customers.create_async({"name": "x"})

        webhooks = await hook.wait_for(4)
        (delivery,) = await settled(server.url)

        assert len({one.event(secret).id for one in webhooks}) == 1
        assert [attempt["status"] for attempt in delivery["attempts"]] == [500, 503, 302, 200]
        began = [attempt["at"] for attempt in delivery["attempts"]]
        gaps = [later - earlier for earlier, later in pairwise(began)]
        assert gaps[0] >= 0.05
        assert gaps[1] >= 0.1
        assert gaps[2] >= 0.2


async def test_retries_grow_to_hours_and_end_after_three_days_of_the_sandbox_clock() -> None:
    policy = DeliveryPolicy()
    assert [policy.delay(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert policy.delay(29) == policy.longest_retry == 4 * 3600

    rare = DeliveryPolicy(first_retry=policy.longest_retry)
    async with serve(policy=rare) as server, client(server.url) as api, receiver(*[500] * 30) as hook:
        secret = await listen(api, hook)
        await api.v1.customers.create_async({"name": "x"})
        for attempt in range(1, 18):
            (delivery,) = await settled(server.url)
            assert (delivery["state"], len(delivery["attempts"])) == ("pending", attempt)
            await control(server.url, "POST", "clock", {"advance_seconds": 4 * 3600})

        (delivery,) = await settled(server.url)

        assert delivery["state"] == "failed"
        assert delivery["attempts"][-1]["at"] - delivery["made"] < 3 * 86400 + 60
        assert len({webhook.event(secret).id for webhook in hook.received}) == 1
        # A receiver compares a signature's time with its own clock, which nobody puts forward.
        signed = hook.received[-1].headers["stripe-signature"].split(",")[0].removeprefix("t=")
        assert int(signed) < delivery["attempts"][-1]["at"] - 2 * 86400


async def test_waiting_for_quiet_ends_with_what_is_still_owed() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        await listen(api, hook)
        await control(server.url, "POST", "faults", {"delay_seconds": 3600})
        await api.v1.customers.create_async({"name": "x"})

        assert await control(server.url, "GET", "idle") == {"idle": True}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(
                f"{server.url}/_sandbox/idle", params={"timeout_seconds": 0.05, "within_seconds": 3601}
            )
        assert answer.status_code == 504
        assert "1 deliveries are still owed" in answer.json()["error"]
        (pending,) = (await control(server.url, "GET", "deliveries?state=pending"))["data"]
        assert (pending["type"], pending["due"] - pending["made"]) == ("customer.created", 3600)

        await control(server.url, "POST", "clock", {"advance_seconds": 3600})

        assert [one["state"] for one in await settled(server.url)] == ["delivered"]


async def test_shuffled_deliveries_reorder_changes_the_same_way_for_the_same_seed() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        secret = await listen(api, hook)
        orders: list[list[str]] = []
        for seed in (3, 3, 4):
            await control(server.url, "POST", "faults", {"shuffle_seconds": 3600, "seed": seed})
            for name in "abcdef":
                await api.v1.customers.create_async({"name": name})
            due = (await control(server.url, "GET", "deliveries?state=pending"))["data"]
            names = "fedcba"  # the newest is listed first
            orders.append([name for _, name in sorted(zip((one["due"] for one in due), names, strict=True))])
            await control(server.url, "POST", "clock", {"advance_seconds": 3601})
            await settled(server.url)

        assert orders[0] == orders[1] != orders[2]
        assert orders[0] != list("abcdef")
        arrived = [one.event(secret).data.object["name"] for one in hook.received]
        assert sorted(arrived) == sorted("abcdef" * 3)


async def test_a_rolled_secret_signs_beside_the_former_for_a_while() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        former = await listen(api, hook)
        endpoint = (await api.v1.webhook_endpoints.list_async()).data[0]
        path = f"webhook_endpoints/{endpoint.id}/roll_secret"
        newer = (await control(server.url, "POST", path, {"overlap_seconds": 3600}))["secret"]

        await api.v1.customers.create_async({"name": "x"})
        (during,) = await hook.wait_for(1)
        await control(server.url, "POST", "clock", {"advance_seconds": 3600})
        await api.v1.customers.create_async({"name": "y"})
        after = (await hook.wait_for(2))[1]

        assert during.event(former).id == during.event(newer).id
        assert after.event(newer).data.object["name"] == "y"
        with pytest.raises(stripe.SignatureVerificationError):
            after.event(former)
        shown = await api.v1.webhook_endpoints.retrieve_async(endpoint.id)
        assert "secret" not in str(shown.to_dict())


async def test_calls_fail_lose_their_answer_or_get_none_as_told() -> None:
    async with serve() as server, client(server.url) as api:
        await control(server.url, "POST", "faults", {"fail": 1})
        with pytest.raises(stripe.APIError) as failed:
            await api.v1.customers.create_async({"name": "a"})
        assert failed.value.http_status == 500

        await control(server.url, "POST", "faults", {"cut": 1})
        with pytest.raises(stripe.APIConnectionError):
            await api.v1.customers.create_async({"name": "b"}, {"idempotency_key": "k"})
        again = await api.v1.customers.create_async({"name": "b"}, {"idempotency_key": "k"})

        await control(server.url, "POST", "faults", {"hang": 1})
        async with httpx.AsyncClient(timeout=0.2, trust_env=False) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.get(f"{server.url}/v1/customers", headers={"Authorization": f"Bearer {KEY}"})

        assert [one.id for one in (await api.v1.customers.list_async()).data] == [again.id]


async def test_silence_and_refusal_count_as_failures_and_delay_no_other() -> None:
    impatient = replace(QUICK, timeout=2.0, give_up_after=0.0)
    async with (
        serve(policy=impatient) as server,
        client(server.url) as api,
        mute_endpoint() as mute,
        receiver() as hook,
    ):
        for url in (mute, "http://127.0.0.1:1/hook", hook.url):
            await api.v1.webhook_endpoints.create_async({"url": url, "enabled_events": ["*"]})
        await api.v1.customers.create_async({"name": "x"})

        deliveries = await settled(server.url)

        outcomes = [(one["state"], one["attempts"][0]["error"]) for one in deliveries[::-1]]
        by_error = {str(error).split(":")[0]: state for state, error in outcomes}
        assert by_error == {
            "No answer within 2 s": "failed",
            "ConnectError": "failed",
            "None": "delivered",
        }


@asynccontextmanager
async def mute_endpoint() -> AsyncIterator[str]:
    """The address of something that takes connections and says nothing."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


async def test_an_endpoint_deleted_meanwhile_is_told_nothing() -> None:
    async with serve(policy=QUICK) as server, client(server.url) as api, receiver(500) as hook:
        made = await api.v1.webhook_endpoints.create_async({"url": hook.url, "enabled_events": ["*"]})
        await control(server.url, "POST", "faults", {"delay_seconds": 0.3})
        await api.v1.customers.create_async({"name": "x"})
        await api.v1.webhook_endpoints.delete_async(made.id)

        (delivery,) = await settled(server.url)

        assert (delivery["state"], delivery["attempts"]) == ("abandoned", [])
        assert hook.received == []


async def test_duplicates_are_the_same_event() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        secret = await listen(api, hook)
        await control(server.url, "POST", "faults", {"duplicate": 4})

        await api.v1.customers.create_async({"name": "x"})

        webhooks = await hook.wait_for(5)
        assert len(await settled(server.url)) == 5
        assert len({one.event(secret).id for one in webhooks}) == 1


async def test_dropped_deliveries_never_arrive_but_their_events_exist() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        secret = await listen(api, hook)
        await control(server.url, "POST", "faults", {"drop": 2})

        for name in ("a", "b", "c"):
            await api.v1.customers.create_async({"name": name})

        (webhook,) = await hook.wait_for(1)
        assert webhook.event(secret).data.object["name"] == "c"
        states = [one["state"] for one in await settled(server.url)]
        assert states == ["delivered", "dropped", "dropped"]
        events = (await api.v1.events.list_async()).data
        assert [event.data.object["name"] for event in events] == ["c", "b", "a"]
        assert (await control(server.url, "GET", "faults"))["drop"] == 0

        async def missed() -> list[str]:
            listed = await api.v1.events.list_async({"delivery_success": False, "type": "customer.*"})
            return [event.data.object["name"] for event in listed.data]

        assert await missed() == ["b", "a"]
        await control(server.url, "POST", f"events/{events[-1].id}/resend")
        assert (await hook.wait_for(2))[1].event(secret).data.object["name"] == "a"
        await settled(server.url)
        assert await missed() == ["b"]
        assert (await api.v1.events.list_async({"type": "product.*"})).data == []


async def test_reordered_events_arrive_last_first() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        secret = await listen(
            api, hook, "customer.subscription.created", "checkout.session.completed", "invoice.paid"
        )
        await control(server.url, "POST", "faults", {"reorder": True})

        await bought(api)

        arrived = [one.event(secret).id for one in await hook.wait_for(3)]
        listed = (await api.v1.events.list_async({"limit": 100})).data  # the latest first
        assert arrived == [event.id for event in listed if event.id in arrived]


async def test_delayed_deliveries_come_no_sooner() -> None:
    async with serve() as server, client(server.url) as api, receiver() as hook:
        await listen(api, hook)
        await control(server.url, "POST", "faults", {"delay_seconds": 0.5})
        asked = time.time()
        await api.v1.customers.create_async({"name": "x"})

        await hook.wait_for(1)

        (delivery,) = await settled(server.url)
        assert delivery["attempts"][0]["at"] >= asked + 0.5


async def test_a_tampered_body_fails_its_signature_and_is_made_good_later() -> None:
    async with serve(policy=QUICK) as server, client(server.url) as api, receiver(400) as hook:
        secret = await listen(api, hook)
        await control(server.url, "POST", "faults", {"tamper": True})
        await api.v1.customers.create_async({"name": "x"})
        (tampered,) = (await hook.wait_for(1))[:1]
        await control(server.url, "DELETE", "faults")

        with pytest.raises(stripe.SignatureVerificationError):
            tampered.event(secret)
        await settled(server.url)
        await api.v1.customers.create_async({"name": "y"})
        await settled(server.url)
        assert hook.received[-1].event(secret).data.object["name"] == "y"


async def test_a_restart_forgets_nothing_and_delivers_what_was_owed(tmp_path: Path) -> None:
    state = str(tmp_path / "stripe.sqlite")
    slow = replace(QUICK, first_retry=0.5, longest_retry=0.5)
    async with receiver(500) as hook:
        async with serve(state, policy=slow) as server, client(server.url) as api:
            price = await new_price(api)
            secret = await listen(api, hook, "customer.created")
            first = await api.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
            session = await open_session(api, price.id, first.id, subscription_data={"trial_period_days": 3})
            await hook.wait_for(1)
            port = int(server.url.rpartition(":")[2])

        async with serve(state, port, policy=QUICK) as server, client(server.url) as api:
            again = await api.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
            webhooks = await hook.wait_for(2)
            assert (await pay(session)).status_code == 303
            listed = (await api.v1.subscriptions.list_async()).data

    assert again.id == first.id
    assert {one.event(secret).data.object["id"] for one in webhooks} == {first.id}
    assert [one.status for one in listed] == ["trialing"]


async def test_a_killed_process_loses_nothing_it_answered(tmp_path: Path) -> None:
    state = str(tmp_path / "stripe.sqlite")
    async with process(state) as (url, running), client(url) as api:
        price = await new_price(api)
        running.kill()
        await running.wait()

    async with process(state) as (url, running), client(url) as api:
        found = await api.v1.prices.list_async({"lookup_keys": ["mindroom_starter_month"]})
        running.terminate()
        assert await running.wait() == 0

    assert [one.id for one in found.data] == [price.id]


@asynccontextmanager
async def process(state: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """`python -m sandbox.stripe_api`, listening."""
    command = ["-m", "sandbox.stripe_api", "--port", "0", "--state", state]
    running = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert running.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await running.stdout.readline()).decode()
        assert line.startswith("Stripe stand-in listening on http://127.0.0.1:")
        yield line.split()[4], running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def test_one_file_serves_one_process_and_one_port_one_server(tmp_path: Path) -> None:
    state = str(tmp_path / "stripe.sqlite")
    async with serve(state) as server:
        with pytest.raises(StateFileError, match="stop the other stand-in"):
            async with serve(state):
                pass
        with pytest.raises(PortError, match="choose another"):
            async with serve(port=int(server.url.rpartition(":")[2])):
                pass
    (tmp_path / "text").write_text("this is no database, but long enough to be looked at " * 50)
    with pytest.raises(StateFileError, match="name another file"):
        async with serve(str(tmp_path / "text")):
            pass


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "faults", {"dorp": 1}, 400),
        ("POST", "faults", {"drop": -1}, 400),
        ("POST", "faults", {"chance": 2}, 400),
        ("GET", "idle?timeout_seconds=1000", None, 400),
        ("GET", "idle?patience=1", None, 400),
        ("POST", "webhook_endpoints/we_none/roll_secret", None, 404),
        ("POST", "webhook_endpoints/we_none/roll_secret", {"overlap_seconds": -1}, 400),
        ("POST", "events/evt_none/resend", None, 404),
        ("POST", "subscriptions/sub_none", {"status": "active"}, 404),
        ("POST", "subscriptions/sub_none", {"status": "frozen"}, 400),
    ],
)
async def test_the_control_api_says_what_it_cannot_do(
    method: str, path: str, body: object, status: int
) -> None:
    async with serve() as server:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.request(method, f"{server.url}/_sandbox/{path}", json=body)
        assert answer.status_code == status
        assert answer.json()["error"]
