"""A person with a browser: pays on the hosted page, and opens what they bought."""

import pytest
from playwright.async_api import Page, expect

from scripts.demo import customers
from scripts.demo.customers import Account, Buyer
from tests.e2e.browser import open_page
from tests.e2e.conftest import StartBerth
from tests.e2e.harness import Berth, until

pytestmark = [pytest.mark.cluster, pytest.mark.real_pods]
SECONDS = 30.0


async def test_a_person_pays_in_a_browser_and_sees_their_instance_answer(start_berth: StartBerth) -> None:
    async with start_berth(simulated=False) as berth, open_page() as page:
        await berth.services.start()
        account = await _pay(berth, page)
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        await berth.wait_ready()
        url = berth.services.outside.apps_url.replace("{slug}", "acme")

        async def answers() -> bool | None:
            """As a person does: reload until the ingress knows the new name."""
            response = await page.goto(url)
            return True if response is not None and response.ok else None

        await until(answers, SECONDS, berth.describe)
        await expect(page.locator("body")).to_contain_text("starter", ignore_case=True)

        await page.goto(await _portal(berth, account))
        await page.get_by_role("link", name="Switch plan").click()
        await page.get_by_label("Professional").check()
        await page.get_by_role("button", name="Switch plan").click()
        await expect(page.get_by_role("status")).to_be_visible()
        await page.get_by_role("link", name="Cancel subscription").click()
        await page.get_by_role("button", name="Cancel subscription").click()
        await expect(page.get_by_role("button", name="Don't cancel")).to_be_visible()

        async def follows() -> bool | None:
            [row] = await berth.rows(
                "SELECT i.plan, s.cancel_at_period_end FROM instance i JOIN subscription s"
                " ON s.id = i.subscription_id"
            )
            return True if row == {"plan": "professional", "cancel_at_period_end": True} else None

        await until(follows, SECONDS, berth.describe)


async def _portal(berth: Berth, account: Account) -> str:
    answer = await berth.api.post("/v1/billing/portal", headers={"Authorization": f"Bearer {account.token}"})
    return str(answer.raise_for_status().json()["url"])


async def _pay(berth: Berth, page: Page) -> Account:
    account = await customers.sign_up(
        berth.api, Buyer("Acme", "anna@acme.example", "acme", "mindroom", "starter")
    )
    await page.goto(await customers.open_checkout(berth.api, account))
    await expect(page.locator("body")).to_contain_text("$29.00")
    card, pay = page.get_by_label("Card number"), page.get_by_role("button", name="Start trial")
    await card.fill("4000 0000 0000 0002")
    await pay.click()
    await expect(page.get_by_role("alert")).to_contain_text("declined")
    await card.fill("4242 4242 4242 4242")
    await pay.click()
    return account
