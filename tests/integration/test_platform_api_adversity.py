"""Buying while Stripe, another request or an operator does the least convenient thing at that moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import stripe
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sandbox.stripe_api.app import serve
from tests.integration.platform_api_support import Api, make_settings, running_api, serving, until
from tests.integration.queue_tools import Pool

CHECKOUT = "/v1/billing/checkout"
STARTER = {"product": "mindroom", "plan": "starter", "interval": "month"}
PROFESSIONAL = STARTER | {"plan": "professional"}
SESSIONS = "/v1/checkout/sessions"


async def pass_on(_: Request) -> Response | None:
    return None


@dataclass
class Stripe:
    """The stand-in behind `meddle`, which may answer a request in its place or hold it up."""

    url: str
    official: stripe.StripeClient
    meddle: Callable[[Request], Awaitable[Response | None]] = field(default=pass_on)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            answer = await self.meddle(request) or await self.answer(request)
            await answer(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """What the stand-in itself says."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            answer = await client.request(
                request.method,
                f"{request.url.path}?{request.url.query}",
                content=await request.body(),
                headers={key: value for key, value in request.headers.items() if key != "host"},
            )
        return Response(answer.content, answer.status_code, media_type="application/json")

    async def sessions(self) -> list[str]:
        found = await self.official.v1.checkout.sessions.list_async()
        return sorted(str(session.status) for session in found.data)


def refusal(status: int) -> Response:
    error = {"error": {"type": "api_error", "message": "No."}}
    return JSONResponse(error, status, {"Stripe-Should-Retry": "false"})


@asynccontextmanager
async def standing_in() -> AsyncIterator[Stripe]:
    async with serve() as server:
        http = stripe.HTTPXClient(timeout=10)
        official = stripe.StripeClient(
            "sk_test_platform_api", base_addresses={"api": server.url}, http_client=http
        )
        try:
            for plan in ("starter", "professional"):
                await official.v1.prices.create_async(
                    {
                        "product_data": {"name": plan},
                        "currency": "usd",
                        "unit_amount": 2900,
                        "recurring": {"interval": "month"},
                        "lookup_key": f"mindroom_{plan}_month",
                    }
                )
            yield Stripe(server.url, official)
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


@pytest.fixture
async def standin() -> AsyncIterator[Stripe]:
    async with standing_in() as found:
        yield found


@pytest.fixture
async def api(database_url: str, standin: Stripe) -> AsyncIterator[Api]:
    async with serving(standin) as url, running_api(make_settings(database_url, url)) as running:
        yield running


async def test_a_page_that_was_given_out_is_not_forgotten_because_a_double_of_its_request_failed(
    api: Api, standin: Stripe
) -> None:
    _, headers = await api.sign_up()
    both_asked, given_out = asyncio.Event(), asyncio.Event()
    asked = 0

    async def refuse_the_second(request: Request) -> Response | None:
        nonlocal asked
        if (request.method, request.url.path) != ("POST", SESSIONS):
            return None
        asked += 1
        if asked == 1:
            await both_asked.wait()
            return None
        both_asked.set()
        await given_out.wait()
        return refusal(429)

    standin.meddle = refuse_the_second
    first, second = (
        asyncio.create_task(api.client.post(CHECKOUT, json=STARTER, headers=headers)) for _ in range(2)
    )
    done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    given_out.set()
    assert sorted([(await first).status_code, (await second).status_code]) == [201, 503]
    standin.meddle = pass_on
    page = done.pop().result().json()["url"]
    again = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    assert (again.status_code, again.json()["url"]) == (201, page)
    other = await api.client.post(CHECKOUT, json=PROFESSIONAL, headers=headers)
    assert other.status_code == 201
    assert await standin.sessions() == ["expired", "open"], "one page at a time can be paid"


async def test_a_page_that_was_given_out_is_ended_before_another_is_made(
    api: Api, standin: Stripe, pool: Pool
) -> None:
    _, headers = await api.sign_up()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def hold_up(request: Request) -> Response | None:
        if (request.method, request.url.path) == ("POST", SESSIONS):
            asked.set()
            await go_on.wait()
        return None

    async def wait_for_the_row(count: int) -> None:
        async def waiting() -> bool:
            waiters = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            return await api.rows(f"{waiters} AND wait_event_type = 'Lock'") == [(count,)]

        await until(waiting)

    standin.meddle = hold_up
    first = asyncio.create_task(api.client.post(CHECKOUT, json=STARTER, headers=headers))
    await asked.wait()
    # The second request reads the checkout while it has no session, and acts upon that when it has one.
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SELECT FROM checkout FOR UPDATE")
        go_on.set()
        await wait_for_the_row(1)
        second = asyncio.create_task(api.client.post(CHECKOUT, json=PROFESSIONAL, headers=headers))
        await wait_for_the_row(2)
    assert [(await first).status_code, (await second).status_code] == [201, 201]
    assert await standin.sessions() == ["expired", "open"], "one page at a time can be paid"


async def test_an_error_that_stripe_repeats_for_a_day_under_its_idempotency_key_stops_nobody_for_a_day(
    api: Api, standin: Stripe
) -> None:
    """https://docs.stripe.com/api/idempotent_requests: the first answer is repeated, also a 500."""
    _, headers = await api.sign_up()
    failed: list[str] = []

    async def fail_once(request: Request) -> Response | None:
        if request.url.path != "/v1/customers":
            return None
        key = request.headers["idempotency-key"]
        if not failed:
            failed.append(key)
        return refusal(500) if key in failed else None

    standin.meddle = fail_once
    assert (await api.client.post(CHECKOUT, json=STARTER, headers=headers)).status_code == 503
    assert (await api.client.post(CHECKOUT, json=STARTER, headers=headers)).status_code == 201


async def test_who_is_linked_to_stripe_while_buying_buys_as_that_customer(api: Api, standin: Stripe) -> None:
    _, headers = await api.sign_up()
    linked = await standin.official.v1.customers.create_async({"email": "by-hand@example.com"})

    async def link_meanwhile(request: Request) -> Response | None:
        if request.url.path == "/v1/customers":
            await api.rows("UPDATE customer SET stripe_customer_id = %s", linked.id)
        return None

    standin.meddle = link_meanwhile
    assert (await api.client.post(CHECKOUT, json=STARTER, headers=headers)).status_code == 201
    (session,) = (await standin.official.v1.checkout.sessions.list_async()).data
    assert session.customer == linked.id, "else it would be paid by somebody whom nobody here is"


async def subscribed(api: Api, standin: Stripe, owner: str | None = None) -> tuple[str, dict[str, str]]:
    """A subscription that was paid for, and its customer's headers; here it is `owner`'s, else theirs."""
    customer, headers = await api.sign_up()
    await api.rows("UPDATE customer SET email_verified_at = now()")
    bought = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    async with httpx.AsyncClient() as browser:
        await browser.post(bought.json()["url"], data={"card_number": "4242424242424242", "expiry": "12/49"})
    (subscription,) = (await standin.official.v1.subscriptions.list_async()).data
    await api.rows(
        "INSERT INTO subscription (id, customer_id, product, plan, status)"
        " VALUES (%s, %s, 'mindroom', 'starter', 'active')",
        subscription.id,
        owner or customer,
    )
    await api.rows("UPDATE checkout SET closed_at = now()")
    return subscription.id, headers


@pytest.mark.parametrize(("plan", "kind"), [("professional", "checkout"), ("free", "instance")])
async def test_what_stripe_says_has_ended_is_sold_again_though_we_did_not_hear_of_it(
    api: Api, standin: Stripe, plan: str, kind: str
) -> None:
    subscription, headers = await subscribed(api, standin)
    await standin.official.v1.subscriptions.cancel_async(subscription)
    answer = await api.client.post(CHECKOUT, json=STARTER | {"plan": plan}, headers=headers)
    assert (answer.status_code, answer.json().get("kind")) == (201, kind), answer.text


async def test_unknown_is_not_taken_when_stripe_does_not_end_a_page(api: Api, standin: Stripe) -> None:
    _, headers = await api.sign_up()
    await api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=headers)

    async def slow_down(request: Request) -> Response | None:
        return refusal(429) if request.url.path.endswith("/expire") else None

    standin.meddle = slow_down
    answer = await api.client.post(CHECKOUT, json=PROFESSIONAL | {"slug": "acme"}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:berth:problem:billing-unavailable")


async def test_whoever_is_gone_at_stripe_has_nothing_there_however_stripe_says_so(
    api: Api, standin: Stripe
) -> None:
    """It is not documented whether the subscriptions of a customer who was deleted can be listed."""
    _, headers = await api.sign_up()
    await api.rows("UPDATE customer SET stripe_customer_id = 'cus_gone'")

    async def know_nobody(request: Request) -> Response | None:
        if request.url.path != "/v1/subscriptions":
            return None
        error = {"type": "invalid_request_error", "code": "resource_missing", "param": "customer"}
        return JSONResponse({"error": error | {"message": "No such customer: 'cus_gone'"}}, 404)

    standin.meddle = know_nobody
    answer = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    assert (answer.status_code, answer.json().get("kind")) == (201, "checkout"), answer.text


async def test_invariant_11_nobody_is_told_the_name_of_anothers_instance(api: Api, standin: Stripe) -> None:
    other, _ = await api.sign_up("Bob")
    subscription, headers = await subscribed(api, standin, owner=other)
    await api.rows(
        "INSERT INTO instance (id, customer_id, subscription_id, product, plan, slug, spec)"
        " VALUES ('ibob', %s, %s, 'mindroom', 'starter', 'bobs', '{}')",
        other,
        subscription,
    )
    answer = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    assert (answer.status_code, answer.json()["kind"], answer.json()["slug"]) == (201, "portal", None)
