"""The billing portal: its API as the official client sees it, its pages as people do."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import stripe

from sandbox.stripe_api.app import serve
from tests.integration.stripe_tools import bought, client, control, new_price

RETURN = "https://app.test/account"


@dataclass(frozen=True)
class Shop:
    """A stand-in with one subscriber, who sees the portal in a browser."""

    url: str
    api: stripe.StripeClient
    browser: httpx.AsyncClient
    subscription: stripe.Subscription

    @property
    def customer(self) -> str:
        """The subscriber."""
        return str(self.subscription.customer)

    async def visit(self, **more: object) -> str:
        """The address of a new portal session."""
        params: Any = {"customer": self.customer, "return_url": RETURN, **more}
        return (await self.api.v1.billing_portal.sessions.create_async(params)).url

    async def do(self, address: str, action: str, **form: str) -> str:
        """The first page after a form was sent, which must have done what it was for."""
        answer = await self.browser.post(address + action, data=form)
        assert answer.status_code == 303, answer.text
        page = await self.browser.get(httpx.URL(address).join(answer.headers["location"]))
        assert page.status_code == 200
        return page.text

    async def now(self) -> stripe.Subscription:
        """The subscription as the API answers it."""
        return await self.api.v1.subscriptions.retrieve_async(self.subscription.id)

    async def events(self) -> list[str]:
        """The types of all events so far, the latest first."""
        return [event.type for event in (await self.api.v1.events.list_async({"limit": 100})).data]

    @property
    def path(self) -> str:
        """Where below a session's address the subscription's pages are."""
        return f"/subscriptions/{self.subscription.id}"


@asynccontextmanager
async def shop(trial_days: int = 0) -> AsyncIterator[Shop]:
    """Lend a shop whose subscriber pays by card, after a trial if there is one."""
    terms: Any = {"subscription_data": {"trial_period_days": trial_days}} if trial_days else {}
    async with serve() as server, client(server.url) as api, httpx.AsyncClient(trust_env=False) as browser:
        yield Shop(server.url, api, browser, await bought(api, **terms))


async def configuration(shop: Shop, **features: object) -> str:
    params: Any = {"features": features}
    made = await shop.api.v1.billing_portal.configurations.create_async(params)
    return made.id


def texts(page: str) -> str:
    """A page's words."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


async def test_a_default_configuration_is_there_from_the_start() -> None:
    async with shop() as one:
        configurations = one.api.v1.billing_portal.configurations

        (default,) = (await configurations.list_async({"is_default": True, "active": True})).data

        assert default.features.subscription_cancel.enabled
        assert "products" not in default.features.subscription_update.to_dict()
        found = await configurations.retrieve_async(
            default.id, {"expand": ["features.subscription_update.products"]}
        )
        assert found.features.subscription_update.products == []
        with pytest.raises(stripe.InvalidRequestError, match="default configuration"):
            await configurations.update_async(default.id, {"active": False})


async def test_a_configuration_keeps_what_an_edit_does_not_name() -> None:
    async with shop() as one:
        configurations = one.api.v1.billing_portal.configurations
        item = one.subscription["items"]["data"][0]
        sold: Any = {"product": item.price.product, "prices": [item.price.id]}
        made = await configurations.create_async(
            {
                "features": {
                    "subscription_cancel": {"enabled": True, "mode": "immediately"},
                    "subscription_update": {
                        "enabled": True,
                        "default_allowed_updates": ["price"],
                        "products": [sold],
                    },
                },
                "default_return_url": RETURN,
                "business_profile": {"headline": "Shop"},
                "metadata": {"a": "1"},
            }
        )
        new = await configurations.update_async(
            made.id,
            {
                "features": {"subscription_cancel": {"proration_behavior": "create_prorations"}},
                "business_profile": {"headline": ""},
                "metadata": {"b": "2"},
                "expand": ["features.subscription_update.products"],
            },
        )

        assert (made.is_default, made.active, made.default_return_url) == (False, True, RETURN)
        assert new.features.subscription_cancel.mode == "immediately"
        assert new.features.subscription_cancel.proration_behavior == "create_prorations"
        assert new.features.subscription_update.products is not None
        assert new.features.subscription_update.products[0].prices == [item.price.id]
        assert new.business_profile.headline is None
        assert new.metadata is not None
        assert new.metadata.to_dict() == {"a": "1", "b": "2"}
        listed = await configurations.list_async({"is_default": False})
        assert [found.id for found in listed.data] == [made.id]


@pytest.mark.parametrize(
    ("features", "param"),
    [
        ({"subscription_cancel": {"mode": "immediately"}}, "features[subscription_cancel][enabled]"),
        ({"subscription_cancel": {"enabled": True, "mode": "later"}}, "features[subscription_cancel][mode]"),
        (
            {"subscription_update": {"enabled": True, "products": [{"product": "prod_x", "prices": ["p"]}]}},
            "features[subscription_update][products][0][product]",
        ),
        (
            {
                "subscription_update": {
                    "enabled": True,
                    "schedule_at_period_end": {"conditions": [{"type": "shortening_interval"}]},
                }
            },
            "features[subscription_update][schedule_at_period_end][conditions]",
        ),
    ],
)
async def test_a_configuration_that_makes_no_sense_is_refused(features: object, param: str) -> None:
    params: Any = {"features": features}
    async with serve() as server, client(server.url) as api:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await api.v1.billing_portal.configurations.create_async(params)
        assert refused.value.param == param


async def test_the_first_page_shows_what_a_customer_has_and_lets_nobody_else_in() -> None:
    async with shop(trial_days=3) as one:
        address = await one.visit()

        page = await one.browser.get(address)

        words = texts(page.text)
        assert "MindRoom Starter" in words
        assert "$29.00 per month" in words
        assert "Trial" in words
        assert "Free until" in words
        assert "Visa •••• 4242" in words
        assert RETURN in page.text
        assert page.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<script" not in page.text
        assert (await one.browser.get(address[:-1])).status_code == 410
        assert (await one.browser.get(f"{address}/subscriptions/sub_other/cancel")).status_code == 404


async def test_an_address_works_for_minutes_until_it_is_visited_and_then_for_an_hour() -> None:
    async with shop() as one:
        visited, unvisited = await one.visit(), await one.visit()
        assert (await one.browser.get(visited)).status_code == 200

        await control(one.url, "POST", "clock", {"advance_seconds": 301})
        assert (await one.browser.get(unvisited)).status_code == 410
        assert (await one.browser.get(visited)).status_code == 200

        await control(one.url, "POST", "clock", {"advance_seconds": 3601})
        assert (await one.browser.get(visited)).status_code == 410
        assert (await one.browser.post(f"{visited}/card", data={})).status_code == 410


async def test_a_cancellation_at_the_periods_end_sets_the_date_and_can_be_taken_back() -> None:
    async with shop() as one:
        address = await one.visit()
        form = await one.browser.get(f"{address}{one.path}/cancel")
        assert "Now" in texts(form.text)

        page = await one.do(
            address, f"{one.path}/cancel", when="at_period_end", feedback="too_expensive", comment="Hm"
        )

        ending = await one.now()
        # As Stripe's portal does with flexible billing: the date, and not the flag.
        assert ending.cancel_at == ending["items"]["data"][0].current_period_end
        assert (ending.status, ending.cancel_at_period_end) == ("active", False)
        assert ending.cancellation_details is not None
        assert ending.cancellation_details.feedback == "too_expensive"
        assert ending.cancellation_details.comment == "Hm"
        assert "Ends on" in texts(page)
        assert (await one.events())[0] == "customer.subscription.updated"

        page = await one.do(address, f"{one.path}/resume")

        again = await one.now()
        assert (again.cancel_at, again.cancel_at_period_end, again.canceled_at) == (None, False, None)
        assert "Renews on" in texts(page)


async def test_a_cancellation_now_is_now() -> None:
    async with shop() as one:
        page = await one.do(await one.visit(), f"{one.path}/cancel", when="immediately")

        assert (await one.now()).status == "canceled"
        assert "customer.subscription.deleted" in await one.events()
        assert "Past subscriptions" in texts(page)


async def test_only_the_configurations_way_to_cancel_is_offered() -> None:
    async with shop() as one:
        none = await one.visit(configuration=await configuration(one, invoice_history={"enabled": True}))
        late = await one.visit(configuration=await configuration(one, subscription_cancel={"enabled": True}))

        assert "Cancel subscription" not in (await one.browser.get(none)).text
        for address in (none, late):
            refused = await one.browser.post(f"{address}{one.path}/cancel", data={"when": "immediately"})
            assert refused.status_code == 402
        assert (
            await one.browser.post(f"{none}/card", data={"card_number": "4242424242424242"})
        ).status_code == 402
        assert (await one.now()).status == "active"


async def test_a_plan_is_switched_among_the_configurations_prices() -> None:
    async with shop() as one:
        now = one.subscription["items"]["data"][0].price
        more = await new_price(one.api, "mindroom_professional_month", 9900)
        other = await new_price(one.api, "other", 100)
        sold = [{"product": price.product, "prices": [price.id]} for price in (now, more)]
        chosen = await configuration(
            one,
            subscription_update={
                "enabled": True,
                "default_allowed_updates": ["price"],
                "products": sold,
                "proration_behavior": "create_prorations",
            },
        )
        address = await one.visit(configuration=chosen)
        form = texts((await one.browser.get(f"{address}{one.path}/update")).text)
        assert "$99.00 per month ( $70.00 more per month)" in form.replace("(", "( ")

        refused = await one.browser.post(f"{address}{one.path}/update", data={"price": other.id})
        page = await one.do(address, f"{one.path}/update", price=more.id)

        assert refused.status_code == 402
        (item,) = (await one.now())["items"]["data"]
        assert item.id == one.subscription["items"]["data"][0].id
        assert item.price.id == more.id
        assert "$99.00 per month" in texts(page)
        assert "customer.subscription.updated" in await one.events()


async def test_a_new_card_is_charged_from_now_on_and_a_declined_one_is_refused() -> None:
    async with shop() as one:
        address = await one.visit()
        before = (await one.now()).default_payment_method

        declined = await one.browser.post(f"{address}/card", data={"card_number": "4000 0000 0000 0002"})
        assert declined.status_code == 402
        assert "Your card was declined." in texts(declined.text)
        assert (await one.now()).default_payment_method == before

        page = await one.do(address, "/card", card_number="5555 5555 5555 4444")

        subscription = await one.now()
        customer = await one.api.v1.customers.retrieve_async(one.customer)
        assert subscription.default_payment_method not in (before, None)
        assert customer.invoice_settings is not None
        assert customer.invoice_settings.default_payment_method == subscription.default_payment_method
        assert "Mastercard •••• 4444" in texts(page)
        assert "payment_method.attached" in await one.events()


async def test_a_card_that_wants_authentication_asks_for_it_first() -> None:
    async with shop() as one:
        address = await one.visit()
        card = {"card_number": "4000 0025 0000 3155"}

        asked = await one.browser.post(f"{address}/card", data=card)
        assert asked.status_code == 200
        assert "Complete authentication" in texts(asked.text)
        failed = await one.browser.post(f"{address}/card", data={**card, "authenticated": "no"})
        assert failed.status_code == 402

        assert "•••• 3155" in await one.do(address, "/card", **card, authenticated="yes")


async def test_an_open_invoice_is_paid_with_a_new_card() -> None:
    async with shop() as one:
        await one.do(await one.visit(), "/card", card_number="4000 0000 0000 0341")
        await control(one.url, "POST", "clock", {"advance_seconds": 32 * 86400})
        address = await one.visit()
        assert "Payment failed" in texts((await one.browser.get(address)).text)
        (owed,) = (await one.api.v1.invoices.list_async({"customer": one.customer, "status": "open"})).data

        refused = await one.browser.post(f"{address}/invoices/{owed.id}/pay")
        assert refused.status_code == 402
        assert "Your card was declined." in texts(refused.text)

        await one.do(address, "/card", card_number="4242 4242 4242 4242")
        page = await one.do(address, f"/invoices/{owed.id}/pay")

        assert "Renews on" in texts(page)
        assert (await one.now()).status == "active"
        assert (await one.api.v1.invoices.retrieve_async(owed.id)).status == "paid"


async def test_a_customer_does_nothing_to_what_is_anothers() -> None:
    async with shop() as one:
        await one.do(await one.visit(), "/card", card_number="4000 0000 0000 0341")
        await control(one.url, "POST", "clock", {"advance_seconds": 32 * 86400})
        (owed,) = (await one.api.v1.invoices.list_async({"customer": one.customer, "status": "open"})).data
        await one.do(await one.visit(), "/card", card_number="4242 4242 4242 4242")
        stranger = await one.api.v1.customers.create_async()
        address = await one.visit(customer=stranger.id)

        for path in (f"{one.path}/cancel", f"{one.path}/resume", f"/invoices/{owed.id}/pay"):
            answer = await one.browser.post(address + path, data={"when": "immediately"})
            assert answer.status_code in (402, 404)

        assert (await one.now()).status == "past_due"
        assert owed.id not in (await one.browser.get(address)).text


async def test_details_are_edited_as_far_as_the_configuration_lets() -> None:
    async with shop() as one:
        address = await one.visit(
            configuration=await configuration(
                one, customer_update={"enabled": True, "allowed_updates": ["email", "address"]}
            )
        )

        refused = await one.browser.post(f"{address}/details", data={"email": "ada"})
        await one.do(address, "/details", email="ada@new.test", name="Eve")

        assert refused.status_code == 402
        customer = await one.api.v1.customers.retrieve_async(one.customer)
        assert (customer.email, customer.name) == ("ada@new.test", None)


async def test_a_flow_leads_to_its_page_and_from_there_to_where_it_says() -> None:
    async with shop() as one:
        done = "https://app.test/bye"
        address = await one.visit(
            flow_data={
                "type": "subscription_cancel",
                "subscription_cancel": {"subscription": one.subscription.id},
                "after_completion": {"type": "redirect", "redirect": {"return_url": done}},
            }
        )
        assert "Cancel MindRoom Starter" in texts((await one.browser.get(address)).text)

        answer = await one.browser.post(address, data={"when": "at_period_end"})

        assert (answer.status_code, answer.headers["location"]) == (303, done)
        assert (await one.visit(flow_data={"type": "payment_method_update"})).endswith("/card")
        stranger = await one.api.v1.customers.create_async()
        with pytest.raises(stripe.InvalidRequestError, match="another customer"):
            await one.visit(
                customer=stranger.id,
                flow_data={
                    "type": "subscription_update",
                    "subscription_update": {"subscription": one.subscription.id},
                },
            )
