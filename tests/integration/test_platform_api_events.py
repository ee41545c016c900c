import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import psycopg
import pytest

from platform_api.request_bounds import MAX_BODY
from provisioner.contract.ids import new_id
from provisioner.contract.queue import CHANNEL
from tests.integration.platform_api_support import (
    NEXT_SECRET,
    Api,
    deliver,
    event,
    make_settings,
    running_api,
    serving,
    sign,
)

NOTHING: list[tuple[Any, ...]] = []


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running_api(make_settings(database_url)) as running:
        yield running


async def inbox(api: Api) -> list[tuple[Any, ...]]:
    return await api.rows("SELECT id, type, payload FROM stripe_event ORDER BY id")


async def queue(api: Api) -> list[tuple[Any, ...]]:
    return await api.rows("SELECT kind, key, seq FROM work_item ORDER BY kind, key")


def is_problem(answer: httpx.Response, status: int, name: str) -> bool:
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.json()["type"] == f"urn:berth:problem:{name}"
    )


@pytest.mark.parametrize("path", ["/webhooks/stripe", "/api/v1/webhooks/stripe"])
async def test_invariant_01_event_acknowledged_only_after_stored(api: Api, path: str) -> None:
    what = event()
    answer = await deliver(api.client, what, path)
    assert answer.status_code == 200
    assert await inbox(api) == [(what["id"], what["type"], what)]
    assert await queue(api) == [("subscription", what["data"]["object"]["id"], 1)]


async def test_invariant_01_neither_half_is_stored_when_the_other_cannot_be(api: Api) -> None:
    await api.rows("ALTER TABLE work_item ADD CHECK (key <> 'sub_refused')")
    answer = await deliver(api.client, event(obj={"id": "sub_refused"}))
    assert answer.status_code == 500
    assert await inbox(api) == NOTHING
    assert await queue(api) == NOTHING


async def test_the_same_event_five_times_is_stored_once(api: Api) -> None:
    what = event()
    answers = await asyncio.gather(*(deliver(api.client, what) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len(await inbox(api)) == 1
    assert [row[:2] for row in await queue(api)] == [("subscription", what["data"]["object"]["id"])]


async def test_events_of_one_subscription_are_one_work_item(api: Api) -> None:
    subscription = {"id": "sub_one", "object": "subscription"}
    types = ("customer.subscription.created", "customer.subscription.updated", "customer.subscription.paused")
    await asyncio.gather(*(deliver(api.client, event(name, subscription)) for name in types))
    assert len(await inbox(api)) == 3
    assert [row[:2] for row in await queue(api)] == [("subscription", "sub_one")]


async def test_a_resent_event_revives_a_parked_item(api: Api) -> None:
    what = event(obj={"id": "sub_parked"})
    await deliver(api.client, what)
    await api.rows("UPDATE work_item SET parked_at = now(), due_at = NULL")
    await deliver(api.client, what)
    assert await api.rows("SELECT parked_at, due_at IS NOT NULL, seq FROM work_item") == [(None, True, 2)]


@pytest.mark.parametrize(
    ("event_type", "obj"),
    [
        ("checkout.session.completed", {"id": "cs_1", "subscription": "sub_x"}),
        ("checkout.session.completed", {"id": "cs_1", "subscription": {"id": "sub_x"}}),
        ("invoice.paid", {"parent": {"subscription_details": {"subscription": "sub_x"}}}),
        ("invoice.payment_failed", {"subscription": "sub_x"}),
        ("customer.subscription.trial_will_end", {"id": "sub_x"}),
    ],
)
async def test_an_event_enqueues_the_subscription_it_concerns(
    api: Api, event_type: str, obj: dict[str, Any]
) -> None:
    await deliver(api.client, event(event_type, obj))
    assert await queue(api) == [("subscription", "sub_x", 1)]


@pytest.mark.parametrize(
    ("event_type", "obj"),
    [
        ("customer.created", {"id": "cus_1"}),
        ("brand.new.thing", {"subscription": "sub_x"}),
        ("customer.subscription.updated", {"id": "not a subscription"}),
        ("customer.subscription.updated", {"id": 7}),
        ("invoice.paid", {"parent": "what", "subscription": ["sub_x"]}),
    ],
)
async def test_other_events_are_recorded_and_enqueue_nothing(
    api: Api, event_type: str, obj: dict[str, Any]
) -> None:
    what = event(event_type, obj)
    assert (await deliver(api.client, what)).status_code == 200
    assert await inbox(api) == [(what["id"], event_type, what)]
    assert await queue(api) == NOTHING


async def test_either_secret_is_good_while_one_replaces_the_other(api: Api) -> None:
    body = json.dumps(event())
    answer = await api.client.post("/webhooks/stripe", content=body, headers=sign(body, NEXT_SECRET))
    assert answer.status_code == 200
    assert len(await inbox(api)) == 1


def forged(body: str) -> dict[str, str]:
    return sign(body, "whsec_of_somebody_else")


def stale(body: str) -> dict[str, str]:
    return sign(body, at=time.time() - 301)


def for_another_body(body: str) -> dict[str, str]:
    return sign(body + " ")


@pytest.mark.parametrize("headers", [forged, stale, for_another_body])
async def test_a_forged_or_stale_event_is_refused_and_not_stored(
    api: Api, headers: Callable[[str], dict[str, str]]
) -> None:
    body = json.dumps(event())
    answer = await api.client.post("/webhooks/stripe", content=body, headers=headers(body))
    assert is_problem(answer, 400, "bad-event")
    assert await inbox(api) == NOTHING
    assert await queue(api) == NOTHING


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "nonsense",
        "t=,v1=",
        "t=1",
        "v1=00",
        "t=9" + "9" * 5000 + ",v1=00",
        "t=1,v1=é",
        "t=1" + ",v1=00" * 10_000,
        "t=now,v0=00",
    ],
)
async def test_an_unsigned_event_is_refused_and_not_stored(api: Api, signature: str | None) -> None:
    headers = {} if signature is None else {b"Stripe-Signature": signature.encode("latin-1")}
    answer = await api.client.post("/webhooks/stripe", content=json.dumps(event()), headers=headers)
    assert is_problem(answer, 400, "bad-event")
    assert await inbox(api) == NOTHING


def changed(**fields: object) -> str:
    return json.dumps(event() | fields)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        "{",
        '"evt_1"',
        "[" * 100_000,
        changed(id=None),
        changed(id="evt_'; DROP TABLE customer"),
        changed(id="evt_\x00"),
        changed(id="evt_" + "x" * 300),
        changed(type=7),
        changed(created="yesterday"),
        changed(created=10**30),
        changed(created=-(10**11)),
        changed(data=[1]),
        json.dumps(event()).replace("false", "NaN"),
        '{"id": "evt_1", "type": "x", "created": ' + "9" * 5000 + "}",
    ],
)
async def test_a_signed_body_that_is_no_event_is_refused_and_not_stored(api: Api, body: str) -> None:
    answer = await api.client.post("/webhooks/stripe", content=body, headers=sign(body))
    assert is_problem(answer, 400, "bad-event")
    assert await inbox(api) == NOTHING


async def test_a_body_that_is_not_text_is_refused_and_not_stored(api: Api) -> None:
    answer = await api.client.post("/webhooks/stripe", content=b"\xff\xfe{}", headers=sign("{}"))
    assert is_problem(answer, 400, "bad-event")
    assert await inbox(api) == NOTHING


@pytest.mark.parametrize(
    "oddity", [r'"a\u0000b"', r'"\ud800"', "1e400000", "[" * 900 + "]" * 900, '"\U0001f600\u202e"']
)
async def test_an_event_that_jsonb_cannot_hold_still_counts(api: Api, oddity: str) -> None:
    what = event(obj={"id": "sub_odd", "note": "HERE"})
    body = json.dumps(what).replace('"HERE"', oddity)
    answer = await api.client.post("/webhooks/stripe", content=body.encode(), headers=sign(body))
    assert answer.status_code == 200
    assert [row[0] for row in await inbox(api)] == [what["id"]]
    assert await queue(api) == [("subscription", "sub_odd", 1)]


async def test_an_event_that_jsonb_cannot_hold_keeps_its_bytes(api: Api) -> None:
    body = json.dumps(event(obj={"id": "sub_odd", "note": "a\x00b"}))
    await api.client.post("/webhooks/stripe", content=body, headers=sign(body))
    [(kept,)] = await api.rows(
        "SELECT convert_from(decode(payload->>'berth_raw_base64', 'base64'), 'UTF8') FROM stripe_event"
    )
    assert kept == body


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_oversized_event_is_refused_and_not_stored(api: Api, chunked: bool) -> None:
    body = json.dumps(event(padding="x" * MAX_BODY)).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async with serving(api.app) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(
            "/webhooks/stripe", content=pieces() if chunked else body, headers=sign(body.decode())
        )
    assert is_problem(answer, 413, "body-too-large")
    assert await inbox(api) == NOTHING


async def test_an_event_of_just_the_largest_size_is_stored(api: Api) -> None:
    what = event(padding="")
    what["padding"] = "x" * (MAX_BODY - len(json.dumps(what)))
    async with serving(api.app) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await deliver(client, what)).status_code == 200
    assert [row[0] for row in await inbox(api)] == [what["id"]]


async def test_an_expired_session_frees_the_slug_it_held(api: Api) -> None:
    customer, _ = await api.sign_up()
    await api.rows(
        "INSERT INTO checkout (id, customer_id, product, plan, interval, slug, stripe_session_id, expires_at)"
        " VALUES (%s, %s, 'mindroom', 'starter', 'month', 'acme', 'cs_test_1', now())",
        new_id("chk"),
        customer,
    )
    await deliver(api.client, event("checkout.session.expired", {"id": "cs_test_other"}))
    assert await api.rows("SELECT slug FROM checkout WHERE closed_at IS NULL") == [("acme",)]
    await deliver(api.client, event("checkout.session.expired", {"id": "cs_test_1"}))
    assert await api.rows("SELECT slug FROM checkout WHERE closed_at IS NULL") == NOTHING


async def test_workers_are_woken_when_an_event_is_committed(api: Api, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listening:
        await listening.execute(f"LISTEN {CHANNEL}")
        async with serving(api.app) as url, httpx.AsyncClient(base_url=url) as client:
            await deliver(client, event())
            heard = [notice async for notice in listening.notifies(timeout=10, stop_after=1)]
    assert [notice.payload for notice in heard] == ["subscription"]


async def test_events_are_counted_by_what_became_of_them(api: Api) -> None:
    what = event("invoice.paid", {})
    await deliver(api.client, what)
    await deliver(api.client, what)
    await api.client.post("/webhooks/stripe", content="{}", headers=sign("[]"))
    counted = {
        (event_type, outcome): api.metrics.registry.get_sample_value(
            "berth_api_stripe_events_total", {"type": event_type, "outcome": outcome}
        )
        for event_type, outcome in (
            ("invoice.paid", "stored"),
            ("invoice.paid", "duplicate"),
            ("", "refused"),
        )
    }
    assert counted == {("invoice.paid", "stored"): 1, ("invoice.paid", "duplicate"): 1, ("", "refused"): 1}
