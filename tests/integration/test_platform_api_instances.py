from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

from platform_api.database import customer_transaction
from provisioner.contract.ids import new_id
from provisioner.contract.spec import CONDITIONS, Condition
from tests.integration.platform_api_support import Api, make_settings, running_api

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SPEC = {
    "limits": {"agents": 3, "storage_gb": None},
    "size": {"cpu_request": 50, "cpu_limit": 500, "memory": 2**28, "storage": 2**30, "replicas": 1},
    "secret_names": ["hidden"],
}


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running_api(make_settings(database_url)) as running:
        yield running


async def add_instance(api: Api, customer: str, created_at: datetime = NOON) -> str:
    instance, subscription = new_id("i"), new_id("sub_")
    await api.rows(
        "INSERT INTO subscription (id, customer_id, product, plan, interval, price_id, status)"
        " VALUES (%s, %s, 'mindroom', 'starter', 'month', 'price_1', 'active')",
        subscription,
        customer,
    )
    conditions = [Condition("Ready", None, "Unknown", "Not looked at yet.", NOON)]
    await api.rows(
        "INSERT INTO instance (id, customer_id, subscription_id, product, plan, slug, spec, conditions,"
        " created_at) VALUES (%s, %s, %s, 'mindroom', 'starter', %s, %s, %s, %s)",
        instance,
        customer,
        subscription,
        f"slug-{instance}",
        Jsonb(SPEC),
        Jsonb(CONDITIONS.dump_python(conditions, mode="json")),
        created_at,
    )
    await api.rows(
        "INSERT INTO instance_event (instance_id, reason, message) VALUES (%s, 'Created', 'Paid for.')",
        instance,
    )
    return instance


async def test_a_customer_sees_what_their_instance_is_and_has(api: Api) -> None:
    customer, headers = await api.sign_up()
    instance = await add_instance(api, customer)
    answer = await api.client.get(f"/v1/instances/{instance}", headers=headers)
    assert answer.status_code == 200
    shown = answer.json()
    since = shown.pop("phase_since")
    assert datetime.fromisoformat(since) <= datetime.now(UTC)
    assert shown == {
        "id": instance,
        "product": "mindroom",
        "plan": "starter",
        "slug": f"slug-{instance}",
        "url": f"http://slug-{instance}.apps.example.com",
        "phase": "pending",
        "conditions": [
            {
                "type": "Ready",
                "status": None,
                "reason": "Unknown",
                "message": "Not looked at yet.",
                "since": "2026-06-01T12:00:00Z",
            }
        ],
        "limits": SPEC["limits"],
        "size": SPEC["size"],
        "created_at": "2026-06-01T12:00:00Z",
        "paid_at": None,
        "ready_at": None,
    }


async def test_invariant_11_customer_sees_only_their_own(api: Api) -> None:
    ada, adas = await api.sign_up("Ada")
    bob, bobs = await api.sign_up("Bob")
    own = {"ada": await add_instance(api, ada), "bob": await add_instance(api, bob)}
    for headers, mine, other in ((adas, own["ada"], own["bob"]), (bobs, own["bob"], own["ada"])):
        listed = (await api.client.get("/v1/instances", headers=headers)).json()["data"]
        assert [instance["id"] for instance in listed] == [mine]
        missing = (await api.client.get("/v1/instances/i234567abcdefghij", headers=headers)).json()
        for path in (f"/v1/instances/{other}", f"/v1/instances/{other}/events"):
            answer = await api.client.get(path, headers=headers)
            assert answer.status_code == 404
            assert answer.json() | {"instance": ""} == missing | {"instance": ""}


@pytest.mark.parametrize("table", ["customer", "checkout", "subscription", "instance", "instance_event"])
async def test_invariant_11_row_level_security_shows_only_ones_own(api: Api, table: str) -> None:
    owners = []
    for name in ("Ada", "Bob"):
        customer, _ = await api.sign_up(name)
        await add_instance(api, customer)
        await api.rows(
            "INSERT INTO checkout (id, customer_id, product, plan, interval, slug, expires_at)"
            " VALUES (%s, %s, 'mindroom', 'starter', 'month', %s, now())",
            new_id("chk"),
            customer,
            name,
        )
        owners.append(customer)
    assert await api.rows(f"SELECT count(*) FROM {table}") == [(2,)]  # noqa: S608  # a name from the list above
    for customer in [*owners, "", "nobody"]:
        async with customer_transaction(api.pool, customer) as conn:
            cursor = await conn.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608  # as above
            assert await cursor.fetchone() == ((1,) if customer in owners else (0,))


async def test_invariant_11_a_customers_transaction_can_neither_write_nor_read_secrets(api: Api) -> None:
    customer, _ = await api.sign_up()
    for statement in (
        "UPDATE customer SET name = 'Eve'",
        "DELETE FROM instance",
        "SELECT token_sha256 FROM api_token",
        "SELECT payload FROM stripe_event",
        "INSERT INTO work_item (kind, key) VALUES ('instance', 'x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with customer_transaction(api.pool, customer) as conn:
                await conn.execute(statement.encode())


async def test_invariant_11_the_customers_role_ends_with_the_transaction(api: Api) -> None:
    customer, _ = await api.sign_up()
    for _ in range(20):  # the pool lends every connection again
        async with customer_transaction(api.pool, customer) as conn:
            assert await (await conn.execute("SELECT current_user")).fetchone() == ("berth_customer",)
        [(user, setting)] = await api.rows(
            "SELECT current_user::text, coalesce(current_setting('berth.customer_id', true), '')"
        )
        assert (user == "berth_customer", setting) == (False, "")


@pytest.mark.parametrize(
    "instance_id", ["x", "%00", "..%2f..", "I" * 20, "a" * 500, "i'or'1'='1", "%F0%9F%98%80"]
)
async def test_an_id_that_cannot_be_is_not_found(api: Api, instance_id: str) -> None:
    _, headers = await api.sign_up()
    answer = await api.client.get(f"/v1/instances/{instance_id}", headers=headers)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_pages_hold_every_instance_once_while_new_ones_are_made(api: Api) -> None:
    customer, headers = await api.sign_up()
    # Two at each moment, so that pages end between instances of the same age.
    made = [await add_instance(api, customer, NOON + timedelta(seconds=n // 2)) for n in range(7)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        parameters = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await api.client.get("/v1/instances", params=parameters, headers=headers)).json()
        assert len(page["data"]) <= 3
        seen += [instance["id"] for instance in page["data"]]
        cursor = page["next_cursor"]
        await add_instance(api, customer, NOON + timedelta(days=1))
    assert sorted(seen) == sorted(made)
    assert seen[0] == made[6]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=!!", "cursor=eA", "cursor=" + "A" * 300]
)
async def test_a_page_that_cannot_be_is_a_problem(api: Api, query: str) -> None:
    _, headers = await api.sign_up()
    answer = await api.client.get(f"/v1/instances?{query}", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"query/{query.split('=', maxsplit=1)[0]}"


async def test_what_operators_note_for_themselves_is_not_the_customers_to_read(api: Api) -> None:
    customer, headers = await api.sign_up()
    instance = await add_instance(api, customer)
    await api.rows(
        "INSERT INTO instance_event (instance_id, reason, message, is_internal)"
        " VALUES (%s, 'ReviewCleared', 'by ann: looks like fraud', true)",
        instance,
    )
    shown = (await api.client.get(f"/v1/instances/{instance}/events", headers=headers)).json()
    assert [one["reason"] for one in shown["data"]] == ["Created"]
    async with customer_transaction(api.pool, customer) as conn:
        found = await conn.execute("SELECT reason FROM instance_event")
        assert await found.fetchall() == [("Created",)]


async def test_the_timeline_is_read_on_from_where_one_was(api: Api) -> None:
    customer, headers = await api.sign_up()
    instance = await add_instance(api, customer)
    await add_instance(api, customer)
    for message in ("one", "two", "three"):
        await api.rows(
            "INSERT INTO instance_event (instance_id, reason, message) VALUES (%s, 'Told', %s)",
            instance,
            message,
        )
    path = f"/v1/instances/{instance}/events"
    first = (await api.client.get(path, params={"limit": 2}, headers=headers)).json()
    assert ([e["message"] for e in first["data"]], first["has_more"]) == (["Paid for.", "one"], True)
    rest = (await api.client.get(path, params={"after": first["last"]}, headers=headers)).json()
    assert ([e["message"] for e in rest["data"]], rest["has_more"]) == (["two", "three"], False)
    none = (await api.client.get(path, params={"after": rest["last"]}, headers=headers)).json()
    assert none == {"data": [], "last": rest["last"], "has_more": False}
