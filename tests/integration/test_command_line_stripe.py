"""berth stripe and berth customers, run as an operator runs them."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from typer.testing import CliRunner

from provisioner.catch_up import CatchUp
from provisioner.contract.inbox import parse_event, store_events
from provisioner.contract.queue import Kind
from scripts.berth.app import build_app
from scripts.berth.event_queries import list_events
from scripts.berth.output import CommandError
from tests.integration.queue_tools import Pool, move_to_kiritimati, row, run_sql
from tests.integration.shop import API_KEY, Shop, open_shop

BERTH = Path(sys.executable).with_name("berth")


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    async with open_shop(pool) as opened:
        yield opened


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    return kept | {"BERTH_DATABASE_URL": database_url, "BERTH_STATE_DIR": str(tmp_path), "COLUMNS": "200"}


async def berth(settings: dict[str, str], *words: str) -> str:
    """What the command prints. It runs in a thread, with a loop of its own: a process is slow to start."""
    result = await asyncio.to_thread(CliRunner().invoke, build_app(), words, env=settings)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def at(shop: Shop, settings: dict[str, str]) -> dict[str, str]:
    return settings | {"BERTH_STRIPE_API_KEY": API_KEY, "BERTH_STRIPE_API_URL": shop.url}


async def test_sync_prints_what_differed_and_takes_in_what_was_missed(
    pool: Pool, shop: Shop, settings: dict[str, str]
) -> None:
    subscription = await shop.pay(await shop.buyer())
    said: dict[str, Any] = json.loads(await berth(at(shop, settings), "stripe", "sync", "--json"))
    assert said["differences"] == [
        {"subscription_id": subscription, "what": "subscription", "held": None, "at_stripe": "active"}
    ]
    assert (said["compared"], said["foreign"]) == (1, 0)
    assert said["missed_events"]
    assert (await row(pool, subscription, Kind.SUBSCRIPTION)).state == "due"
    again = await berth(at(shop, settings), "stripe", "sync")
    assert subscription in again
    assert "1 subscriptions compared, 1 enqueued" in again
    assert "0 events had been missed" in again


async def test_events_show_how_their_subjects_stand(pool: Pool, shop: Shop, settings: dict[str, str]) -> None:
    await shop.pay(await shop.buyer())
    await CatchUp(pool, shop.client).run()
    oddity = {"id": "evt_odd", "type": "plan.created", "created": 1782864000, "data": {"object": {}}}
    async with pool.connection() as conn:
        await store_events(conn, [parse_event(json.dumps(oddity))])
    await run_sql(
        pool, "UPDATE work_item SET due_at = NULL, parked_at = now(), last_error = 'price_1 is unknown'"
    )
    failed = json.loads(await berth(settings, "stripe", "events", "--failed", "--json"))
    assert {(event["state"], event["error"]) for event in failed} == {("parked", "price_1 is unknown")}
    assert {event["subject_kind"] for event in failed} == {"subscription"}
    (unhandled,) = json.loads(await berth(settings, "stripe", "events", "--unhandled", "--json"))
    assert (unhandled["id"], unhandled["state"], unhandled["subject_key"]) == ("evt_odd", "unhandled", None)
    table = await berth(settings, "stripe", "events", "--type", "customer.subscription.created")
    assert "price_1 is unknown" in table
    assert "plan.created" not in table
    assert "plan.created" in await berth(settings, "stripe", "show", "evt_odd")


@pytest.mark.parametrize(
    ("column", "value", "state"),
    [
        ("due_at", "now()", "waiting"),
        ("lease_until", "now() + interval '1 minute'", "running"),
        ("attempts", "3", "failing"),
        ("parked_at", "now()", "parked"),
        ("due_at", "NULL", "done"),
        ("due_at", "now() + interval '3 days'", "done"),
    ],
)
async def test_the_state_of_an_event_is_its_subjects(
    pool: Pool, database_url: str, column: str, value: str, state: str
) -> None:
    event = {"id": "evt_1", "type": "customer.subscription.updated", "created": 1782864000}
    async with pool.connection() as conn:
        text = json.dumps(event | {"data": {"object": {"id": "sub_1"}}})
        await store_events(conn, [parse_event(text)])
        await conn.execute(f"UPDATE work_item SET {column} = {value}".encode())  # noqa: S608 -- the table above
    async with await AsyncConnection.connect(database_url, row_factory=dict_row) as conn:
        (found,) = await list_events(conn, states=None, event_type=None, limit=1)
    assert found["state"] == state


async def test_replay_acts_again_and_fetches_what_the_inbox_lacks(
    pool: Pool, shop: Shop, settings: dict[str, str]
) -> None:
    subscription = await shop.pay(await shop.buyer())
    listed = await shop.official.v1.events.list_async({"type": "customer.subscription.created"})
    event = listed.data[0].id
    first = json.loads(await berth(at(shop, settings), "stripe", "replay", event, "--json"))
    assert first == {"event": event, "fetched": True, "subject": f"subscription {subscription}"}
    await run_sql(pool, "UPDATE work_item SET due_at = NULL, parked_at = now()")
    assert f"subscription {subscription} is due now" in await berth(settings, "stripe", "replay", event)
    assert (await row(pool, subscription, Kind.SUBSCRIPTION)).state == "due"
    with pytest.raises(CommandError, match="neither the inbox nor Stripe has an event 'evt_nobody'"):
        await berth(at(shop, settings), "stripe", "replay", "evt_nobody")


async def test_without_a_key_the_error_is_a_sentence_that_names_the_setting(settings: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        BERTH, "stripe", "sync", env=settings, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 1
    sentence, remedy = said.decode().splitlines()
    assert sentence == "error: no Stripe key is named and no demo is running"
    assert "BERTH_STRIPE_API_KEY" in remedy


async def test_a_demos_stripe_is_not_compared_with_another_database(
    pool: Pool, shop: Shop, settings: dict[str, str], tmp_path: Path
) -> None:
    await shop.pay(await shop.buyer())
    (tmp_path / "demo").mkdir()
    demo = f"BERTH_STRIPE_API_KEY={API_KEY}\nBERTH_STRIPE_API_URL={shop.url}\n"
    (tmp_path / "demo" / "demo.env").write_text(demo)
    for command in ("sync", "replay evt_1"):
        with pytest.raises(CommandError, match="Stripe key is a demo's"):
            await berth(settings, "stripe", *command.split())
    async with pool.connection() as conn:
        assert (await conn.execute("SELECT FROM stripe_event")).rowcount == 0
        # Else what the real Stripe tells of the time before would be taken for read.
        assert (await conn.execute("SELECT FROM stripe_sync")).rowcount == 0


async def test_an_address_is_verified_once(pool: Pool, settings: dict[str, str]) -> None:
    await run_sql(pool, "INSERT INTO customer (id, email, name) VALUES ('c1', 'ann@example.com', 'Ann')")
    first, again = [
        json.loads(await berth(settings, "customers", "verify", "Ann@Example.com", "--json"))
        for _ in range(2)
    ]
    assert first == again
    assert first["email_verified_at"] is not None
    assert json.loads(await berth(settings, "customers", "list", "--unverified", "--json")) == []
    assert "ann@example.com" in await berth(settings, "customers", "list")
    with pytest.raises(CommandError) as refused:
        await berth(settings, "customers", "verify", "an@example.com")
    assert "did you mean ann@example.com?" in refused.value.remedy


async def test_times_are_utcs_wherever_the_database_stands(pool: Pool, settings: dict[str, str]) -> None:
    await move_to_kiritimati(pool)
    await run_sql(
        pool,
        "INSERT INTO customer (id, email, name, email_verified_at)"
        " VALUES ('c1', 'ann@example.com', 'Ann', '2026-06-30T12:00:00Z')",
    )
    said = await berth(settings, "customers", "verify", "ann@example.com")
    assert "2026-06-30 12:00 UTC" in said


async def test_who_was_made_at_stripe_by_hand_is_linked_once_and_to_one(
    pool: Pool, settings: dict[str, str]
) -> None:
    await run_sql(
        pool,
        "INSERT INTO customer (id, email, name, stripe_customer_id)"
        " VALUES ('c1', 'ann@example.com', 'Ann', NULL), ('c2', 'bo@example.com', 'Bo', 'cus_bo')",
    )
    for _ in range(2):
        said = await berth(settings, "customers", "link", "Ann@example.com", "cus_ann", "--json")
        assert json.loads(said)["stripe_customer_id"] == "cus_ann"
    for email, stripe_id, why in (
        ("ann@example.com", "cus_other", "is cus_ann at Stripe already"),
        ("bo@example.com", "cus_ann", "is cus_bo at Stripe already"),
        ("an@example.com", "cus_an", "no customer with the address"),
        ("ann@example.com", "sub_1", "no customer of Stripe's"),
    ):
        with pytest.raises(CommandError, match=why):
            await berth(settings, "customers", "link", email, stripe_id)
    await run_sql(pool, "INSERT INTO customer (id, email, name) VALUES ('c3', 'cy@example.com', 'Cy')")
    with pytest.raises(CommandError, match="cus_bo is another customer here"):
        await berth(settings, "customers", "link", "cy@example.com", "cus_bo")
    listed = json.loads(await berth(settings, "customers", "list", "--json"))
    assert {row["id"]: row["stripe_customer_id"] for row in listed} == {
        "c1": "cus_ann",
        "c2": "cus_bo",
        "c3": None,
    }


async def test_invariant_7_a_backup_is_final_only_of_what_is_stopped_and_stays_so(
    pool: Pool, shop: Shop, settings: dict[str, str]
) -> None:
    subscription = await shop.pay(await shop.buyer())
    await shop.settle(subscription)
    command = ("instances", "final-backup", subscription, "--where", "s3://x/acme.tar", "--by", "ann")
    # Suspended, paid for again, and not yet started: from here on it writes what no backup holds.
    await run_sql(pool, "UPDATE instance SET phase = 'suspended'")
    with pytest.raises(CommandError, match="is to be running"):
        await berth(settings, *command)
    await shop.force(subscription, "canceled")
    await shop.settle(subscription)
    await run_sql(pool, "UPDATE instance SET phase = 'ready'")
    with pytest.raises(CommandError, match="is ready"):
        await berth(settings, *command)
    await run_sql(pool, "UPDATE instance SET phase = 'suspended'")
    assert "recorded" in await berth(settings, *command)
    async with pool.connection() as conn:
        found = await conn.execute("SELECT is_internal FROM instance_event WHERE reason = 'FinalBackup'")
        assert await found.fetchall() == [(True,)], "where a backup is is not for customers to read"


async def test_a_check_of_the_schema_fails_while_anything_is_missing(
    empty_database_url: str, settings: dict[str, str]
) -> None:
    empty = settings | {"BERTH_DATABASE_URL": empty_database_url}
    with pytest.raises(SystemExit) as missing:
        await berth(empty, "migrate", "--check")
    assert missing.value.code == 1
    await berth(empty, "migrate")
    assert "0 applied" in await berth(empty, "migrate", "--check")
