import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from catalogue.loader import load_catalogue
from platform_api.billing.queries import list_subscriptions
from platform_api.database import customer_transaction
from provisioner.clients.stripe import StripeClient
from provisioner.contract.ids import new_id
from provisioner.contract.queue import Kind
from provisioner.subscriptions import SubscriptionHandler
from provisioner.workqueue import WorkQueue
from tests.integration.platform_api_support import Api, make_settings, running_api
from tests.integration.queue_tools import LEASE, Pool, move_to_kiritimati, one_pass
from tests.integration.shop import OFFER

CHECKOUT, SUBSCRIPTION = "/v1/billing/checkout", "/v1/billing/subscription"
FREE = {"product": "mindroom", "plan": "free"}
Person = tuple[str, dict[str, str]]


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    """An API whose Stripe does not answer: nothing here is Stripe's to say."""
    async with running_api(make_settings(database_url)) as running:
        yield running


async def verified(api: Api) -> Person:
    customer, headers = await api.sign_up()
    await api.rows("UPDATE customer SET email_verified_at = now() WHERE id = %s", customer)
    return customer, headers


async def get_free(api: Api, person: Person, **more: str) -> httpx.Response:
    return await api.client.post(CHECKOUT, json=FREE | more, headers=person[1])


async def end_free(api: Api, person: Person) -> httpx.Response:
    return await api.client.delete(SUBSCRIPTION, headers=person[1], params={"product": "mindroom"})


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:berth:problem:")


async def add_subscription(api: Api, customer: str, **columns: object) -> str:
    given: dict[str, object] = {
        "id": new_id("sub_"),
        "customer_id": customer,
        "product": "mindroom",
        "plan": "starter",
        "interval": "month",
        "price_id": "price_1",
        "status": "active",
        **columns,
    }
    marks = ", ".join("%s" for _ in given)
    await api.rows(f"INSERT INTO subscription ({', '.join(given)}) VALUES ({marks})", *given.values())  # noqa: S608
    return str(given["id"])


async def add_instance(api: Api, customer: str, subscription: str, slug: str) -> str:
    instance = new_id("i")
    await api.rows(
        "INSERT INTO instance (id, customer_id, subscription_id, product, plan, slug, spec, phase)"
        " VALUES (%s, %s, %s, 'mindroom', 'starter', %s, '{}', 'ready')",
        instance,
        customer,
        subscription,
        slug,
    )
    return instance


async def test_a_free_plan_waits_for_a_verified_address(api: Api) -> None:
    person = await api.sign_up()
    assert (await api.client.get("/v1/me", headers=person[1])).json()["email_verified_at"] is None
    assert problem(await get_free(api, person)) == (403, "email-not-verified")
    assert await api.rows("SELECT count(*) FROM subscription") == [(0,)]


async def test_a_free_plan_is_a_subscription_a_held_name_and_a_work_item_at_once(api: Api) -> None:
    person = await verified(api)
    answer = await get_free(api, person, slug="ada")
    assert answer.status_code == 201, answer.text
    free_id = answer.json()["id"]
    assert free_id.startswith("free_")
    assert answer.json() == {
        "kind": "instance",
        "id": free_id,
        "url": "http://ada.apps.example.com",
        "slug": "ada",
        "expires_at": None,
    }
    row = "SELECT id, customer_id, product, plan, interval, price_id, status, source FROM subscription"
    assert await api.rows(row) == [
        (free_id, person[0], "mindroom", "free", None, None, "active", "free"),
    ]
    assert await api.rows("SELECT kind, key FROM work_item") == [("subscription", free_id)]
    assert await api.rows("SELECT id, slug FROM checkout WHERE closed_at IS NULL") == [(free_id, "ada")]
    other = await get_free(api, await verified(api), slug="ada")
    assert problem(other) == (409, "slug-taken")


async def test_of_simultaneous_requests_for_a_free_plan_one_gets_it(api: Api) -> None:
    person = await verified(api)
    answers = await asyncio.gather(*(get_free(api, person) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert await api.rows("SELECT count(*) FROM subscription") == [(1,)]


async def test_a_second_free_plan_is_refused_with_the_name_of_the_first(api: Api) -> None:
    person = await verified(api)
    free_id = (await get_free(api, person, slug="ada")).json()["id"]
    await add_instance(api, person[0], free_id, "ada")
    answer = await get_free(api, person, slug="other")
    assert problem(answer) == (409, "already-subscribed")
    assert "'ada'" in answer.json()["detail"]
    elsewhere = await api.client.post(CHECKOUT, json=FREE | {"product": "voxflow"}, headers=person[1])
    assert elsewhere.status_code == 201


async def test_who_pays_gets_no_free_plan_beside_it(api: Api) -> None:
    person = await verified(api)
    await add_subscription(api, person[0])
    answer = await get_free(api, person)
    assert problem(answer) == (409, "already-subscribed")
    assert "portal" in answer.json()["detail"]
    assert problem(await get_free(api, person, promo_code="LAUNCH")) == (400, "promo-code-refused")


async def test_after_the_end_of_what_was_paid_the_kept_instance_comes_back_for_free(api: Api) -> None:
    person = await verified(api)
    await add_instance(api, person[0], await add_subscription(api, person[0], status="canceled"), "ada")
    assert problem(await get_free(api, person, slug="other")) == (409, "instance-kept")
    answer = await get_free(api, person)
    assert (answer.status_code, answer.json()["slug"]) == (201, "ada")


async def test_buying_waits_until_the_free_instance_has_its_name(api: Api) -> None:
    person = await verified(api)
    free_id = (await get_free(api, person, slug="ada")).json()["id"]
    starter = {"product": "mindroom", "plan": "starter"}
    answer = await api.client.post(CHECKOUT, json=starter, headers=person[1])
    assert (problem(answer), answer.headers["retry-after"]) == ((409, "checkout-superseded"), "5")
    await add_instance(api, person[0], free_id, "ada")
    await api.rows("UPDATE checkout SET closed_at = now()")
    answer = await api.client.post(CHECKOUT, json=starter, headers=person[1])
    assert problem(answer) == (503, "billing-unavailable")  # it got as far as Stripe


async def test_a_free_plan_ends_when_its_customer_says_so(api: Api) -> None:
    person = await verified(api)
    free_id = (await get_free(api, person, slug="ada")).json()["id"]
    await api.rows("UPDATE work_item SET due_at = NULL")
    other = await verified(api)
    assert problem(await end_free(api, other)) == (
        404,
        "no-subscription",
    )
    answer = await end_free(api, person)
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled"), answer.text
    assert await api.rows("SELECT id FROM subscription WHERE ended_at IS NOT NULL") == [(free_id,)]
    assert await api.rows("SELECT key FROM work_item WHERE due_at IS NOT NULL") == [(free_id,)]
    assert await api.rows("SELECT count(*) FROM checkout WHERE closed_at IS NULL") == [(0,)]
    again = await end_free(api, person)
    assert problem(again) == (404, "no-subscription")
    assert (await get_free(api, person)).status_code == 201


async def test_the_instance_of_a_free_plan_has_the_name_that_was_asked_for(api: Api, pool: Pool) -> None:
    person = await verified(api)
    free_id = (await get_free(api, person, slug="ada")).json()["id"]
    async with StripeClient("sk_test_unused", "http://127.0.0.1:9") as nowhere:
        handler = SubscriptionHandler(nowhere, load_catalogue, OFFER)
        await one_pass(WorkQueue(pool, "test", LEASE), Kind.SUBSCRIPTION, handler.handle)
    answer = await api.client.get(SUBSCRIPTION, headers=person[1])
    assert (answer.json()["id"], answer.json()["instance"]["slug"]) == (free_id, "ada"), answer.text
    assert await api.rows("SELECT count(*) FROM checkout WHERE closed_at IS NULL") == [(0,)]


async def test_what_is_paid_ends_in_the_portal(api: Api) -> None:
    person = await api.sign_up()
    subscription = await add_subscription(api, person[0])
    answer = await end_free(api, person)
    assert problem(answer) == (409, "managed-in-portal")
    assert await api.rows("SELECT id, status FROM subscription") == [(subscription, "active")]


async def test_a_customer_sees_what_they_subscribe_to(api: Api) -> None:
    customer, headers = await api.sign_up()
    subscription = await add_subscription(
        api,
        customer,
        product="voxflow",
        plan="pro",
        status="past_due",
        quantity=2,
        add_ons='{"extra-agent": 3, "sold-no-more": 1}',
        current_period_end="2026-07-01T12:00:00Z",
        past_due_since="2026-06-01T12:00:00Z",
        review_since="2026-06-02T12:00:00Z",
    )
    instance = await add_instance(api, customer, subscription, "ada")
    answer = await api.client.get(SUBSCRIPTION, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "id": subscription,
        "product": "voxflow",
        "plan": "pro",
        "title": "Pro",
        "source": "stripe",
        "interval": "month",
        "status": "past_due",
        "meaning": "The last payment failed: pay in the billing portal, or the instance is suspended on"
        " 8 June 2026.",
        "current_period_end": "2026-07-01T12:00:00Z",
        "cancel_at_period_end": False,
        "trial_end": None,
        "quantity": 2,
        "add_ons": {"extra-agent": 3, "sold-no-more": 1},
        "limits": {"agents": 23, "tokens_per_month": 20_000},
        "instance": {"id": instance, "slug": "ada", "url": "http://ada.apps.example.com", "phase": "ready"},
        "suspended_on": "2026-06-08T12:00:00Z",
        "delete_at": None,
        "under_review": True,
    }


async def shown(api: Api, person: Person, **params: str) -> Any:  # noqa: ANN401 -- JSON
    answer = await api.client.get(SUBSCRIPTION, headers=person[1], params=params)
    return answer.json()["id"] if answer.status_code == 200 else problem(answer)


async def test_a_day_is_utcs_wherever_the_database_stands(pool: Pool, database_url: str) -> None:
    await move_to_kiritimati(pool)
    async with running_api(make_settings(database_url)) as api:
        person = await api.sign_up()
        await add_subscription(api, person[0], current_period_end="2026-06-30T12:00:00Z")
        view = (await api.client.get(SUBSCRIPTION, headers=person[1])).json()
    assert view["current_period_end"] == "2026-06-30T12:00:00Z"
    assert "until 30 June 2026" in view["meaning"]


async def test_a_plan_is_known_by_the_name_it_had_before(api: Api) -> None:
    person = await api.sign_up()
    await add_subscription(api, person[0], product="synthstack", plan="agency")
    view = (await api.client.get(SUBSCRIPTION, headers=person[1])).json()
    assert (view["title"], view["limits"]["credits_per_day"]) == ("Agency", 500)


async def test_of_several_subscriptions_the_live_one_is_meant(api: Api) -> None:
    person = await api.sign_up()
    assert await shown(api, person) == (404, "no-subscription")
    ended = await add_subscription(api, person[0], status="canceled", ended_at="2026-06-01T12:00:00Z")
    assert await shown(api, person) == ended
    free: Any = {"source": "free", "plan": "free", "interval": None, "price_id": None, "id": new_id("free_")}
    last = await add_subscription(api, person[0], **free, status="canceled", ended_at="2026-06-02T12:00:00Z")
    assert await shown(api, person) == last
    live = await add_subscription(api, person[0], product="voxflow", plan="pro")
    assert await shown(api, person) == live
    assert await shown(api, person, product="mindroom") == last
    assert await shown(api, person, product="paycraft") == (404, "no-subscription")
    again = await add_subscription(api, person[0])
    assert await shown(api, person) == (400, "ambiguous-product")
    assert await shown(api, person, product="mindroom") == again


async def test_row_level_security_keeps_subscriptions_apart(api: Api) -> None:
    (ada, _), bob = await api.sign_up(), await api.sign_up()
    await add_subscription(api, ada)
    assert await shown(api, bob) == (404, "no-subscription")
    async with customer_transaction(api.pool, bob[0]) as conn:
        assert await list_subscriptions(conn, ada) == []
