"""Cards, payments, refunds, disputes and discounts in the stand-in, as Stripe's own client sees them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe_api.app import Server, serve
from tests.integration.stripe_tools import client, control


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[stripe.StripeClient]:
    async with client(server.url) as lent:
        yield lent


@pytest.fixture
async def browser(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as lent:
        yield lent


async def new_customer(api: stripe.StripeClient) -> str:
    return (await api.v1.customers.create_async({"email": "ada@example.com", "name": "Ada"})).id


async def charge(api: stripe.StripeClient, method: str, **more: object) -> stripe.PaymentIntent:
    """Pay $10.00 with a card, through the API."""
    params: Any = {"amount": 1000, "currency": "usd", "payment_method": method, "confirm": True, **more}
    return await api.v1.payment_intents.create_async(params)


async def event_types(api: stripe.StripeClient) -> list[str]:
    return [str(event.type) for event in (await api.v1.events.list_async({"limit": 100})).data][::-1]


@pytest.mark.parametrize("name", ["visa", "mastercard", "amex"])
async def test_a_card_that_pays_is_charged(api: stripe.StripeClient, name: str) -> None:
    intent = await charge(api, f"pm_card_{name}", expand=["latest_charge", "payment_method"])

    assert (intent.status, intent.amount_received, intent.last_payment_error) == ("succeeded", 1000, None)
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert (intent.latest_charge.paid, intent.latest_charge.amount_captured) == (True, 1000)
    assert isinstance(intent.payment_method, stripe.PaymentMethod)
    assert intent.payment_method.card is not None
    assert intent.payment_method.card.brand == name
    assert await event_types(api) == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]


@pytest.mark.parametrize(
    ("name", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_chargeCustomerFail", "card_declined", "generic_decline"),
    ],
)
async def test_a_declined_card_is_an_error_that_names_the_payment(
    api: stripe.StripeClient, name: str, code: str, decline_code: str
) -> None:
    with pytest.raises(stripe.CardError) as raised:
        await charge(api, name)

    error = raised.value
    assert (error.http_status, error.code) == (402, code)
    assert error.error is not None
    assert (error.error.decline_code, error.error.type) == (decline_code, "card_error")
    assert error.error.payment_intent is not None
    intent = await api.v1.payment_intents.retrieve_async(error.error.payment_intent.id)
    assert (intent.status, intent.payment_method) == ("requires_payment_method", None)
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.decline_code == decline_code
    failed = await api.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (failed.paid, failed.status, failed.failure_code) == (False, "failed", code)
    paid = await api.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "succeeded"
    assert len((await api.v1.charges.list_async({"payment_intent": intent.id})).data) == 2


async def test_a_repeated_declined_call_charges_once(api: stripe.StripeClient) -> None:
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await api.v1.payment_intents.create_async(
                {"amount": 5, "currency": "usd", "payment_method": "pm_card_chargeDeclined", "confirm": True},
                {"idempotency_key": "once"},
            )

    assert len((await api.v1.charges.list_async()).data) == 1


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ({"number": "4242424242424241", "exp_month": 1, "exp_year": 2040}, "incorrect_number"),
        ({"number": "4242424242424242", "exp_month": 1, "exp_year": 2020}, "invalid_expiry_year"),
        ({"number": "4242424242424242", "exp_month": 1}, "parameter_missing"),
        ({"token": "tok_nobody"}, "resource_missing"),
    ],
)
async def test_a_card_that_makes_no_sense_is_refused(
    api: stripe.StripeClient, card: dict[str, object], code: str
) -> None:
    params: Any = {"type": "card", "card": card}
    with pytest.raises(stripe.StripeError) as raised:
        await api.v1.payment_methods.create_async(params)

    assert raised.value.code == code


async def test_a_customer_keeps_cards_and_loses_them(api: stripe.StripeClient) -> None:
    ada = await new_customer(api)
    made = await api.v1.payment_methods.create_async(
        {"type": "card", "card": {"number": "5555 5555 5555 4444", "exp_month": 7, "exp_year": 2040}}
    )
    by_token = await api.v1.payment_methods.create_async({"type": "card", "card": {"token": "tok_visa"}})

    for method in (made, by_token):
        await api.v1.payment_methods.attach_async(method.id, {"customer": ada})
    await api.v1.customers.update_async(ada, {"invoice_settings": {"default_payment_method": made.id}})
    listed = await api.v1.customers.payment_methods.list_async(ada)
    assert [one.id for one in listed.data] == [by_token.id, made.id]

    gone = await api.v1.payment_methods.detach_async(made.id)

    assert gone.customer is None
    customer = await api.v1.customers.retrieve_async(ada)
    assert customer.invoice_settings is not None
    assert customer.invoice_settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        await api.v1.payment_methods.attach_async(made.id, {"customer": ada})


async def test_a_declining_card_is_not_kept_but_the_one_that_fails_later_is(api: stripe.StripeClient) -> None:
    ada = await new_customer(api)

    with pytest.raises(stripe.CardError):
        await api.v1.payment_methods.attach_async("pm_card_chargeDeclined", {"customer": ada})
    kept = await api.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", {"customer": ada})

    with pytest.raises(stripe.CardError):
        await charge(api, kept.id, customer=ada, off_session=True)


async def test_a_card_that_wants_authentication_waits_for_its_holder(
    api: stripe.StripeClient, browser: httpx.AsyncClient
) -> None:
    ada = await new_customer(api)
    intent = await charge(
        api,
        "pm_card_authenticationRequiredOnSetup",
        customer=ada,
        setup_future_usage="off_session",
        return_url="https://app.test/back?a=b",
    )
    assert intent.status == "requires_action"
    again = await api.v1.payment_intents.confirm_async(intent.id)
    assert (again.status, again.latest_charge) == ("requires_action", None)
    assert again.next_action is not None
    assert again.next_action.redirect_to_url is not None
    url = str(again.next_action.redirect_to_url.url)
    assert "wants to know that it is you" in (await browser.get(url)).text

    failed = await browser.post(url, data={"outcome": "fail"})
    refused = await api.v1.payment_intents.retrieve_async(intent.id)
    await api.v1.payment_intents.confirm_async(intent.id, {"payment_method": str(again.payment_method)})
    passed = await browser.post(url, data={"outcome": "complete"})

    assert (failed.status_code, passed.status_code) == (303, 303)
    assert passed.headers["location"].startswith(f"https://app.test/back?a=b&payment_intent={intent.id}")
    assert refused.status == "requires_payment_method"
    assert refused.last_payment_error is not None
    assert refused.last_payment_error.code == "payment_intent_authentication_failure"
    paid = await api.v1.payment_intents.retrieve_async(intent.id)
    assert paid.status == "succeeded"
    assert (await browser.get(url)).status_code == 410
    later = await charge(api, str(paid.payment_method), customer=ada, off_session=True)
    assert later.status == "succeeded"


async def test_authentication_can_be_done_by_a_test_and_never_by_an_absent_holder(
    api: stripe.StripeClient, server: Server
) -> None:
    with pytest.raises(stripe.CardError) as raised:
        await charge(api, "pm_card_authenticationRequired", off_session=True)
    intent = await charge(api, "pm_card_threeDSecure2Required")

    done = await control(server.url, "POST", f"payment_intents/{intent.id}/authenticate")

    assert raised.value.code == "authentication_required"
    assert (intent.status, done["status"]) == ("requires_action", "succeeded")


async def test_an_intent_is_canceled_once(api: stripe.StripeClient) -> None:
    intent = await api.v1.payment_intents.create_async({"amount": 1000, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        await api.v1.payment_intents.confirm_async(intent.id)

    canceled = await api.v1.payment_intents.cancel_async(intent.id)

    assert (canceled.status, canceled.canceled_at is None) == ("canceled", False)
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        await api.v1.payment_intents.cancel_async(intent.id)


async def test_a_refund_is_partial_until_all_is_given_back(api: stripe.StripeClient) -> None:
    intent = await charge(api, "pm_card_visa")
    charged = str(intent.latest_charge)

    part = await api.v1.refunds.create_async({"payment_intent": intent.id, "amount": 300})
    seen = await api.v1.charges.retrieve_async(charged, {"expand": ["refunds"]})
    with pytest.raises(stripe.InvalidRequestError, match=r"\$7.01.*greater than unrefunded.*\$7.00"):
        await api.v1.refunds.create_async({"charge": charged, "amount": 701})
    rest = await api.v1.refunds.create_async({"charge": charged, "reason": "requested_by_customer"})

    assert (part.amount, rest.amount, rest.status) == (300, 700, "succeeded")
    assert (seen.amount_refunded, seen.refunded) == (300, False)
    assert seen.refunds is not None
    assert [one.id for one in seen.refunds.data] == [part.id]
    whole = await api.v1.charges.retrieve_async(charged)
    assert (whole.amount_refunded, whole.refunded) == (1000, True)
    assert (await event_types(api))[-4:] == ["refund.created", "charge.refunded"] * 2
    with pytest.raises(stripe.InvalidRequestError) as raised:
        await api.v1.refunds.create_async({"charge": charged})
    assert raised.value.code == "charge_already_refunded"


async def test_a_dispute_comes_with_its_card_or_on_request(api: stripe.StripeClient, server: Server) -> None:
    by_card = await charge(api, "pm_card_createDispute")
    by_test = await charge(api, "pm_card_visa")

    await control(server.url, "POST", f"charges/{by_test.latest_charge}/dispute", {"reason": "general"})

    disputes = (await api.v1.disputes.list_async({"expand": ["data.charge"]})).data
    assert [one.reason for one in disputes] == ["general", "fraudulent"]
    assert [one.payment_intent for one in disputes] == [by_test.id, by_card.id]
    assert all(isinstance(one.charge, stripe.Charge) and one.charge.disputed for one in disputes)
    assert (await event_types(api)).count("charge.dispute.created") == 2
    with pytest.raises(stripe.InvalidRequestError) as raised:
        await api.v1.refunds.create_async({"payment_intent": by_card.id})
    assert raised.value.code == "charge_disputed"
