"""The inbox's statement, as webhooks and the catch-up after downtime use it."""

import asyncio
import json
from typing import Any

import psycopg
import pytest

from provisioner.contract.ids import new_id
from provisioner.contract.inbox import Event, parse_event, store_events
from provisioner.contract.queue import Kind
from tests.integration.platform_api_support import event

Connection = psycopg.AsyncConnection[Any]


def about(subscription: str, id_: str | None = None, note: str = '""') -> Event:
    what = event(obj={"id": subscription, "note": "HERE"}) | {"id": id_ or new_id("evt_")}
    return parse_event(json.dumps(what).replace('"HERE"', note))


async def rows(database_url: str, query: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        return await (await conn.execute(query.encode())).fetchall()


@pytest.mark.parametrize(
    ("event_type", "obj", "subject"),
    [
        ("customer.subscription.updated", {"id": "sub_1"}, (Kind.SUBSCRIPTION, "sub_1")),
        ("invoice.paid", {"subscription": "sub_1"}, (Kind.SUBSCRIPTION, "sub_1")),
        ("charge.refunded", {"id": "ch_1"}, (Kind.CHARGE, "ch_1")),
        ("charge.refunded", {"id": "py_1"}, (Kind.CHARGE, "py_1")),
        ("charge.dispute.created", {"id": "dp_1", "charge": "ch_1"}, (Kind.CHARGE, "ch_1")),
        ("charge.dispute.closed", {"charge": {"id": "ch_1"}}, (Kind.CHARGE, "ch_1")),
        ("charge.refund.updated", {"id": "re_1", "charge": "ch_1"}, (Kind.CHARGE, "ch_1")),
        ("refund.failed", {"id": "re_1", "charge": "ch_1"}, (Kind.CHARGE, "ch_1")),
        ("refund.created", {"id": "re_1", "charge": None}, None),
        ("charge.succeeded", {"id": "ch_1"}, None),
        ("charge.refunded", {"id": "sub_1"}, None),
    ],
)
def test_an_event_names_what_to_look_at_again(
    event_type: str, obj: dict[str, Any], subject: tuple[Kind, str] | None
) -> None:
    assert parse_event(json.dumps(event(event_type, obj))).subject == subject


async def test_a_batch_with_doubles_is_stored_once_and_enqueues_each_subject_once(database_url: str) -> None:
    twice, known = about("sub_a"), about("sub_b")
    other = parse_event(json.dumps(event("charge.refunded", {"id": "ch_a"})))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        assert await store_events(conn, []) == frozenset()
        assert await store_events(conn, [known]) == {known.id}
        assert await store_events(conn, [twice, other, known, twice]) == {twice.id, other.id}
    assert await rows(
        database_url,
        "SELECT id, subject_kind, subject_key FROM stripe_event ORDER BY received_at, subject_key",
    ) == [
        (known.id, "subscription", "sub_b"),
        (other.id, "charge", "ch_a"),
        (twice.id, "subscription", "sub_a"),
    ]
    assert await rows(database_url, "SELECT kind, key, seq FROM work_item ORDER BY key") == [
        ("charge", "ch_a", 1),
        ("subscription", "sub_a", 1),
        ("subscription", "sub_b", 2),
    ]


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_what_jsonb_refuses_spoils_neither_its_batch_nor_the_callers_transaction(
    database_url: str, in_transaction: bool
) -> None:
    batch = [about("sub_a"), about("sub_odd", note=r'"a\u0000b"'), about("sub_b")]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=not in_transaction) as conn:
        assert len(await store_events(conn, batch)) == 3
    assert await rows(
        database_url,
        "SELECT subject_key, payload ? 'berth_raw_base64' FROM stripe_event ORDER BY subject_key",
    ) == [("sub_a", False), ("sub_b", False), ("sub_odd", True)]


async def test_an_expired_session_closes_its_checkout_whatever_else_is_in_the_batch(
    database_url: str,
) -> None:
    expired = parse_event(json.dumps(event("checkout.session.expired", {"id": "cs_1"})))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute("INSERT INTO customer (id, email, name) VALUES ('c1', 'a@example.com', 'Ada')")
        await conn.execute(
            "INSERT INTO checkout"
            " (id, customer_id, product, plan, interval, slug, stripe_session_id, expires_at)"
            " SELECT n, 'c1', 'p', 'p', 'month', n, 'cs_' || n, now() FROM unnest('{1,2}'::text[]) AS n"
        )
        await store_events(conn, [about("sub_a"), expired])
    assert await rows(database_url, "SELECT slug FROM checkout WHERE closed_at IS NULL") == [("2",)]


async def test_batches_that_cross_do_not_wait_for_each_other_for_ever(database_url: str) -> None:
    """Same events, same subjects, other orders, at once, again and again: Postgres would find a deadlock."""
    connections = [await psycopg.AsyncConnection.connect(database_url, autocommit=True) for _ in range(4)]
    try:
        for number in range(25):
            batch = [about(f"sub_{key}", f"evt_{number}_{key}") for key in range(40)]
            batch += [
                parse_event(json.dumps(event("charge.refunded", {"id": f"ch_{key}"}))) for key in range(20)
            ]
            orders = (batch, batch[::-1], batch[::2] + batch[1::2], batch[30:] + batch[:30])
            await asyncio.gather(*(map(store_events, connections, orders)))
    finally:
        for conn in connections:
            await conn.close()
    assert await rows(database_url, "SELECT count(*) FROM stripe_event") == [(25 * 60,)]
