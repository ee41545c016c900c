import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import stripe

from sandbox.stripe_api.app import serve
from tests.integration.platform_api_support import Api, make_settings, running_api

PORTAL = "/v1/billing/portal"


@dataclass(frozen=True)
class Shop:
    """An API and the stand-in it sells at."""

    api: Api
    url: str
    client: stripe.StripeClient

    async def buyer(self, status: str = "active") -> tuple[str, dict[str, str]]:
        """A customer who bought something, as far as we know; returns their Stripe id and headers."""
        customer, headers = await self.api.sign_up()
        made = await self.client.v1.customers.create_async({"email": f"{customer}@example.com"})
        await self.api.rows("UPDATE customer SET stripe_customer_id = %s WHERE id = %s", made.id, customer)
        await self.api.rows(
            "INSERT INTO subscription (id, customer_id, product, plan, interval, price_id, status)"
            " VALUES (%s, %s, 'mindroom', 'starter', 'month', 'price_1', %s)",
            f"sub_{customer}",
            customer,
            status,
        )
        return made.id, headers

    async def configure(self, product: str) -> str:
        """A portal configuration as `berth catalogue push` makes one."""
        made = await self.client.v1.billing_portal.configurations.create_async(
            {
                "features": {"subscription_cancel": {"enabled": True}},
                "metadata": {"berth_product": product},
            }
        )
        return made.id

    async def configurations_used(self) -> list[str]:
        """The configuration of each portal session that was opened, oldest first."""
        found = await self.client.v1.events.list_async(
            {"type": "billing_portal.session.created", "limit": 100}
        )
        return [str(event.data.object["configuration"]) for event in reversed(found.data)]

    async def link(self, stripe_customer: str, lives: str = "30 days") -> str:
        """The address in an e-mail to the customer."""
        token = secrets.token_urlsafe(32)
        await self.api.rows(
            "INSERT INTO portal_link (token_sha256, customer_id, expires_at)"
            " SELECT %s, id, now() + %s::interval FROM customer WHERE stripe_customer_id = %s",
            hashlib.sha256(token.encode()).digest(),
            lives,
            stripe_customer,
        )
        return f"/billing/portal/{token}"


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    transport = stripe.HTTPXClient(timeout=10)
    async with serve() as server, running_api(make_settings(database_url, server.url)) as api:
        client = stripe.StripeClient(
            "sk_test_portal", base_addresses={"api": server.url}, http_client=transport
        )
        yield Shop(api, server.url, client)
    await transport.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


async def test_the_portal_is_the_customers_and_configured_for_what_they_pay_for(shop: Shop) -> None:
    _, headers = await shop.buyer()
    default = (await shop.client.v1.billing_portal.configurations.list_async()).data[0].id
    mindroom, voxflow = await shop.configure("mindroom"), await shop.configure("voxflow")

    async def used(*bodies: dict[str, str] | None) -> list[str]:
        before = len(await shop.configurations_used())
        for body in bodies:
            answer = await shop.api.client.post(PORTAL, json=body, headers=headers)
            assert answer.status_code == 201, answer.text
            assert answer.json()["url"].startswith(f"{shop.url}/p/session/")
        return (await shop.configurations_used())[before:]

    asked: list[dict[str, str]] = [{}, {"product": "mindroom"}, {"product": "voxflow"}]
    # In another product's portal they could switch to its cheapest plan, and go on with what they have.
    assert await used(None, *asked) == [mindroom] * 4
    bought = "UPDATE subscription SET status = 'canceled' RETURNING customer_id"
    [(customer,)] = await shop.api.rows(bought)
    assert await used(*asked) == [mindroom, mindroom, voxflow]
    for id_, product in (("sub_2", "voxflow"), ("sub_3", "mindroom")):
        await shop.api.rows(
            "INSERT INTO subscription (id, customer_id, product, plan, status)"
            " VALUES (%s, %s, %s, 'pro', 'past_due')",
            id_,
            customer,
            product,
        )
        wanted = {"sub_2": [voxflow] * 3, "sub_3": [default, mindroom, voxflow]}
        assert await used(*asked) == wanted[id_]


async def test_a_configuration_that_was_replaced_stops_nobody(shop: Shop) -> None:
    _, headers = await shop.buyer()
    old = await shop.configure("mindroom")
    await shop.api.client.post(PORTAL, headers=headers)
    await shop.client.v1.billing_portal.configurations.update_async(old, {"active": False})
    new = await shop.configure("mindroom")
    assert (await shop.api.client.post(PORTAL, headers=headers)).status_code == 201
    assert await shop.configurations_used() == [old, new]


async def test_who_bought_nothing_has_no_portal(shop: Shop) -> None:
    _, headers = await shop.api.sign_up()
    stranger = await shop.api.client.post(PORTAL, headers=headers)
    assert (stranger.status_code, stranger.json()["type"]) == (409, "urn:berth:problem:nothing-bought")
    _, headers = await shop.buyer()
    await shop.api.rows("DELETE FROM subscription")
    only_looked = await shop.api.client.post(PORTAL, headers=headers)
    assert only_looked.status_code == 409
    assert "checkout" in only_looked.json()["detail"]
    assert await shop.configurations_used() == []


async def test_the_portal_is_asked_for_by_what_is_sold_and_by_nothing_else(shop: Shop) -> None:
    _, headers = await shop.buyer()
    unknown = await shop.api.client.post(PORTAL, json={"product": "mindrom"}, headers=headers)
    assert (unknown.status_code, "mindroom" in unknown.json()["detail"]) == (400, True)
    for refused in ({"customer": "cus_other"}, {"return_url": "https://evil.example"}):
        assert (await shop.api.client.post(PORTAL, json=refused, headers=headers)).status_code == 422
    assert (await shop.api.client.post(PORTAL)).status_code == 401


async def test_the_link_in_an_e_mail_opens_its_customers_portal_every_time(shop: Shop) -> None:
    customer, _ = await shop.buyer("past_due")
    link = await shop.link(customer)
    opened = [await shop.api.client.get(link) for _ in range(2)]
    for answer in opened:
        assert answer.status_code == 303
        assert answer.headers["location"].startswith(f"{shop.url}/p/session/")
        assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == (
            "no-store",
            "no-referrer",
        )
    assert opened[0].headers["location"] != opened[1].headers["location"]


async def test_a_link_that_is_only_checked_opens_nothing(shop: Shop) -> None:
    link = await shop.link((await shop.buyer())[0])
    answer = await shop.api.client.head(link)
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, b"", "no-store")
    assert await shop.configurations_used() == []


async def test_a_link_that_does_not_work_says_on_a_page_what_to_do(shop: Shop) -> None:
    expired = await shop.link((await shop.buyer())[0], lives="-1 second")
    for link, status, said in (
        (expired, 410, "expired"),
        (f"/billing/portal/{secrets.token_urlsafe(32)}", 404, "e-mail again"),
        ("/billing/portal/%3Cscript%3E", 404, "e-mail again"),
    ):
        answer = await shop.api.client.get(link)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert (said in answer.text, "script" in answer.text) == (True, False)
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert (await shop.api.client.head(link)).status_code == status
    assert await shop.configurations_used() == []


async def test_a_links_token_is_in_no_log(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    link = await shop.link((await shop.buyer())[0])
    await shop.api.client.get(link)
    await shop.api.rows("ALTER TABLE portal_link RENAME TO gone")
    assert (await shop.api.client.get(link)).status_code == 500
    logged = "".join(capsys.readouterr())
    assert "/billing/portal/{token}" in logged
    assert link.removeprefix("/billing/portal/") not in logged
