"""The Stripe stand-in, driven by the official client against a running server."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import httpx
import pytest
import stripe
from stripe.params import CustomerListParamsCreated

from sandbox.stripe_api.app import Server, serve
from tests.integration.stripe_tools import (
    GOOD_CARD,
    KEY,
    bought,
    client,
    control,
    new_price,
    open_session,
    pay,
    receiver,
)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[stripe.StripeClient]:
    async with client(server.url) as lent:
        yield lent


async def event_types(api: stripe.StripeClient) -> list[str]:
    """All events so far, oldest first."""
    listed = await api.v1.events.list_async({"limit": 100})
    return [event.type for event in reversed(listed.data)]


def plain(found: stripe.StripeObject | dict[str, Any] | None) -> dict[str, Any]:
    assert isinstance(found, stripe.StripeObject)
    return found.to_dict()


async def refused(call: Awaitable[object]) -> stripe.InvalidRequestError:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await call
    return caught.value


async def test_a_trial_is_bought_on_the_hosted_page(api: stripe.StripeClient) -> None:
    customer = await api.v1.customers.create_async({"email": "ada@example.com", "name": "Ada"})
    price = await new_price(api)
    session = await open_session(
        api,
        price.id,
        customer.id,
        client_reference_id="customer-7",
        subscription_data={"trial_period_days": 3, "metadata": {"berth_checkout": "c1"}},
        metadata={"berth_checkout": "c1"},
    )
    assert (session.status, session.payment_status, session.subscription) == ("open", "unpaid", None)

    answer = await pay(session)

    assert answer.status_code == 303
    assert answer.headers["location"] == f"https://app.test/done?session={session.id}"
    done = await api.v1.checkout.sessions.retrieve_async(session.id)
    assert (done.status, done.payment_status, done.url) == ("complete", "no_payment_required", None)
    assert (done.client_reference_id, plain(done.metadata)) == ("customer-7", {"berth_checkout": "c1"})
    subscription = await api.v1.subscriptions.retrieve_async(str(done.subscription))
    assert subscription.status == "trialing"
    assert plain(subscription.metadata) == {"berth_checkout": "c1"}
    item = subscription["items"].data[0]
    assert (item.price.id, item.price.lookup_key, item.quantity) == (price.id, price.lookup_key, 1)
    assert item.current_period_end == subscription.trial_end
    assert subscription.trial_end is not None
    assert subscription.trial_end - item.current_period_start == 3 * 86400
    assert "current_period_end" not in subscription
    card = await api.v1.payment_methods.retrieve_async(str(subscription.default_payment_method))
    assert card.card is not None
    assert card.card.last4 == "4242"


async def test_without_a_trial_the_first_month_is_paid(api: stripe.StripeClient) -> None:
    subscription = await bought(api)

    assert (subscription.status, subscription.trial_end) == ("active", None)
    invoice = await api.v1.invoices.retrieve_async(str(subscription.latest_invoice))
    assert (invoice.status, invoice.amount_paid, invoice.total) == ("paid", 2900, 2900)
    sessions = await api.v1.checkout.sessions.list_async({"subscription": subscription.id})
    assert [one.payment_status for one in sessions.data] == ["paid"]


async def test_paying_tells_in_stripes_order(api: stripe.StripeClient) -> None:
    await bought(api)

    assert await event_types(api) == [
        "product.created",
        "price.created",
        "customer.created",
        "payment_method.attached",
        "customer.subscription.created",
        "invoice.created",
        "invoice.finalized",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice_payment.paid",
        "invoice.paid",
        "invoice.payment_succeeded",
        "customer.subscription.updated",
        "checkout.session.completed",
    ]


async def test_an_event_says_which_request_caused_it(api: stripe.StripeClient) -> None:
    made = await api.v1.customers.create_async({"email": "a@b.test"}, {"idempotency_key": "sign-up-1"})

    event = (await api.v1.events.list_async({"type": "customer.created"})).data[0]

    assert event.id.startswith("evt_")
    assert (event.object, event.api_version, event.livemode) == ("event", "2026-10-28.endive", False)
    assert event.request is not None
    assert event.request.idempotency_key == "sign-up-1"
    assert made.last_response is not None
    assert event.request.id == made.last_response.request_id
    assert event.data.object["id"] == made.id
    assert (await api.v1.events.retrieve_async(event.id)).data.object["email"] == "a@b.test"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        ("4000 0000 0000 0002", "declined"),
        ("4000000000009995", "insufficient funds"),
        ("4242 4242 4242 4241", "number is invalid"),
        ("5105 1051 0510 5100", "only Stripe&#39;s test cards"),
        ("<script>", "number is invalid"),
    ],
)
async def test_a_card_that_does_not_pay_leaves_the_page_open(
    api: stripe.StripeClient, number: str, sentence: str
) -> None:
    price = await new_price(api)
    customer = await api.v1.customers.create_async({"email": "a@b.test"})
    session = await open_session(api, price.id, customer.id)

    answer = await pay(session, number)

    assert answer.status_code == 402
    assert sentence in answer.text
    assert "<script>" not in answer.text
    assert (await api.v1.checkout.sessions.retrieve_async(session.id)).status == "open"
    assert (await api.v1.subscriptions.list_async({"status": "all"})).data == []
    assert (await pay(session)).status_code == 303


async def test_a_second_click_buys_nothing_more(api: stripe.StripeClient) -> None:
    price = await new_price(api)
    customer = await api.v1.customers.create_async({"email": "a@b.test"})
    session = await open_session(api, price.id, customer.id)

    first, second = await asyncio.gather(pay(session), pay(session))

    assert (first.status_code, second.status_code) == (303, 303)
    assert len((await api.v1.subscriptions.list_async({"customer": customer.id})).data) == 1


async def test_the_page_shows_what_is_bought_and_escapes_it(api: stripe.StripeClient) -> None:
    product = await api.v1.products.create_async({"name": "Mind <b>Room</b>"})
    price = await api.v1.prices.create_async(
        {"product": product.id, "currency": "usd", "unit_amount": 35991, "recurring": {"interval": "year"}}
    )
    session = await open_session(api, price.id, subscription_data={"trial_period_days": 3})
    assert session.url is not None

    async with httpx.AsyncClient(trust_env=False) as browser:
        page = await browser.get(session.url)

    assert page.status_code == 200
    assert "Mind &lt;b&gt;Room&lt;/b&gt;" in page.text
    assert "$359.91 per year" in page.text
    assert "3 days free" in page.text
    assert "Due today</th><td>$0.00" in page.text
    for field in ("email", "card_number", "expiry", "name"):
        assert f'<label for="{field}">' in page.text
    assert "script-src" not in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_a_buyer_unknown_to_us_becomes_a_customer(api: stripe.StripeClient) -> None:
    price = await new_price(api)
    session = await open_session(api, price.id)

    assert (await pay(session)).status_code == 402
    assert (await pay(session, email="new@b.test", name="New")).status_code == 303

    done = await api.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["customer"]})
    assert isinstance(done.customer, stripe.Customer)
    assert (done.customer.email, done.customer.name) == ("new@b.test", "New")
    assert "customer.created" in await event_types(api)


async def test_an_expired_session_cannot_be_paid(api: stripe.StripeClient) -> None:
    session = await open_session(api, (await new_price(api)).id)

    ended = await api.v1.checkout.sessions.expire_async(session.id)

    assert (ended.status, ended.url) == ("expired", None)
    assert (await pay(session)).status_code == 410
    assert (await event_types(api))[-1] == "checkout.session.expired"
    again = await refused(api.v1.checkout.sessions.expire_async(session.id))
    assert "expired" in str(again)


async def test_a_sessions_time_runs_out_by_itself() -> None:
    now = time.time()
    async with serve(clock=lambda: now) as server, client(server.url) as api:
        price = await new_price(api)
        session = await open_session(api, price.id, expires_at=int(now) + 1800)
        async with receiver() as hook:
            kinds: Any = ["checkout.session.expired"]
            await api.v1.webhook_endpoints.create_async({"url": hook.url, "enabled_events": kinds})
            now += 1801
            await hook.wait_for(1)
        assert (await api.v1.checkout.sessions.retrieve_async(session.id)).status == "expired"


@pytest.mark.parametrize("seconds", [1700, 86500])
async def test_a_session_lives_between_half_an_hour_and_a_day(api: stripe.StripeClient, seconds: int) -> None:
    price = await new_price(api)

    error = await refused(open_session(api, price.id, expires_at=int(time.time()) + seconds))

    assert error.param == "expires_at"


async def test_a_lookup_key_finds_its_price_and_moves_on_request(api: stripe.StripeClient) -> None:
    old = await new_price(api, "pro_month", 2900)
    subscription = await bought(api, old)
    params: Any = {
        "product": old.product,
        "currency": "usd",
        "unit_amount": 3900,
        "recurring": {"interval": "month"},
        "lookup_key": "pro_month",
    }
    taken = await refused(api.v1.prices.create_async(params))
    assert taken.param == "lookup_key"

    new = await api.v1.prices.create_async(params | {"transfer_lookup_key": True})
    archived = await api.v1.prices.update_async(old.id, {"active": False})

    found = await api.v1.prices.list_async({"lookup_keys": ["pro_month"], "active": True})
    assert [price.id for price in found.data] == [new.id]
    assert (archived.active, archived.lookup_key, archived.unit_amount) == (False, None, 2900)
    held = await api.v1.subscriptions.retrieve_async(subscription.id)
    assert held["items"].data[0].price.lookup_key is None
    moved = (await api.v1.events.list_async({"type": "price.updated"})).data[-1]
    assert plain(moved.data.previous_attributes) == {"lookup_key": "pro_month"}


async def test_a_plan_is_switched_and_the_period_follows_the_interval(api: stripe.StripeClient) -> None:
    starter = await new_price(api)
    year = await api.v1.prices.create_async(
        {
            "product": str(starter.product),
            "currency": "usd",
            "unit_amount": 9900,
            "recurring": {"interval": "year"},
        }
    )
    subscription = await bought(api, starter)
    item = subscription["items"].data[0]

    changed = await api.v1.subscriptions.update_async(
        subscription.id,
        {"items": [{"id": item.id, "price": year.id, "quantity": 3}], "metadata": {"plan": "pro"}},
    )

    new = changed["items"].data[0]
    assert (new.id, new.price.id, new.quantity) == (item.id, year.id, 3)
    assert 365 * 86400 <= new.current_period_end - new.current_period_start <= 366 * 86400
    assert plain(changed.metadata) == {"plan": "pro"}
    event = (await api.v1.events.list_async({"type": "customer.subscription.updated"})).data[0]
    previous = plain(event.data.previous_attributes)
    assert set(previous) - {"billing_cycle_anchor"} == {"items", "latest_invoice", "metadata"}
    assert previous["metadata"] == {"plan": None}
    assert previous["items"]["data"][0]["price"]["id"] == starter.id


async def test_cancelling_at_the_periods_end_can_be_taken_back(api: stripe.StripeClient) -> None:
    subscription = await bought(api)
    end = subscription["items"].data[0].current_period_end

    leaving = await api.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    assert (leaving.status, leaving.cancel_at) == ("active", end)
    staying = await api.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": False})

    assert (staying.cancel_at_period_end, staying.cancel_at, staying.canceled_at) == (False, None, None)


async def test_a_cancelled_subscription_is_over_but_not_forgotten(api: stripe.StripeClient) -> None:
    subscription = await bought(api)

    ended = await api.v1.subscriptions.cancel_async(subscription.id)

    assert (ended.status, ended.ended_at is not None) == ("canceled", True)
    assert (await api.v1.subscriptions.retrieve_async(subscription.id)).status == "canceled"
    assert (await event_types(api))[-1] == "customer.subscription.deleted"
    assert (await refused(api.v1.subscriptions.cancel_async(subscription.id))).http_status == 404
    await refused(api.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True}))
    assert (await api.v1.subscriptions.list_async()).data == []
    for status in ("all", "canceled", "ended"):
        listed = await api.v1.subscriptions.list_async({"status": status})
        assert [one.id for one in listed.data] == [subscription.id]


async def test_subscriptions_are_found_by_customer_and_price(api: stripe.StripeClient) -> None:
    starter, pro = await new_price(api, "starter"), await new_price(api, "pro")
    first, second = await bought(api, starter), await bought(api, pro)

    of_customer = await api.v1.subscriptions.list_async({"customer": str(first.customer)})
    of_price = await api.v1.subscriptions.list_async({"price": pro.id})

    assert [one.id for one in of_customer.data] == [first.id]
    assert [one.id for one in of_price.data] == [second.id]


@pytest.mark.parametrize(
    "status",
    ["active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid"],
)
async def test_any_status_can_be_forced(server: Server, api: stripe.StripeClient, status: str) -> None:
    subscription = await bought(api)

    await control(server.url, "POST", f"subscriptions/{subscription.id}", {"status": status})

    assert (await api.v1.subscriptions.retrieve_async(subscription.id)).status == status
    last = (await api.v1.events.list_async({"limit": 1})).data[0]
    expected = "customer.subscription.deleted" if status == "canceled" else "customer.subscription.updated"
    assert (last.type, last.data.object["status"]) == (expected, status)


async def test_pages_go_forward_and_back_without_gap_or_repeat(api: stripe.StripeClient) -> None:
    made = [(await api.v1.customers.create_async({"name": str(n)})).id for n in range(7)]
    newest_first = made[::-1]

    first = await api.v1.customers.list_async({"limit": 3})
    second = await api.v1.customers.list_async({"limit": 3, "starting_after": newest_first[2]})
    third = await api.v1.customers.list_async({"limit": 3, "starting_after": newest_first[5]})
    back = await api.v1.customers.list_async({"limit": 3, "ending_before": newest_first[5]})
    walked = [one.id async for one in first.auto_paging_iter()]

    assert [one.id for one in first.data] == newest_first[:3]
    assert [one.id for one in second.data] == newest_first[3:6]
    assert [one.id for one in third.data] == newest_first[6:]
    assert [one.id for one in back.data] == newest_first[2:5]
    assert (first.has_more, second.has_more, third.has_more, back.has_more) == (True, True, False, True)
    assert walked == newest_first


async def test_a_list_is_narrowed_by_age() -> None:
    now = 1_800_000_000.0
    async with serve(clock=lambda: now) as server, client(server.url) as api:
        await api.v1.customers.create_async({"name": "old"})
        now += 60
        await api.v1.customers.create_async({"name": "new"})

        async def names(created: CustomerListParamsCreated | int) -> list[str | None]:
            return [one.name for one in (await api.v1.customers.list_async({"created": created})).data]

        assert await names({"gte": int(now)}) == ["new"]
        assert await names({"gt": int(now)}) == []
        assert await names({"lt": int(now)}) == ["old"]
        assert await names(int(now) - 60) == ["old"]
        types: Any = ["customer.created", "customer.deleted"]
        events = await api.v1.events.list_async({"types": types, "created": {"lte": int(now) - 1}})
        assert [event.data.object["name"] for event in events.data] == ["old"]
        now += 31 * 86400
        assert (await api.v1.events.list_async()).data == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=101", "limit"),
        ("limit=0", "limit"),
        ("limit=ten", "limit"),
        ("starting_after=cus_nobody", "starting_after"),
        ("starting_after=a&ending_before=b", "ending_before"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(server: Server, query: str, param: str) -> None:
    answer = await raw(server, "GET", f"/v1/customers?{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def raw(
    server: Server,
    method: str,
    path: str,
    *,
    data: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    sent = {"Authorization": f"Bearer {KEY}", **(headers or {})}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        return await http.request(method, path, headers=sent, data=data)


async def test_objects_are_expanded_along_paths(api: stripe.StripeClient) -> None:
    subscription = await bought(api)
    session = (await api.v1.checkout.sessions.list_async({"subscription": subscription.id})).data[0]

    seen = await api.v1.checkout.sessions.retrieve_async(
        session.id,
        {"expand": ["line_items.data.price.product", "subscription.latest_invoice", "subscription.customer"]},
    )

    assert "line_items" not in session
    assert seen.line_items is not None
    price = seen.line_items.data[0].price
    assert price is not None
    assert isinstance(price.product, stripe.Product)
    assert price.product.name == "MindRoom Starter"
    assert isinstance(seen.subscription, stripe.Subscription)
    assert isinstance(seen.subscription.latest_invoice, stripe.Invoice)
    assert isinstance(seen.subscription.customer, stripe.Customer)
    listed = await api.v1.subscriptions.list_async({"expand": ["data.customer"]})
    assert isinstance(listed.data[0].customer, stripe.Customer)


@pytest.mark.parametrize("path", ["data.status", "customer", "data.items.data.price.product"])
async def test_what_cannot_be_expanded_is_refused(api: stripe.StripeClient, path: str) -> None:
    await bought(api)

    impossible = await refused(api.v1.subscriptions.list_async({"expand": [path]}))

    assert impossible.param == "expand"


async def test_an_expansion_that_fails_undoes_what_it_came_with(api: stripe.StripeClient) -> None:
    await refused(api.v1.customers.create_async({"name": "x", "expand": ["name"]}))

    assert (await api.v1.customers.list_async()).data == []
    assert await event_types(api) == []


async def test_metadata_merges_and_empties(api: stripe.StripeClient) -> None:
    customer = await api.v1.customers.create_async({"metadata": {"a": "1", "b": "2", "0": "zero"}})
    merged = await api.v1.customers.update_async(customer.id, {"metadata": {"a": "", "c": "3"}})
    assert plain(merged.metadata) == {"b": "2", "0": "zero", "c": "3"}

    cleared = await api.v1.customers.update_async(customer.id, {"metadata": "", "name": ""})

    assert (plain(cleared.metadata), cleared.name) == ({}, None)
    too_long = await refused(api.v1.customers.create_async({"metadata": {"k": "x" * 501}}))
    assert too_long.param == "metadata"


async def test_a_repeated_request_gets_the_first_answer(server: Server, api: stripe.StripeClient) -> None:
    async def create(name: str) -> stripe.Customer:
        return await api.v1.customers.create_async({"name": name}, {"idempotency_key": "k1"})

    first, second = await create("Ada"), await create("Ada")

    assert first.id == second.id
    assert len((await api.v1.customers.list_async()).data) == 1
    assert await event_types(api) == ["customer.created"]
    assert second.last_response is not None
    assert second.last_response.headers["idempotent-replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError):
        await create("Bob")
    with pytest.raises(stripe.IdempotencyError):
        await api.v1.products.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    bad = await raw(server, "POST", "/v1/customers", data={"nam": "x"}, headers={"Idempotency-Key": "k2"})
    good = await raw(server, "POST", "/v1/customers", data={"name": "x"}, headers={"Idempotency-Key": "k2"})
    assert (bad.status_code, good.status_code) == (400, 200)


async def test_a_refusal_that_had_begun_is_replayed_too(api: stripe.StripeClient) -> None:
    params: Any = {"product": "prod_late", "currency": "usd", "unit_amount": 1}
    first = await refused(api.v1.prices.create_async(params, {"idempotency_key": "k"}))
    await api.v1.products.create_async({"id": "prod_late", "name": "Late"})

    again = await refused(api.v1.prices.create_async(params, {"idempotency_key": "k"}))

    assert (first.code, again.code, again.param) == ("resource_missing", "resource_missing", "product")
    assert (await api.v1.prices.create_async(params)).product == "prod_late"


@pytest.mark.parametrize(
    ("path", "data", "code", "param"),
    [
        ("/v1/customers", {"nmae": "x"}, "parameter_unknown", "nmae"),
        ("/v1/customers", {"metadata": "x"}, None, "metadata"),
        ("/v1/products", {}, "parameter_missing", "name"),
        ("/v1/products", {"name": ""}, "parameter_invalid_empty", "name"),
        ("/v1/products", {"name": "x", "active": "yes"}, None, "active"),
        (
            "/v1/prices",
            {"currency": "usd", "unit_amount": "1.5", "product": "p"},
            "parameter_invalid_integer",
            "unit_amount",
        ),
        (
            "/v1/prices",
            {"currency": "usd", "unit_amount": "1", "product": "p"},
            "resource_missing",
            "product",
        ),
        (
            "/v1/checkout/sessions",
            {"mode": "subscription", "success_url": "https://a.test"},
            "parameter_missing",
            "line_items",
        ),
        (
            "/v1/checkout/sessions",
            {"mode": "nothing", "success_url": "https://a.test", "line_items[0][price]": "p"},
            None,
            "mode",
        ),
        (
            "/v1/checkout/sessions",
            {"mode": "subscription", "success_url": "nowhere", "line_items[0][price]": "p"},
            "url_invalid",
            "success_url",
        ),
        (
            "/v1/checkout/sessions",
            {
                "mode": "subscription",
                "success_url": "https://a.test",
                "line_items[0][price]": "p",
                "line_items[0][prise]": "p",
            },
            "parameter_unknown",
            "line_items[0][prise]",
        ),
        (
            "/v1/checkout/sessions",
            {"mode": "subscription", "success_url": "https://a.test", "line_items[0][price]": "price_none"},
            "resource_missing",
            "line_items[0][price]",
        ),
        ("/v1/webhook_endpoints", {"url": "http://a.test"}, "parameter_missing", "enabled_events"),
        ("/v1/customers", {"metadata[a": "x"}, None, "metadata[a"),
    ],
)
async def test_a_mistaken_request_is_refused_in_stripes_words(
    server: Server, path: str, data: dict[str, str], code: str | None, param: str
) -> None:
    answer = await raw(server, "POST", path, data=data)

    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error.get("code"), error["param"]) == ("invalid_request_error", code, param)
    assert error["message"]


async def test_an_inactive_price_is_not_sold(api: stripe.StripeClient) -> None:
    price = await new_price(api)
    await api.v1.prices.update_async(price.id, {"active": False})

    error = await refused(open_session(api, price.id))

    assert error.param == "line_items[0][price]"


@pytest.mark.parametrize("key", ["sk_live_1", "pk_test_1", "nonsense", "sk_test_", "rk_test_"])
async def test_only_a_test_secret_key_is_let_in(server: Server, key: str) -> None:
    async with client(server.url, key) as stranger:
        with pytest.raises(stripe.AuthenticationError) as caught:
            await stranger.v1.customers.list_async()
    assert caught.value.http_status == 401


async def test_a_key_may_come_as_basic_authentication_but_must_come(server: Server) -> None:
    basic = base64.b64encode(f"{KEY}:".encode()).decode()
    let_in = await raw(server, "GET", "/v1/customers", headers={"Authorization": f"Basic {basic}"})
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        without = await http.get("/v1/customers")

    assert let_in.status_code == 200
    assert (without.status_code, without.json()["error"]["type"]) == (401, "invalid_request_error")


async def test_what_does_not_exist_is_not_found(server: Server, api: stripe.StripeClient) -> None:
    product = await api.v1.products.create_async({"name": "p"})
    for path in (
        "/v1/customers/cus_none",
        f"/v1/customers/{product.id}",
        "/v1/nothing",
        "/v1/subscriptions/x",
    ):
        answer = await raw(server, "GET", path)
        assert answer.status_code == 404, path
    missing = await refused(api.v1.subscriptions.retrieve_async("sub_none"))
    assert (missing.http_status, missing.code, missing.param) == (404, "resource_missing", "id")


async def test_every_answer_names_its_request_and_version(server: Server) -> None:
    ours = await raw(server, "GET", "/v1/customers", headers={"Stripe-Version": "2026-08-26.dahlia"})
    usual = await raw(server, "GET", "/v1/customers")
    bad = await raw(server, "GET", "/v1/customers", headers={"Stripe-Version": "yesterday"})

    assert ours.headers["stripe-version"] == "2026-08-26.dahlia"
    assert usual.headers["stripe-version"] == "2026-10-28.endive"
    assert ours.headers["request-id"].startswith("req_")
    assert ours.headers["request-id"] != usual.headers["request-id"]
    assert bad.status_code == 400


async def test_the_api_can_be_told_to_ask_for_patience(server: Server, api: stripe.StripeClient) -> None:
    await control(server.url, "POST", "faults", {"rate_limit": 2})

    for _ in range(2):
        with pytest.raises(stripe.RateLimitError) as caught:
            await api.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
        assert caught.value.http_status == 429
        assert caught.value.headers is not None
        assert caught.value.headers["retry-after"] == "1"
        assert caught.value.headers["stripe-rate-limited-reason"] == "global-rate"

    await api.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
    assert len((await api.v1.customers.list_async()).data) == 1


async def test_a_body_over_a_mebibyte_is_refused(server: Server) -> None:
    answer = await raw(server, "POST", "/v1/customers", data={"name": "x" * (1 << 20)})

    assert answer.status_code == 413


async def test_an_endpoints_secret_is_shown_once(api: stripe.StripeClient) -> None:
    made = await api.v1.webhook_endpoints.create_async(
        {"url": "http://127.0.0.1:9/hook", "enabled_events": ["customer.created", "*"]}
    )

    seen = await api.v1.webhook_endpoints.retrieve_async(made.id)
    listed = (await api.v1.webhook_endpoints.list_async()).data
    changed = await api.v1.webhook_endpoints.update_async(
        made.id, {"disabled": True, "enabled_events": ["*"]}
    )
    gone = await api.v1.webhook_endpoints.delete_async(made.id)

    assert made.secret is not None
    assert made.secret.startswith("whsec_")
    assert "secret" not in seen
    assert [one.id for one in listed] == [made.id]
    assert "secret" not in listed[0]
    assert (changed.status, changed.enabled_events) == ("disabled", ["*"])
    assert (gone.id, gone.deleted) == (made.id, True)
    assert (await api.v1.webhook_endpoints.list_async()).data == []


async def test_a_customers_cards_are_listed(api: stripe.StripeClient) -> None:
    subscription = await bought(api)
    customer = str(subscription.customer)

    cards = await api.v1.payment_methods.list_async({"customer": customer, "type": "card"})
    own = await api.v1.customers.payment_methods.list_async(customer)

    assert [one.id for one in cards.data] == [subscription.default_payment_method]
    assert [one.id for one in own.data] == [subscription.default_payment_method]
    assert GOOD_CARD.replace(" ", "") not in str(cards)


async def test_a_customer_comes_with_a_card_and_all_that_is_known_of_them(api: stripe.StripeClient) -> None:
    ada = await api.v1.customers.create_async(
        {
            "email": "ada@example.com",
            "address": {"city": "Bern", "country": "CH"},
            "shipping": {"name": "Ada", "address": {"line1": "1 Road"}},
            "preferred_locales": ["de"],
            "balance": -500,
            "payment_method": "pm_card_visa",
            "invoice_settings": {"default_payment_method": "pm_card_visa"},
        }
    )
    cards = (await api.v1.customers.payment_methods.list_async(ada.id)).data

    assert [card.id for card in cards] == [
        ada.invoice_settings and ada.invoice_settings.default_payment_method
    ]
    assert (ada.balance, ada.preferred_locales) == (-500, ["de"])
    assert ada.address is not None
    assert (ada.address.city, ada.address.line1) == ("Bern", None)
    moved = await api.v1.customers.update_async(ada.id, {"address": "", "tax_exempt": "reverse"})
    assert (moved.address, moved.tax_exempt) == (None, "reverse")
    assert await event_types(api) == ["customer.created", "payment_method.attached", "customer.updated"]
    bob = await api.v1.customers.create_async({"name": "Bob"})
    others = await refused(
        api.v1.customers.update_async(bob.id, {"invoice_settings": {"default_payment_method": cards[0].id}})
    )
    no_address = await refused(api.v1.customers.create_async({"email": "ada"}))
    assert (others.code, no_address.code) == ("resource_missing", "email_invalid")


async def test_what_was_made_is_found_by_searching(api: stripe.StripeClient) -> None:
    for number in range(3):
        await api.v1.customers.create_async({"email": f"{number}@a.test", "metadata": {"of": "three"}})
    subscription = await bought(api)

    pages = await api.v1.customers.search_async({"query": "metadata['of']:'three'", "limit": 2})

    assert [one.email async for one in pages.auto_paging_iter()] == ["2@a.test", "1@a.test", "0@a.test"]
    invoices = await api.v1.invoices.search_async(
        {"query": f"subscription:'{subscription.id}' AND total>0", "expand": ["data.customer"]}
    )
    assert [one.id for one in invoices.data] == [subscription.latest_invoice]
    assert isinstance(invoices.data[0].customer, stripe.Customer)


async def test_a_product_comes_with_its_default_price_and_goes_without_any(api: stripe.StripeClient) -> None:
    product = await api.v1.products.create_async(
        {
            "name": "Pro",
            "default_price_data": {"currency": "usd", "unit_amount": 5, "recurring": {"interval": "year"}},
            "marketing_features": [{"name": "10 agents"}],
        }
    )
    price = str(product.default_price)
    kept = await refused(api.v1.prices.update_async(price, {"active": False}))
    sold = await refused(api.v1.products.delete_async(product.id))
    too_long: Any = {
        "currency": "usd",
        "unit_amount": 5,
        "product": product.id,
        "recurring": {"interval": "month", "interval_count": 37},
    }
    long = await refused(api.v1.prices.create_async(too_long))

    assert (await api.v1.prices.retrieve_async(price)).product == product.id
    assert (kept.param, long.param, "prices" in str(sold)) == ("active", "recurring", True)
    bare = await api.v1.products.create_async({"name": "Bare"})
    assert (await api.v1.products.delete_async(bare.id)).deleted
    assert (await event_types(api))[-2:] == ["product.created", "product.deleted"]
