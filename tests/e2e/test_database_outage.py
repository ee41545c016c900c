"""The database is away while Stripe delivers: nothing is lost, and the work is done once it is back."""

import httpx
import pytest

from scripts.demo import customers
from scripts.demo.customers import Buyer
from tests.conftest import PostgresServer
from tests.e2e.conftest import StartBerth
from tests.e2e.harness import until

pytestmark = pytest.mark.cluster


async def test_an_event_refused_for_want_of_a_database_is_retried_and_processed(
    start_berth: StartBerth, postgres_server: PostgresServer
) -> None:
    buyer = Buyer("acme", "acme@customers.example", "acme", "mindroom", "starter")
    async with start_berth() as berth, httpx.AsyncClient(timeout=10) as web:
        await berth.services.start()
        account = await customers.sign_up(berth.api, buyer)
        url = await customers.open_checkout(berth.api, account)
        postgres_server.stop()
        try:
            await customers.pay(web, account, url)

            async def refused() -> bool | None:
                answer = await web.get(f"{berth.services.stripe_url}/_sandbox/deliveries")
                attempts = [attempt for each in answer.json()["data"] for attempt in each["attempts"]]
                return True if any(attempt["status"] == 503 for attempt in attempts) else None

            async def nothing_to_say() -> str:
                return "no delivery was answered with 503"

            await until(refused, 30, nothing_to_say)
        finally:
            postgres_server.start()
        [instance] = await berth.wait_ready()
        assert instance["slug"] == "acme"
