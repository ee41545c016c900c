"""The Stripe stand-in's billing over the official client: test clocks, the sandbox's time, invoices."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe_api.app import Server, serve
from tests.integration.stripe_time import (
    DAY,
    START,
    advance,
    new_clock,
    new_customer,
    pays_with,
    subscribe,
)
from tests.integration.stripe_tools import client, control, new_price, receiver


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[stripe.StripeClient]:
    async with client(server.url) as lent:
        yield lent


async def test_a_test_clock_takes_its_customers_through_time(api: stripe.StripeClient) -> None:
    clock = await new_clock(api)
    price = (await new_price(api)).id
    customer = await new_customer(api, clock)
    subscription = await subscribe(api, customer, price, trial_period_days=14)
    assert (subscription.test_clock, subscription.created) == (clock, START)

    await advance(api, clock, START + 14 * DAY + 7200)

    now = await api.v1.subscriptions.retrieve_async(
        subscription.id, {"expand": ["test_clock", "latest_invoice", "items.data.price.product"]}
    )
    assert now.status == "active"
    assert isinstance(now.test_clock, stripe.test_helpers.TestClock)
    assert now.test_clock.frozen_time == START + 14 * DAY + 7200
    assert isinstance(now.latest_invoice, stripe.Invoice)
    assert (now.latest_invoice.status, now.latest_invoice.created) == ("paid", START + 14 * DAY)
    assert now["items"].data[0].price.product.name == "MindRoom Starter"
    told = await api.v1.events.list_async({"types": [f"test_helpers.test_clock.{x}" for x in CLOCK_EVENTS]})
    assert [event.type.rpartition(".")[2] for event in told.data] == list(CLOCK_EVENTS)[:3]


CLOCK_EVENTS = ("ready", "advancing", "created", "deleted")


async def test_a_clock_moves_forward_two_intervals_at_most(api: stripe.StripeClient) -> None:
    clock = await new_clock(api)
    clocks = api.v1.test_helpers.test_clocks
    await advance(api, clock, START + 700 * DAY)
    customer = await new_customer(api, clock)
    await subscribe(api, customer, (await new_price(api)).id)

    for target in (START, START + 765 * DAY):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await clocks.advance_async(clock, {"frozen_time": target})
        assert caught.value.param == "frozen_time"
    await advance(api, clock, START + 758 * DAY)


async def test_a_clock_has_room_for_three_customers(api: stripe.StripeClient) -> None:
    clock = await new_clock(api)
    for _ in range(3):
        last = await new_customer(api, clock, card=None)

    with pytest.raises(stripe.InvalidRequestError, match="up to 3 customers"):
        await new_customer(api, clock, card=None)

    await api.v1.customers.delete_async(last)
    await new_customer(api, clock, card=None)


async def test_a_deleted_clock_takes_its_customers_along(api: stripe.StripeClient) -> None:
    clock = await new_clock(api)
    customer = await new_customer(api, clock)
    subscription = await subscribe(api, customer, (await new_price(api)).id)

    gone = await api.v1.test_helpers.test_clocks.delete_async(clock)

    assert gone.deleted
    assert (await api.v1.customers.retrieve_async(customer)).deleted
    assert (await api.v1.customers.list_async()).data == []
    assert (await api.v1.subscriptions.retrieve_async(subscription.id)).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        await subscribe(api, customer, (await new_price(api, "other")).id)


async def test_the_sandboxs_time_outlasts_a_restart(tmp_path: Path) -> None:
    state = str(tmp_path / "stripe.db")
    async with serve(state) as server, client(server.url) as api, receiver() as hook:
        kinds: Any = ["invoice.paid"]
        endpoint = await api.v1.webhook_endpoints.create_async({"url": hook.url, "enabled_events": kinds})
        subscription = await subscribe(api, await new_customer(api), (await new_price(api)).id)
        moved = await control(server.url, "POST", "clock", {"advance_seconds": 40 * DAY})
        received = await hook.wait_for(2)
        # The signature carries real time, or the official client would refuse it.
        event = received[1].event(str(endpoint.secret))
        assert event.data.object["billing_reason"] == "subscription_cycle"
        assert 25 * DAY < event.created - subscription.created < 35 * DAY

    async with serve(state) as server, client(server.url) as api:
        assert (await control(server.url, "GET", "clock"))["now"] >= moved["now"]
        invoices = await api.v1.invoices.list_async({"subscription": subscription.id})
        assert [one.status for one in invoices.data] == ["paid", "paid"]


async def test_settings_decide_what_becomes_of_who_does_not_pay(
    server: Server, api: stripe.StripeClient
) -> None:
    shown = await control(server.url, "GET", "settings")
    assert shown == {"retry_days": [3, 5, 7], "after_retries": "cancel"}
    await control(server.url, "POST", "settings", {"after_retries": "unpaid"})
    customer = await new_customer(api)
    subscription = await subscribe(api, customer, (await new_price(api)).id)
    await pays_with(api, customer, "pm_card_chargeCustomerFail")

    await control(server.url, "POST", "clock", {"advance_seconds": 47 * DAY})

    assert (await api.v1.subscriptions.retrieve_async(subscription.id)).status == "unpaid"


async def test_a_first_payment_is_confirmed_in_the_browser(api: stripe.StripeClient) -> None:
    customer = await new_customer(api, card=None)
    subscription = await subscribe(
        api,
        customer,
        (await new_price(api)).id,
        payment_behavior="default_incomplete",
        payment_settings={"save_default_payment_method": "on_subscription"},
        expand=["latest_invoice.confirmation_secret"],
    )
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    invoice = subscription.latest_invoice
    assert (subscription.status, invoice.status, invoice.attempt_count) == ("incomplete", "open", 0)
    secret = invoice.confirmation_secret
    assert secret is not None
    intent = secret.client_secret.partition("_secret")[0]

    method = await api.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    done = await api.v1.payment_intents.confirm_async(intent, {"payment_method": method.id})

    assert done.status == "succeeded"
    now = await api.v1.subscriptions.retrieve_async(subscription.id)
    assert (now.status, now.default_payment_method) == ("active", method.id)
    payments = await api.v1.invoice_payments.list_async(
        {"payment": {"type": "payment_intent", "payment_intent": intent}}
    )
    assert [(one.invoice, one.status) for one in payments.data] == [(invoice.id, "paid")]


async def test_an_open_invoice_is_paid_on_its_page(server: Server, api: stripe.StripeClient) -> None:
    customer = await new_customer(api)
    subscription = await subscribe(api, customer, (await new_price(api)).id)
    await pays_with(api, customer, "pm_card_chargeCustomerFail")
    await control(server.url, "POST", "clock", {"advance_seconds": 33 * DAY})
    owed = (await api.v1.invoices.list_async({"status": "open"})).data[0]
    page = str(owed.hosted_invoice_url)

    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as browser:
        assert "Pay $29.00" in (await browser.get(page)).text
        refused = await browser.post(page, data={"card_number": "4000 0000 0000 9995"})
        assert (refused.status_code, "insufficient funds" in refused.text) == (402, True)
        asked = await browser.post(page, data={"card_number": "4000 0027 6000 3184"})
        answered = await browser.post(asked.headers["location"], data={"outcome": "complete"})
        assert answered.headers["location"].startswith(page)
        assert "This invoice is paid." in (await browser.get(page)).text
        assert (await browser.get("/invoice/in_none")).status_code == 404

    now = await api.v1.subscriptions.retrieve_async(subscription.id)
    assert (now.status, now.latest_invoice) == ("active", owed.id)


async def test_items_are_added_changed_and_removed_one_by_one(api: stripe.StripeClient) -> None:
    clock = await new_clock(api)
    customer = await new_customer(api, clock)
    plan, extra = await new_price(api, "plan", 2800), await new_price(api, "agent", 500)
    subscription = await subscribe(api, customer, plan.id)

    added = await api.v1.subscription_items.create_async(
        {"subscription": subscription.id, "price": extra.id, "quantity": 2}
    )
    await api.v1.subscription_items.update_async(added.id, {"quantity": 4})
    listed = await api.v1.subscription_items.list_async({"subscription": subscription.id})
    assert [(one.price.id, one.quantity) for one in listed.data] == [(plan.id, 1), (extra.id, 4)]
    assert listed.data[1].current_period_end == listed.data[0].current_period_end
    assert (await api.v1.subscription_items.delete_async(added.id)).deleted

    waiting = await api.v1.invoice_items.list_async({"customer": customer, "pending": True})
    assert sum(one.amount for one in waiting.data) == 0
    assert (await api.v1.subscription_items.retrieve_async(listed.data[0].id)).price.id == plan.id


async def test_a_cancellation_gives_back_what_is_left(api: stripe.StripeClient) -> None:
    clock = await new_clock(api)
    customer = await new_customer(api, clock)
    subscription = await subscribe(api, customer, (await new_price(api, amount=2800)).id)
    await advance(api, clock, START + 7 * DAY)

    await api.v1.subscriptions.cancel_async(subscription.id, {"prorate": True, "invoice_now": True})

    left = await api.v1.customers.retrieve_async(customer)
    assert left.balance == -2100
    latest = await api.v1.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert isinstance(latest.latest_invoice, stripe.Invoice)
    assert (latest.latest_invoice.total, latest.latest_invoice.ending_balance) == (-2100, -2100)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"trial_period_days": 3, "trial_end": START + DAY}, "trial_end"),
        ({"cancel_at": 1}, "cancel_at"),
        ({"cancel_at": START * 2, "cancel_at_period_end": True}, "cancel_at"),
        ({"default_payment_method": "pm_none"}, "default_payment_method"),
        ({"items": [{"price": "price_none"}]}, "items[0][price]"),
        ({"discounts": [{"coupon": "none"}]}, "discounts[0][coupon]"),
        ({"billing_mode": {"type": "classic"}}, "billing_mode[type]"),
    ],
)
async def test_a_mistaken_subscription_is_refused_and_nothing_is_kept(
    api: stripe.StripeClient, given: dict[str, object], param: str
) -> None:
    customer, price = await new_customer(api), (await new_price(api)).id

    with pytest.raises(stripe.InvalidRequestError) as caught:
        await subscribe(api, customer, price, **given)

    assert caught.value.param == param
    assert (await api.v1.subscriptions.list_async({"status": "all"})).data == []


async def test_without_a_card_nothing_is_sold(api: stripe.StripeClient) -> None:
    customer = await new_customer(api, card=None)

    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        await subscribe(api, customer, (await new_price(api)).id)

    assert (await api.v1.invoices.list_async()).data == []
