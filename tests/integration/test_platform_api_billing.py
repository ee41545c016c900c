import asyncio
import contextlib
import dataclasses
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.processes import Daemon
from scripts.demo.ports import free_port
from tests.integration.platform_api_support import (
    Api,
    deliver,
    event,
    make_settings,
    running_api,
    serving,
    until,
)

REPOSITORY = Path(__file__).resolve().parents[2]
CHECKOUT = "/v1/billing/checkout"
STARTER = {"product": "mindroom", "plan": "starter", "interval": "month"}
PROFESSIONAL = STARTER | {"plan": "professional"}
LOOKUP_KEYS = ("mindroom_starter_month", "mindroom_professional_month", "synthstack_unlimited_month")


@dataclasses.dataclass(frozen=True)
class Stripe:
    """The stand-in, and Stripe's own client to look into it."""

    url: str
    client: stripe.StripeClient

    async def session(self, checkout: dict[str, Any], api: Api) -> stripe.checkout.Session:
        [(session,)] = await api.rows("SELECT stripe_session_id FROM checkout WHERE id = %s", checkout["id"])
        return await self.client.v1.checkout.sessions.retrieve_async(session)

    async def price(self, lookup_key: str) -> str:
        """A new price that takes the lookup key over from the one before."""
        product = await self.client.v1.products.create_async({"name": lookup_key})
        made = await self.client.v1.prices.create_async(
            {
                "product": product.id,
                "currency": "usd",
                "unit_amount": 2900,
                "recurring": {"interval": "month"},
                "lookup_key": lookup_key,
                "transfer_lookup_key": True,
            }
        )
        return made.id

    async def account(self, api: Api, customer: str) -> str:
        """Make our customer one of Stripe's, as a first checkout does."""
        made = await self.client.v1.customers.create_async({"email": f"{customer}@example.com"})
        await api.rows("UPDATE customer SET stripe_customer_id = %s WHERE id = %s", made.id, customer)
        return made.id

    async def promotion_code(self, code: str, **restrictions: Any) -> stripe.PromotionCode:  # noqa: ANN401
        """A code for 25 % off, which no test before has used."""
        coupon = await self.client.v1.coupons.create_async({"percent_off": 25, "duration": "once"})
        promotion = {"type": "coupon", "coupon": coupon.id}
        params: Any = {"promotion": promotion, "code": f"{code}-{secrets.token_hex(4)}", **restrictions}
        return await self.client.v1.promotion_codes.create_async(params)

    async def pay(self, url: str) -> None:
        """Pay on the hosted page with a card that works."""
        async with httpx.AsyncClient() as browser:
            card = {"card_number": "4242424242424242", "expiry": "12/49", "cvc": "123", "name": "Ada"}
            answer = await browser.post(url, data=card)
        assert answer.status_code == 303, answer.text


@pytest.fixture(scope="module")
def stripe_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("stripe")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sandbox.stripe_api", "--port", port, "--state", folder / "state.sqlite"]
    daemon = Daemon("stripe", [str(word) for word in command], folder, working_directory=REPOSITORY)

    async def answers() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    async def ready() -> None:
        daemon.start()
        await daemon.wait_ready(answers, 30)

    asyncio.run(ready())
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run(daemon.stop())


@pytest.fixture
async def standin(stripe_url: str) -> AsyncIterator[Stripe]:
    transport = stripe.HTTPXClient(timeout=10)
    client = stripe.StripeClient(
        "sk_test_platform_api", base_addresses={"api": stripe_url}, http_client=transport
    )
    found = Stripe(stripe_url, client)
    for lookup_key in LOOKUP_KEYS:
        await found.price(lookup_key)
    yield found
    await transport.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


@pytest.fixture
async def api(database_url: str, standin: Stripe) -> AsyncIterator[Api]:
    async with running_api(make_settings(database_url, standin.url)) as running:
        yield running


async def test_a_checkout_sells_the_plan_to_whom_the_token_names(api: Api, standin: Stripe) -> None:
    customer, headers = await api.sign_up("Ada's Workshop")
    answer = await api.client.post(CHECKOUT, json=STARTER | {"slug": "ada"}, headers=headers)
    assert (answer.status_code, answer.json()["kind"]) == (201, "checkout"), answer.text
    session = await standin.session(answer.json(), api)
    assert session.url == answer.json()["url"]
    assert session.client_reference_id == customer
    assert session.status == "open"
    assert session.mode == "subscription"
    assert session.allow_promotion_codes
    expires = datetime.fromisoformat(answer.json()["expires_at"])
    assert session.expires_at == int(expires.timestamp())
    assert expires > datetime.now(UTC) + timedelta(minutes=30)
    [(stripe_customer,)] = await api.rows("SELECT stripe_customer_id FROM customer")
    assert session.customer == stripe_customer
    made = await standin.client.v1.customers.retrieve_async(stripe_customer)
    assert made.name == "Ada's Workshop"
    items = await standin.client.v1.checkout.sessions.line_items.list_async(session.id)
    assert [(item.price and item.price.lookup_key, item.quantity) for item in items.data] == [
        ("mindroom_starter_month", 1)
    ]


async def test_without_a_slug_one_is_made_from_the_customers_name(api: Api) -> None:
    _, headers = await api.sign_up("Ada's Wörkshop!")
    answer = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    assert answer.json()["slug"].startswith("ada-s-workshop-")


@pytest.mark.parametrize("slug", [{"slug": "ada"}, {}])
async def test_the_same_again_gives_the_same_checkout(
    api: Api, standin: Stripe, slug: dict[str, str]
) -> None:
    _, headers = await api.sign_up()
    answers = await asyncio.gather(
        *(api.client.post(CHECKOUT, json=STARTER | slug, headers=headers) for _ in range(4))
    )
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["url"] for answer in answers}) == 1
    [(customer,)] = await api.rows("SELECT stripe_customer_id FROM customer")
    sessions = await standin.client.v1.checkout.sessions.list_async({"customer": customer})
    assert len(sessions.data) == 1


async def test_something_else_ends_the_checkout_before_it(api: Api, standin: Stripe) -> None:
    _, headers = await api.sign_up()
    first = (await api.client.post(CHECKOUT, json=STARTER | {"slug": "ada"}, headers=headers)).json()
    answer = await api.client.post(CHECKOUT, json=PROFESSIONAL | {"slug": "ada"}, headers=headers)
    assert answer.status_code == 201, answer.text
    assert (await standin.session(first, api)).status == "expired"
    assert (await standin.session(answer.json(), api)).status == "open"
    assert await api.rows("SELECT id FROM checkout WHERE closed_at IS NULL") == [(answer.json()["id"],)]


async def test_of_simultaneous_checkouts_for_one_slug_exactly_one_wins(api: Api) -> None:
    customers = [await api.sign_up() for _ in range(6)]
    answers = await asyncio.gather(
        *(
            api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=headers)
            for _, headers in customers
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert {a.json()["type"] for a in answers if a.status_code == 409} == {"urn:berth:problem:slug-taken"}
    assert await api.rows("SELECT count(*) FROM checkout WHERE closed_at IS NULL") == [(1,)]


async def test_a_slug_is_free_again_when_stripe_says_the_session_expired(api: Api, standin: Stripe) -> None:
    (_, adas), (_, bobs) = await api.sign_up(), await api.sign_up()
    wanted = STARTER | {"slug": "acme"}
    held = (await api.client.post(CHECKOUT, json=wanted, headers=adas)).json()
    session = await standin.session(held, api)
    await deliver(api.client, event("checkout.session.expired", {"id": session.id, "object": session.object}))
    assert (await api.client.post(CHECKOUT, json=wanted, headers=bobs)).status_code == 201


async def test_a_lost_expiry_is_found_out_when_the_slug_is_wanted(api: Api, standin: Stripe) -> None:
    (_, adas), (_, bobs) = await api.sign_up(), await api.sign_up()
    wanted = STARTER | {"slug": "acme"}
    held = (await api.client.post(CHECKOUT, json=wanted, headers=adas)).json()
    await api.rows("UPDATE checkout SET expires_at = now()")
    # Our clock says it is over, Stripe says it can still be paid: Stripe is right.
    assert (await api.client.post(CHECKOUT, json=wanted, headers=bobs)).status_code == 409
    await standin.client.v1.checkout.sessions.expire_async((await standin.session(held, api)).id)
    assert (await api.client.post(CHECKOUT, json=wanted, headers=bobs)).status_code == 201


async def test_a_checkout_that_a_crash_left_without_session_is_taken_up_by_its_customer(api: Api) -> None:
    _, headers = await api.sign_up()
    wanted = STARTER | {"slug": "acme"}
    first = (await api.client.post(CHECKOUT, json=wanted, headers=headers)).json()
    await api.rows("UPDATE checkout SET stripe_session_id = NULL, url = NULL")
    again = await api.client.post(CHECKOUT, json=wanted, headers=headers)
    assert (again.status_code, again.json()) == (201, first)


async def test_a_checkout_that_a_crash_left_without_session_holds_its_slug_only_minutes(api: Api) -> None:
    (_, adas), (_, bobs) = await api.sign_up(), await api.sign_up()
    wanted = STARTER | {"slug": "acme"}
    await api.client.post(CHECKOUT, json=wanted, headers=adas)
    await api.rows("UPDATE checkout SET stripe_session_id = NULL, url = NULL")
    assert (await api.client.post(CHECKOUT, json=wanted, headers=bobs)).status_code == 409
    await api.rows("UPDATE checkout SET created_at = now() - interval '3 minutes'")
    assert (await api.client.post(CHECKOUT, json=wanted, headers=bobs)).status_code == 201


async def add_subscription(api: Api, customer: str, status: str, slug: str | None = None) -> None:
    await api.rows(
        "INSERT INTO subscription (id, customer_id, product, plan, interval, price_id, status)"
        " VALUES ('sub_1', %s, 'mindroom', 'starter', 'month', 'price_1', %s)",
        customer,
        status,
    )
    if slug is not None:
        await api.rows(
            "INSERT INTO instance (id, customer_id, subscription_id, product, plan, slug, spec)"
            " VALUES ('iaaa', %s, 'sub_1', 'mindroom', 'starter', %s, '{}')",
            customer,
            slug,
        )


async def test_who_subscribes_already_is_sent_to_the_portal(api: Api, standin: Stripe) -> None:
    customer, headers = await api.sign_up()
    await standin.account(api, customer)
    await add_subscription(api, customer, "active", "acme")
    for status in ("active", "trialing", "past_due", "unpaid", "paused", "of_the_future"):
        await api.rows("UPDATE subscription SET status = %s", status)
        answer = await api.client.post(CHECKOUT, json=STARTER | {"slug": "other"}, headers=headers)
        assert (answer.status_code, answer.json().get("kind")) == (201, "portal"), answer.text
        assert answer.json()["url"].startswith(f"{standin.url}/p/session/")
        assert (answer.json()["id"], answer.json()["slug"]) == ("sub_1", "acme")
    assert await api.rows("SELECT count(*) FROM checkout") == [(0,)]


async def test_what_is_over_or_never_began_can_be_bought_again(api: Api, standin: Stripe) -> None:
    customer, headers = await api.sign_up()
    await standin.account(api, customer)
    await add_subscription(api, customer, "canceled")
    for status in ("canceled", "incomplete", "incomplete_expired"):
        await api.rows("UPDATE subscription SET status = %s", status)
        answer = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
        assert (answer.status_code, answer.json().get("kind")) == (201, "checkout"), answer.text


async def kept_instance(api: Api, standin: Stripe, slug: str) -> dict[str, str]:
    """A customer whose subscription ended and whose instance is kept; returns their headers."""
    customer, headers = await api.sign_up()
    await standin.account(api, customer)
    await add_subscription(api, customer, "canceled", slug)
    await api.rows("UPDATE instance SET phase = 'suspended', delete_at = now() + interval '1 day'")
    return headers


async def test_a_kept_instance_comes_back_under_its_name_and_no_other(api: Api, standin: Stripe) -> None:
    headers = await kept_instance(api, standin, "acme")
    refused = await api.client.post(CHECKOUT, json=STARTER | {"slug": "other"}, headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:berth:problem:instance-kept")
    assert "'acme'" in refused.json()["detail"]
    assert await api.rows("SELECT count(*) FROM checkout") == [(0,)]
    unnamed = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    named = await api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=headers)
    assert (unnamed.status_code, unnamed.json()["slug"], unnamed.json()) == (201, "acme", named.json())


async def test_what_is_being_deleted_does_not_come_back(api: Api, standin: Stripe) -> None:
    headers = await kept_instance(api, standin, "acme")
    await api.rows("""UPDATE instance SET spec = '{"desired": "deleted"}'""")
    assert (await api.client.post(CHECKOUT, json=STARTER, headers=headers)).json()["slug"] != "acme"
    taken = await api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=headers)
    assert (taken.status_code, taken.json()["type"]) == (409, "urn:berth:problem:slug-taken")


async def test_a_plan_is_asked_for_by_any_of_its_names(api: Api) -> None:
    _, headers = await api.sign_up()
    wanted = {"product": "synthstack", "plan": "agency"}
    answer = await api.client.post(CHECKOUT, json=wanted, headers=headers)
    assert answer.status_code == 201, answer.text
    assert await api.rows("SELECT plan, interval FROM checkout") == [("unlimited", "month")]
    again = await api.client.post(CHECKOUT, json=wanted | {"plan": "unlimited"}, headers=headers)
    assert again.json() == answer.json()


async def test_a_price_replaced_while_it_is_remembered_stops_no_checkout(api: Api, standin: Stripe) -> None:
    (_, adas), (_, bobs) = await api.sign_up(), await api.sign_up()
    first = await api.client.post(CHECKOUT, json=STARTER, headers=adas)
    items = await standin.client.v1.checkout.sessions.line_items.list_async(
        (await standin.session(first.json(), api)).id
    )
    assert items.data[0].price is not None
    new = await standin.price("mindroom_starter_month")
    await standin.client.v1.prices.update_async(items.data[0].price.id, {"active": False})
    second = await api.client.post(CHECKOUT, json=STARTER, headers=bobs)
    assert second.status_code == 201, second.text
    items = await standin.client.v1.checkout.sessions.line_items.list_async(
        (await standin.session(second.json(), api)).id
    )
    assert [item.price and item.price.id for item in items.data] == [new]


async def test_a_promotion_code_is_part_of_a_checkouts_terms(api: Api, standin: Stripe) -> None:
    _, headers = await api.sign_up()
    code = await standin.promotion_code("LAUNCH")
    wanted = STARTER | {"slug": "acme"}
    first = await api.client.post(CHECKOUT, json=wanted | {"promo_code": code.code}, headers=headers)
    assert first.status_code == 201, first.text
    session = await standin.session(first.json(), api)
    assert [discount.promotion_code for discount in session.discounts or []] == [code.id]
    assert not session.allow_promotion_codes
    same = await api.client.post(CHECKOUT, json=wanted | {"promo_code": code.code.lower()}, headers=headers)
    assert same.json() == first.json()
    other = await api.client.post(CHECKOUT, json=wanted, headers=headers)
    assert (other.status_code, other.json()["id"] == first.json()["id"]) == (201, False)
    assert (await standin.session(first.json(), api)).status == "expired"


async def test_a_promotion_code_that_cannot_be_used_is_refused_and_ends_nothing(
    api: Api, standin: Stripe
) -> None:
    _, headers = await api.sign_up()
    before = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    other = await standin.client.v1.customers.create_async({"email": "other@example.com"})
    refused = {
        "NOBODY-KNOWS-IT": "no such",
        "50 % off!": "no such",
        (await standin.promotion_code("OVER", active=False)).code: "no longer valid",
        (await standin.promotion_code("HERS", customer=other.id)).code: "another customer",
    }
    for code, said in refused.items():
        answer = await api.client.post(CHECKOUT, json=STARTER | {"promo_code": code}, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:berth:problem:promo-code-refused")
        assert said in answer.json()["detail"]
    assert (await api.client.post(CHECKOUT, json=STARTER, headers=headers)).json() == before.json()


async def test_a_promotion_code_that_stripe_refuses_for_this_purchase_says_why(
    api: Api, standin: Stripe
) -> None:
    _, headers = await api.sign_up()
    dear = {"minimum_amount": 10_000, "minimum_amount_currency": "usd"}
    code = await standin.promotion_code("DEAR", restrictions=dear)
    wanted = STARTER | {"slug": "acme", "promo_code": code.code}
    answer = await api.client.post(CHECKOUT, json=wanted, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:berth:problem:promo-code-refused")
    assert "$100" in answer.json()["detail"]
    assert await api.rows("SELECT count(*) FROM checkout WHERE closed_at IS NULL") == [(0,)]


async def test_a_slug_stays_with_its_instance_until_that_is_deleted(api: Api) -> None:
    (ada, _), (_, bobs) = await api.sign_up(), await api.sign_up()
    await add_subscription(api, ada, "active", "acme")
    wanted = STARTER | {"slug": "acme"}
    answer = await api.client.post(CHECKOUT, json=wanted, headers=bobs)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:berth:problem:slug-taken")
    assert await api.rows("SELECT count(*) FROM checkout") == [(0,)]
    await api.rows("UPDATE instance SET phase = 'deleted'")
    assert (await api.client.post(CHECKOUT, json=wanted, headers=bobs)).status_code == 201


REFUSED: list[tuple[dict[str, str], int, str]] = [
    ({"product": "mindrom"}, 400, "mindroom"),
    ({"plan": "gold"}, 400, "professional"),
    ({"interval": "year"}, 400, "month"),
    ({"plan": "enterprise"}, 400, "agreement"),
    ({"product": "paycraft", "plan": "enterprise"}, 400, "agreement"),
    ({"promo_code": ""}, 422, "body/promo_code"),
    ({"interval": "week"}, 422, "body/interval"),
    ({"slug": "www"}, 409, "reserved"),
    ({"slug": "api"}, 409, "reserved"),
    ({"slug": "Acme"}, 422, "body/slug"),
    ({"slug": "a"}, 422, "A name is 3 to 40 small letters"),
    ({"slug": "-acme"}, 422, "body/slug"),
    ({"slug": "acme-"}, 422, "body/slug"),
    ({"slug": "xn--acme"}, 422, "body/slug"),
    ({"slug": "1acme"}, 422, "body/slug"),
    ({"slug": "acme\n"}, 422, "body/slug"),
    ({"slug": "a" * 41}, 422, "body/slug"),
    ({"slug": "a.b"}, 422, "body/slug"),
    ({"customer": "cus_other"}, 422, "body/customer"),
    ({"customer_id": "other"}, 422, "body/customer_id"),
    ({"price": "price_cheap"}, 422, "body/price"),
    ({"tier": "enterprise"}, 422, "body/tier"),
    ({"trial_days": "99"}, 422, "body/trial_days"),
]


async def test_what_cannot_be_bought_is_refused_with_the_reason(api: Api) -> None:
    _, headers = await api.sign_up()
    for change, status, said in REFUSED:
        answer = await api.client.post(CHECKOUT, json=STARTER | change, headers=headers)
        assert (answer.status_code, said in answer.text) == (status, True), (change, answer.text)
    assert await api.rows("SELECT count(*) FROM checkout") == [(0,)]


async def test_a_checkout_needs_a_token(api: Api) -> None:
    assert (await api.client.post(CHECKOUT, json=STARTER)).status_code == 401


class Refusing:
    """A Stripe that answers everything with one error; counts how often it was asked."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self._status = status
        self._headers = headers
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.asked += 1
        await Request(scope, receive).body()
        error = {"error": {"type": "api_error", "message": "No."}}
        await JSONResponse(error, self._status, self._headers)(scope, receive, send)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What Stripe says, what we answer then, and how often we asked."""

    status: int
    headers: dict[str, str]
    answered: int
    retry_after: str | None
    asked: int


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(429, {"Retry-After": "7"}, 503, "7", 1),
        Refusal(500, {}, 503, "5", 3),
        Refusal(401, {}, 502, None, 1),
    ],
)
async def test_when_stripe_refuses_nothing_stays_behind(database_url: str, refusal: Refusal) -> None:
    refusing = Refusing(refusal.status, refusal.headers)
    async with serving(refusing) as url, running_api(make_settings(database_url, url)) as api:
        (_, adas), (_, bobs) = await api.sign_up(), await api.sign_up()
        answer = await api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=adas)
        assert (answer.status_code, answer.headers.get("retry-after")) == (
            refusal.answered,
            refusal.retry_after,
        )
        assert answer.headers["content-type"] == "application/problem+json"
        assert refusing.asked == refusal.asked
        assert await api.rows("SELECT count(*) FROM checkout WHERE closed_at IS NULL") == [(0,)]
        # The name is not held: another customer gets as far as Stripe too.
        again = await api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=bobs)
        assert again.status_code == refusal.answered


async def test_when_stripe_cannot_be_reached_nothing_stays_behind(database_url: str) -> None:
    async with running_api(make_settings(database_url, "http://127.0.0.1:9")) as api:
        _, headers = await api.sign_up()
        answer = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:berth:problem:billing-unavailable"
        assert await api.rows("SELECT count(*) FROM checkout WHERE closed_at IS NULL") == [(0,)]


class Bent:
    """In front of the stand-in: passes requests on, but answers the first checkout session itself."""

    def __init__(self, target: str, status: int, error: dict[str, str], *, after: bool) -> None:
        self._target = target
        self._bend: JSONResponse | None = JSONResponse({"error": error}, status)
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; what is answered here is passed on `after` all, or never."""
        if scope["type"] != "http":
            return
        bend = None
        if scope["path"] == "/v1/checkout/sessions":
            bend, self._bend = self._bend, None
        answer: ASGIApp | None = bend
        if bend is None or self._after:
            passed = await self._pass_on(Request(scope, receive))
            answer = bend or passed
        assert answer is not None
        await answer(scope, receive, send)

    async def _pass_on(self, request: Request) -> Response:
        async with httpx.AsyncClient(base_url=self._target) as client:
            answer = await client.request(
                request.method,
                f"{request.url.path}?{request.url.query}",
                content=await request.body(),
                headers={key: value for key, value in request.headers.items() if key != "host"},
            )
        return Response(answer.content, answer.status_code, media_type="application/json")


async def test_a_lost_answer_does_not_make_a_second_session(database_url: str, standin: Stripe) -> None:
    losing = Bent(standin.url, 502, {"type": "api_error", "message": "Lost."}, after=True)
    async with serving(losing) as url, running_api(make_settings(database_url, url)) as api:
        _, headers = await api.sign_up()
        answer = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
        assert answer.status_code == 201, answer.text
        [(customer,)] = await api.rows("SELECT stripe_customer_id FROM customer")
        sessions = await standin.client.v1.checkout.sessions.list_async({"customer": customer})
        assert [session.url for session in sessions.data] == [answer.json()["url"]]


@pytest.mark.parametrize(
    ("param", "expected"),
    [({}, 400), ({"param": "discounts[0][promotion_code]"}, 400), ({"param": "success_url"}, 502)],
)
async def test_only_what_stripe_says_of_the_promotion_code_is_passed_on(
    database_url: str, standin: Stripe, param: dict[str, str], expected: int
) -> None:
    said = "This code is for first orders."
    error = {"type": "invalid_request_error", "message": said, **param}
    refusing = Bent(standin.url, 400, error, after=False)
    async with serving(refusing) as url, running_api(make_settings(database_url, url)) as api:
        _, headers = await api.sign_up()
        code = (await standin.promotion_code("FIRST")).code
        answer = await api.client.post(CHECKOUT, json=STARTER | {"promo_code": code}, headers=headers)
        assert answer.status_code == expected
        assert (said in answer.json()["detail"]) == (expected == 400)
        assert await api.rows("SELECT count(*) FROM checkout WHERE closed_at IS NULL") == [(0,)]


@pytest.fixture
async def paid(
    database_url: str, standin: Stripe
) -> AsyncIterator[tuple[Api, dict[str, Any], dict[str, str]]]:
    """Lend an API that Stripe sends its events to, a checkout that was paid, and its customer's headers."""
    port = free_port()
    endpoint = await standin.client.v1.webhook_endpoints.create_async(
        {"url": f"http://127.0.0.1:{port}/webhooks/stripe", "enabled_events": ["*"]}
    )
    settings = make_settings(database_url, standin.url, webhook_secret=endpoint.secret or "")
    async with running_api(settings) as api, serving(api.app, port):
        _, headers = await api.sign_up()
        checkout = (await api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=headers)).json()
        await standin.pay(checkout["url"])
        yield api, checkout, headers
    await standin.client.v1.webhook_endpoints.delete_async(endpoint.id)


async def test_a_payment_at_stripe_puts_its_subscription_on_the_queue(
    paid: tuple[Api, dict[str, Any], dict[str, str]], standin: Stripe
) -> None:
    api, checkout, _ = paid
    session = await standin.session(checkout, api)
    assert isinstance(session.subscription, str)

    async def queued() -> bool:
        return await api.rows("SELECT key FROM work_item") == [(session.subscription,)]

    await until(queued)
    subscription = await standin.client.v1.subscriptions.retrieve_async(session.subscription)
    assert subscription.metadata["berth_checkout"] == checkout["id"]
    assert subscription.status == "trialing"
    assert subscription.trial_end is not None
    assert subscription.trial_start is not None
    assert subscription.trial_end - subscription.trial_start == 3 * 86400


async def test_what_is_paid_is_not_sold_again_though_its_subscription_is_not_known_yet(
    paid: tuple[Api, dict[str, Any], dict[str, str]], standin: Stripe
) -> None:
    api, checkout, headers = paid
    assert await api.rows("SELECT count(*) FROM subscription") == [(0,)]
    answer = await api.client.post(CHECKOUT, json=PROFESSIONAL | {"slug": "acme"}, headers=headers)
    session = await standin.session(checkout, api)
    assert (answer.status_code, answer.json().get("kind")) == (201, "portal"), answer.text
    assert answer.json()["id"] == session.subscription
    # Nor when all we had noted of it is gone: Stripe knows.
    await api.rows("UPDATE checkout SET closed_at = now()")
    answer = await api.client.post(CHECKOUT, json=PROFESSIONAL, headers=headers)
    assert (answer.status_code, answer.json().get("kind")) == (201, "portal"), answer.text


async def test_who_comes_back_has_no_second_trial(
    paid: tuple[Api, dict[str, Any], dict[str, str]], standin: Stripe
) -> None:
    api, checkout, headers = paid
    first = (await standin.session(checkout, api)).subscription
    await standin.client.v1.subscriptions.cancel_async(str(first))
    again = await api.client.post(CHECKOUT, json=STARTER, headers=headers)
    assert (again.status_code, again.json()["kind"]) == (201, "checkout"), again.text
    await standin.pay(again.json()["url"])
    second = (await standin.session(again.json(), api)).subscription
    bought = await standin.client.v1.subscriptions.retrieve_async(str(second))
    assert (bought.status, bought.trial_end) == ("active", None)


async def test_what_is_paid_keeps_its_slug_however_long_the_instance_takes(
    paid: tuple[Api, dict[str, Any], dict[str, str]],
) -> None:
    api, _, _ = paid
    _, bobs = await api.sign_up("Bob")
    await api.rows(
        "UPDATE checkout SET expires_at = now() - interval '1 day', created_at = now() - interval '2 d'"
    )
    answer = await api.client.post(CHECKOUT, json=STARTER | {"slug": "acme"}, headers=bobs)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:berth:problem:slug-taken")
