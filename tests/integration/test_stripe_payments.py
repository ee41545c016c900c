"""Cards, payments, refunds, disputes and discounts in the stand-in, as Stripe's own client sees them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe_api.app import Server, serve
from tests.integration.stripe_tools import client, control, new_price, open_session, pay


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


async def test_a_confirmation_that_declines_is_kept_and_a_card_that_pays_is_attached(
    api: stripe.StripeClient,
) -> None:
    ada = await new_customer(api)
    intent = await api.v1.payment_intents.create_async(
        {"amount": 500, "currency": "usd", "customer": ada, "setup_future_usage": "off_session"}
    )
    await api.v1.payment_intents.update_async(intent.id, {"amount": 1000, "metadata": {"a": "b"}})
    with pytest.raises(stripe.CardError):
        await api.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    declined = await api.v1.payment_intents.retrieve_async(intent.id)

    paid = await api.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})

    assert declined.last_payment_error is not None
    assert (declined.status, declined.last_payment_error.code) == ("requires_payment_method", "card_declined")
    assert (paid.status, paid.amount_received) == ("succeeded", 1000)
    kept = await api.v1.payment_methods.retrieve_async(str(paid.payment_method))
    assert kept.customer == ada
    assert (await event_types(api))[-5:] == [
        "charge.failed",
        "payment_intent.payment_failed",
        "payment_method.attached",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]
    with pytest.raises(stripe.InvalidRequestError, match="succeeded"):
        await api.v1.payment_intents.update_async(intent.id, {"amount": 1})


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
    assert (await event_types(api)).count("payment_intent.requires_action") == 1
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


@pytest.mark.parametrize(
    ("evidence", "verdict", "told"),
    [
        ("winning_evidence", "won", ["funds_reinstated", "closed"]),
        ("losing_evidence", "lost", ["closed"]),
        ("They were there.", "under_review", []),
    ],
)
async def test_a_dispute_is_answered(
    api: stripe.StripeClient, evidence: str, verdict: str, told: list[str]
) -> None:
    paid = await charge(api, "pm_card_createDispute")
    disputed = (await api.v1.disputes.list_async({"payment_intent": paid.id})).data[0]
    kept = await api.v1.disputes.update_async(
        disputed.id, {"evidence": {"uncategorized_text": evidence}, "submit": False}
    )
    assert (kept.status, kept.evidence_details.has_evidence) == ("needs_response", True)

    answered = await api.v1.disputes.update_async(disputed.id, {"evidence": {"customer_name": "Ada"}})

    assert (answered.status, answered.evidence_details.submission_count) == (verdict, 1)
    assert [kind.removeprefix("charge.dispute.") for kind in await event_types(api)][5:] == [
        "updated",
        "updated",
        *told,
    ]
    if verdict == "won":
        await api.v1.refunds.create_async({"payment_intent": paid.id})
    if verdict != "under_review":
        with pytest.raises(stripe.InvalidRequestError, match=f"was {verdict}"):
            await api.v1.disputes.close_async(disputed.id)
        return
    given_up = await api.v1.disputes.close_async(disputed.id)
    assert given_up.status == "lost"
    with pytest.raises(stripe.InvalidRequestError, match="charged back"):
        await api.v1.refunds.create_async({"payment_intent": paid.id})


async def new_coupon(api: stripe.StripeClient, code: str, **more: object) -> stripe.PromotionCode:
    """A promotion code of a coupon of its own: a quarter off for three months unless it says otherwise."""
    terms: Any = {"percent_off": 25, "duration": "repeating", "duration_in_months": 3, **more}
    coupon = await api.v1.coupons.create_async(terms)
    return await api.v1.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": code}
    )


async def one_time_price(api: stripe.StripeClient, amount: int = 1000) -> stripe.Price:
    return await api.v1.prices.create_async(
        {"product_data": {"name": "Set-up"}, "currency": "usd", "unit_amount": amount}
    )


async def retrieved(
    api: stripe.StripeClient, session: stripe.checkout.Session, *expand: str
) -> stripe.checkout.Session:
    return await api.v1.checkout.sessions.retrieve_async(session.id, {"expand": list(expand)})


@pytest.mark.parametrize(
    ("card", "refusal"),
    [
        ("4242424242424242", None),
        ("5555555555554444", None),
        ("378282246310005", None),
        ("4000000000000341", None),
        ("4000000000000259", None),
        ("4000000000000002", "was declined"),
        ("4000000000009995", "insufficient funds"),
    ],
)
async def test_the_card_typed_on_the_page_decides(
    api: stripe.StripeClient, card: str, refusal: str | None
) -> None:
    price = (await new_price(api)).id
    paid_now = await open_session(api, price, await new_customer(api))
    trial = await open_session(
        api, price, await new_customer(api), subscription_data={"trial_period_days": 3}
    )

    answers = [await pay(session, card) for session in (paid_now, trial)]

    done = [await retrieved(api, session, "subscription") for session in (paid_now, trial)]
    if refusal is not None:
        assert [(one.status_code, refusal in one.text) for one in answers] == [(402, True)] * 2
        assert [(one.status, one.subscription) for one in done] == [("open", None)] * 2
        customer = str(done[0].customer)
        assert (await api.v1.payment_methods.list_async({"customer": customer})).data == []
        return
    assert [one.status_code for one in answers] == [303, 303]
    subscriptions = [one.subscription for one in done if isinstance(one.subscription, stripe.Subscription)]
    assert [one.status for one in subscriptions] == ["active", "trialing"]
    assert [one.payment_status for one in done] == ["paid", "no_payment_required"]
    assert len((await api.v1.disputes.list_async()).data) == card.endswith("0259")


@pytest.mark.parametrize("days", [0, 3])
async def test_the_page_leads_to_authentication_and_back(
    api: stripe.StripeClient, browser: httpx.AsyncClient, days: int
) -> None:
    terms: Any = {"subscription_data": {"trial_period_days": days}} if days else {}
    session = await open_session(api, (await new_price(api)).id, **terms)

    asked = await pay(session, "4000002500003155", email="ada@example.com", name="Ada")
    question = await browser.get(asked.headers["location"])
    failed = await browser.post(asked.headers["location"], data={"outcome": "fail"})
    between = await retrieved(api, session)
    passed = await browser.post(asked.headers["location"], data={"outcome": "complete"})

    assert asked.status_code == 303
    assert "ends in <strong>3155</strong>" in question.text
    assert (failed.status_code, "unable to authenticate" in failed.text) == (402, True)
    assert 'value="ada@example.com"' in failed.text
    assert (between.status, between.subscription) == ("open", None)
    assert passed.headers["location"] == f"https://app.test/done?session={session.id}"
    done = await retrieved(api, session, "subscription", "customer")
    assert isinstance(done.subscription, stripe.Subscription)
    assert isinstance(done.customer, stripe.Customer)
    assert (done.subscription.status, done.customer.email) == (
        "trialing" if days else "active",
        "ada@example.com",
    )
    later = await charge(
        api, str(done.subscription.default_payment_method), customer=done.customer.id, off_session=True
    )
    assert later.status == "succeeded"


async def test_another_sessions_card_cannot_be_paid_with(
    api: stripe.StripeClient, browser: httpx.AsyncClient
) -> None:
    price = await new_price(api)
    mine = await open_session(api, price.id)
    theirs = await open_session(api, price.id)
    asked = await pay(theirs, "4000002500003155", email="ada@example.com")

    path = asked.headers["location"].replace(theirs.id, mine.id)

    assert (await browser.post(path, data={"outcome": "complete"})).status_code == 404


async def test_something_is_bought_once_by_a_guest(api: stripe.StripeClient) -> None:
    price = await one_time_price(api)
    session = await open_session(
        api, price.id, mode="payment", payment_intent_data={"metadata": {"order": "7"}}
    )

    declined = await pay(session, "4000000000000002", email="ada@example.com")
    between = await retrieved(api, session, "payment_intent")
    paid = await pay(session, email="ada@example.com")

    assert (declined.status_code, paid.status_code) == (402, 303)
    assert isinstance(between.payment_intent, stripe.PaymentIntent)
    assert (between.status, between.payment_intent.status) == ("open", "requires_payment_method")
    done = await retrieved(api, session, "payment_intent.latest_charge")
    assert (done.status, done.payment_status, done.customer) == ("complete", "paid", None)
    assert done.customer_details is not None
    assert done.customer_details.email == "ada@example.com"
    assert isinstance(done.payment_intent, stripe.PaymentIntent)
    assert (done.payment_intent.id, done.payment_intent.metadata["order"]) == (between.payment_intent.id, "7")
    assert isinstance(done.payment_intent.latest_charge, stripe.Charge)
    assert done.payment_intent.latest_charge.paid
    assert (await event_types(api))[2:] == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]


async def test_a_set_up_fee_is_due_at_once_though_the_trial_is_free(
    api: stripe.StripeClient, browser: httpx.AsyncClient
) -> None:
    monthly, fee = await new_price(api), await one_time_price(api)
    session = await open_session(
        api,
        monthly.id,
        await new_customer(api),
        line_items=[{"price": monthly.id, "quantity": 1}, {"price": fee.id, "quantity": 2}],
        subscription_data={"trial_period_days": 3},
    )
    assert (session.amount_subtotal, session.amount_total) == (2000, 2000)
    known = await api.v1.checkout.sessions.list_async({"customer_details": {"email": "ada@example.com"}})
    assert [one.id for one in known.data] == [session.id]
    assert "Due today</th><td>$20.00" in (await browser.get(str(session.url))).text

    await pay(session)

    done = await retrieved(api, session, "invoice", "subscription")
    assert isinstance(done.subscription, stripe.Subscription)
    assert isinstance(done.invoice, stripe.Invoice)
    assert (done.subscription.status, done.payment_status) == ("trialing", "paid")
    assert len(done.subscription["items"].data) == 1
    assert done.invoice.amount_paid == 2000
    assert sorted(line.amount for line in done.invoice.lines.data) == [0, 2000]


async def test_a_trial_may_begin_without_a_card(api: stripe.StripeClient, browser: httpx.AsyncClient) -> None:
    session = await open_session(
        api,
        (await new_price(api)).id,
        await new_customer(api),
        payment_method_collection="if_required",
        subscription_data={
            "trial_period_days": 3,
            "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
        },
    )
    assert "card_number" not in (await browser.get(str(session.url))).text

    assert (await pay(session, "")).status_code == 303

    done = await retrieved(api, session, "subscription")
    assert isinstance(done.subscription, stripe.Subscription)
    assert (done.subscription.status, done.subscription.default_payment_method) == ("trialing", None)
    assert done.subscription.trial_settings is not None
    assert done.subscription.trial_settings.end_behavior.missing_payment_method == "pause"


async def test_a_code_typed_on_the_page_lowers_the_price(
    api: stripe.StripeClient, browser: httpx.AsyncClient
) -> None:
    promotion = await new_coupon(api, "SPRING", max_redemptions=1)
    price = await new_price(api)
    session = await open_session(api, price.id, await new_customer(api), allow_promotion_codes=True)
    other = await open_session(
        api, price.id, await new_customer(api), discounts=[{"promotion_code": promotion.id}]
    )

    async def typed(code: str) -> httpx.Response:
        return await browser.post(
            str(session.url),
            data={"action": "apply_code", "promotion_code": code},
            follow_redirects=True,
        )

    wrong, right = await typed("WINTER"), await typed(" spring ")
    assert (wrong.status_code, "This code is invalid." in wrong.text) == (402, True)
    assert "SPRING: 25% off for 3 months" in right.text
    assert "Due today</th><td>$21.75" in right.text
    await browser.post(str(session.url), data={"action": "remove_code"})
    assert (await retrieved(api, session)).amount_total == 2900
    await typed("SPRING")
    assert (await pay(session)).status_code == 303

    done = await retrieved(api, session, "subscription.discounts", "invoice")
    assert (done.amount_subtotal, done.amount_total) == (2900, 2175)
    assert done.discounts is not None
    assert done.discounts[0].promotion_code == promotion.id
    assert isinstance(done.subscription, stripe.Subscription)
    discount = done.subscription.discounts[0]
    assert isinstance(discount, stripe.Discount)
    assert (discount.promotion_code, discount.end is None) == (promotion.id, False)
    assert isinstance(done.invoice, stripe.Invoice)
    assert (done.invoice.total, done.invoice.amount_paid) == (2175, 2175)
    used = await api.v1.promotion_codes.retrieve_async(promotion.id, {"expand": ["promotion.coupon"]})
    assert (used.times_redeemed, used.active) == (1, False)
    assert isinstance(used.promotion.coupon, stripe.Coupon)
    assert (used.promotion.coupon.times_redeemed, used.promotion.coupon.valid) == (1, False)
    too_late = await pay(other)
    assert (too_late.status_code, "not active" in too_late.text) == (402, True)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"customer": "other"}, "another customer"),
        ({"restrictions": {"minimum_amount": 3000, "minimum_amount_currency": "usd"}}, r"at least \$30.00"),
        ({"restrictions": {"first_time_transaction": True}}, "first purchase"),
        ({"active": False}, "not active"),
    ],
)
async def test_a_code_is_not_for_everybody(
    api: stripe.StripeClient, limits: dict[str, object], sentence: str
) -> None:
    ada = await new_customer(api)
    await charge(api, "pm_card_visa", customer=ada)
    coupon = await api.v1.coupons.create_async({"amount_off": 500, "currency": "usd"})
    if "customer" in limits:
        limits = {"customer": await new_customer(api)}
    params: Any = {"promotion": {"type": "coupon", "coupon": coupon.id}, **limits}
    promotion = await api.v1.promotion_codes.create_async(params)

    with pytest.raises(stripe.InvalidRequestError, match=sentence) as raised:
        await open_session(api, (await new_price(api)).id, ada, discounts=[{"promotion_code": promotion.id}])

    assert raised.value.param == "discounts[0][promotion_code]"


async def test_an_active_code_is_found_by_its_name_once(api: stripe.StripeClient) -> None:
    first = await new_coupon(api, "Spring")
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        await new_coupon(api, "SPRING")
    await api.v1.promotion_codes.update_async(first.id, {"active": False})
    second = await new_coupon(api, "spring")

    found = await api.v1.promotion_codes.list_async({"code": "Spring", "active": True})

    assert [one.id for one in found.data] == [second.id]


async def test_a_coupon_takes_something_off_its_products_alone(api: stripe.StripeClient) -> None:
    plan, other = await new_price(api), await new_price(api, "other", 1000)
    coupon = await api.v1.coupons.create_async(
        {"amount_off": 1500, "currency": "usd", "applies_to": {"products": [str(other.product)]}}
    )
    lines = [{"price": plan.id, "quantity": 1}, {"price": other.id, "quantity": 1}]

    both = await open_session(api, plan.id, line_items=lines, discounts=[{"coupon": coupon.id}])
    with pytest.raises(stripe.InvalidRequestError, match="nothing in this order"):
        await open_session(api, plan.id, discounts=[{"coupon": coupon.id}])

    assert (both.amount_subtotal, both.amount_total) == (3900, 2900)
    seen = await api.v1.coupons.retrieve_async(coupon.id, {"expand": ["applies_to"]})
    assert "applies_to" not in coupon
    assert seen.applies_to is not None
    assert seen.applies_to.products == [other.product]


@pytest.mark.parametrize("limits", [{"redeem_by": 10**10}, {"max_redemptions": 1}])
async def test_a_code_goes_no_further_than_its_coupon(
    api: stripe.StripeClient, limits: dict[str, int]
) -> None:
    coupon: Any = {"percent_off": 25, **limits}
    made = await api.v1.coupons.create_async(coupon)
    beyond: Any = {
        "promotion": {"type": "coupon", "coupon": made.id},
        "expires_at": 10**10 + 1,
        "max_redemptions": 2,
    }

    with pytest.raises(stripe.InvalidRequestError, match="coupon's"):
        await api.v1.promotion_codes.create_async(beyond)


async def test_a_coupon_and_its_codes_end_with_its_time(api: stripe.StripeClient, server: Server) -> None:
    now = int(server.ledger.clock())
    coupon = await api.v1.coupons.create_async({"percent_off": 25, "redeem_by": now + 1000})
    given: Any = {"promotion": {"type": "coupon", "coupon": coupon.id}}
    lasting = await api.v1.promotion_codes.create_async(given)
    given["expires_at"] = now + 500
    brief = await api.v1.promotion_codes.create_async(given)

    async def standing() -> list[bool]:
        codes = await api.v1.promotion_codes.list_async(
            {"coupon": coupon.id, "expand": ["data.promotion.coupon"]}
        )
        coupons = [code.promotion.coupon for code in codes.data]
        valid = [one.valid for one in coupons if isinstance(one, stripe.Coupon)]
        return [code.active for code in codes.data] + valid

    assert await standing() == [True, True, True, True]
    await control(server.url, "POST", "clock", {"advance_seconds": 501})
    assert await standing() == [False, True, True, True]
    with pytest.raises(stripe.InvalidRequestError, match="expired"):
        await api.v1.promotion_codes.update_async(brief.id, {"active": True})
    await control(server.url, "POST", "clock", {"advance_seconds": 500})
    assert await standing() == [False, False, False, False]
    active = await api.v1.promotion_codes.list_async({"active": True, "coupon": coupon.id})
    assert (active.data, (await api.v1.promotion_codes.retrieve_async(lasting.id)).active) == ([], False)


async def test_what_a_mode_cannot_sell_is_refused(api: stripe.StripeClient) -> None:
    monthly, once = await new_price(api), await one_time_price(api)

    for price, mode in ((monthly, "payment"), (once, "subscription")):
        with pytest.raises(stripe.InvalidRequestError, match=f"You specified `{mode}` mode"):
            await open_session(api, price.id, mode=mode)
    with pytest.raises(stripe.InvalidRequestError, match="can not pass `subscription_data`"):
        await open_session(api, once.id, mode="payment", subscription_data={"trial_period_days": 3})
    with pytest.raises(stripe.InvalidRequestError, match=r"Add `quantity` to `line_items\[0\]`"):
        await open_session(api, monthly.id, line_items=[{"price": monthly.id}])


async def test_a_price_can_be_made_for_one_session(api: stripe.StripeClient) -> None:
    data = {"currency": "usd", "unit_amount": 700, "product_data": {"name": "Sticker"}}
    session = await open_session(
        api, "", mode="payment", line_items=[{"price_data": data, "quantity": 3}], customer_creation="always"
    )

    await pay(session, email="ada@example.com")

    done = await retrieved(api, session, "line_items", "customer")
    assert (done.amount_total, done.payment_status) == (2100, "paid")
    assert isinstance(done.customer, stripe.Customer)
    assert done.line_items is not None
    assert (done.line_items.data[0].description, done.line_items.data[0].price is None) == ("Sticker", False)


async def test_a_subscription_waits_for_its_holder_and_is_paid_on_the_page(
    api: stripe.StripeClient, browser: httpx.AsyncClient
) -> None:
    ada = await new_customer(api)
    method = await api.v1.payment_methods.attach_async(
        "pm_card_authenticationRequiredOnSetup", {"customer": ada}
    )
    made = await api.v1.subscriptions.create_async(
        {
            "customer": ada,
            "items": [{"price": (await new_price(api)).id}],
            "default_payment_method": method.id,
        }
    )
    intent = (await api.v1.payment_intents.list_async({"customer": ada})).data[0]
    assert (made.status, intent.status) == ("incomplete", "requires_action")
    assert intent.next_action is not None
    assert intent.next_action.redirect_to_url is not None

    answer = await browser.post(str(intent.next_action.redirect_to_url.url), data={"outcome": "complete"})

    assert (answer.status_code, "The payment is made" in answer.text) == (200, True)
    assert (await api.v1.subscriptions.retrieve_async(made.id)).status == "active"
    assert (await api.v1.invoices.retrieve_async(str(made.latest_invoice))).status == "paid"


async def test_what_is_bought_begins_in_its_customers_time_but_the_page_lives_in_ours(
    api: stripe.StripeClient,
) -> None:
    # Stripe too holds a session's times against the real one: https://github.com/stripe/stripe-dotnet/issues/2829
    start = 2_000_000_000
    clock = await api.v1.test_helpers.test_clocks.create_async({"frozen_time": start})
    ada = await api.v1.customers.create_async({"email": "ada@example.com", "test_clock": clock.id})
    price = (await new_price(api)).id
    terms: Any = {"subscription_data": {"trial_period_days": 3}}
    first = await open_session(api, price, ada.id, **terms)
    later = await open_session(api, price, ada.id, **terms, expires_at=first.created + 3600)

    assert (await pay(first)).status_code == 303
    await api.v1.test_helpers.test_clocks.advance_async(clock.id, {"frozen_time": start + 2 * 86400})
    assert (await pay(later)).status_code == 303

    ends = []
    for session in (first, later):
        done = await retrieved(api, session, "subscription")
        assert isinstance(done.subscription, stripe.Subscription)
        ends.append(done.subscription.trial_end)
    assert ends == [start + 3 * 86400, start + 5 * 86400]
