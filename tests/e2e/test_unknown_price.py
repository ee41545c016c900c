"""A price no plan names: nothing changes, a person is told what to do, and doing it completes the work."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.demo.services import stripe_client
from tests.e2e.conftest import StartBerth
from tests.e2e.harness import Berth, Row, until
from tests.e2e.test_conditions import MINDROOM

pytestmark = pytest.mark.cluster


async def test_an_unknown_price_parks_with_its_remedy_and_queue_retry_completes_it(
    start_berth: StartBerth, tmp_path: Path
) -> None:
    catalogue = tmp_path / "catalogue"
    catalogue.mkdir()
    product = yaml.safe_load(MINDROOM.read_text(encoding="utf-8"))
    (catalogue / "mindroom.yaml").write_text(yaml.safe_dump(product), encoding="utf-8")
    async with start_berth(BERTH_CATALOGUE_DIR=str(catalogue)) as berth:
        await berth.services.start()
        await berth.buy("acme")
        [before] = await berth.wait_ready()
        price = await subscribe_to_unlisted_price(berth, before["subscription_id"])

        parked = await until(lambda: parked_item(berth), 30, berth.describe)
        assert price in parked["last_error"]
        assert "catalogue/" in parked["last_error"]
        assert await berth.instances() == [before]

        product["plans"]["professional"]["prices"]["month"] = {"id": price}
        (catalogue / "mindroom.yaml").write_text(yaml.safe_dump(product), encoding="utf-8")
        retry = await berth_command(
            berth, "queue", "retry", "subscription", before["subscription_id"], "--json"
        )
        assert json.loads(retry)["retried"] is True

        async def moved() -> bool | None:
            [row] = await berth.instances()
            return True if row["plan"] == "professional" and row["phase"] == "ready" else None

        await until(moved, 60, berth.describe)


async def subscribe_to_unlisted_price(berth: Berth, subscription_id: str) -> str:
    """Move the subscription to a price made by hand at Stripe; return the price's id."""
    async with stripe_client(berth.services.stripe_url) as stripe:
        subscription = await stripe.v1.subscriptions.retrieve_async(subscription_id)
        item = subscription["items"]["data"][0]
        price = await stripe.v1.prices.create_async(
            {
                "product": item["price"]["product"],
                "currency": "usd",
                "unit_amount": 1234,
                "recurring": {"interval": "month"},
            }
        )
        await stripe.v1.subscriptions.update_async(
            subscription_id, {"items": [{"id": item["id"], "price": price.id}]}
        )
    return price.id


async def parked_item(berth: Berth) -> Row | None:
    rows = await berth.rows("SELECT * FROM work_item WHERE parked_at IS NOT NULL")
    return rows[0] if rows else None


async def berth_command(berth: Berth, *words: str) -> str:
    """Run `berth …` against the platform's database and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("berth"),
        *words,
        env=os.environ | berth.services.environment(),
        stdout=subprocess.PIPE,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return printed.decode()
