"""The catalogue is brought to Stripe by the official client, whatever interrupts or doubles it."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
import stripe
from typer.testing import CliRunner, Result

from catalogue.loader import load_catalogue
from catalogue.schema import Catalogue, Price
from provisioner.clients.stripe import StripeClient
from provisioner.purchases import sale
from sandbox.stripe_api.app import serve
from scripts.berth.app import build_app
from scripts.berth.output import CommandError
from scripts.stripe_catalogue.account import Account
from scripts.stripe_catalogue.differences import AtStripe, Difference, differences
from scripts.stripe_catalogue.push import Told, push
from scripts.stripe_catalogue.quote import make_quote
from scripts.stripe_catalogue.webhook import EVENTS, ensure_webhook
from tests.integration.stripe_tools import KEY, bought, client, control

CATALOGUE = load_catalogue()
MINDROOM = Catalogue({"mindroom": CATALOGUE.products["mindroom"]})
STARTER = "mindroom_starter_month"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serve() as server:
        yield server.url


@pytest.fixture
async def api(url: str) -> AsyncIterator[stripe.StripeClient]:
    async with client(url) as opened:
        yield opened


def dearer(cents: str) -> Catalogue:
    """MindRoom with another price for its starter plan."""
    mindroom = CATALOGUE.products["mindroom"]
    price = mindroom.plans["starter"].prices["month"].model_copy(update={"amount": Decimal(cents)})
    starter = mindroom.plans["starter"].model_copy(update={"prices": {"month": price}})
    changed = mindroom.model_copy(update={"plans": {**mindroom.plans, "starter": starter}})
    return Catalogue({"mindroom": changed})


async def sold_at(api: stripe.StripeClient, lookup_key: str) -> stripe.Price:
    (price,) = (await api.v1.prices.list_async({"lookup_keys": [lookup_key]})).data
    return price


def check_mindroom(now: AtStripe, catalogue: Catalogue = MINDROOM) -> None:
    """All of MindRoom is there, once."""
    assert differences(catalogue, now) == []
    assert len(now.products) == 3
    assert len([price for price in now.prices.values() if price.active]) == 2
    assert [portal.product for portal in now.portals] == ["mindroom"]


async def test_a_push_makes_all_and_a_second_changes_nothing(api: stripe.StripeClient) -> None:
    account = Account(api)
    done: list[Difference] = []
    assert await push(account, CATALOGUE, told=Told(lambda _: None, done.append)) == []
    assert len(done) == 27
    now = await account.read()
    assert (len(now.products), len(now.prices), len(now.portals)) == (11, 12, 4)
    assert (await sold_at(api, "synthstack_unlimited_year")).unit_amount == 35991
    events = len((await api.v1.events.list_async({"limit": 100})).data)
    assert await push(account, CATALOGUE, told=Told(lambda _: None, done.append)) == []
    assert (len(done), await account.read()) == (27, now)
    assert len((await api.v1.events.list_async({"limit": 100})).data) == events


async def test_a_changed_amount_is_a_new_price_and_who_subscribed_keeps_theirs(
    url: str, api: stripe.StripeClient
) -> None:
    await push(Account(api), MINDROOM)
    old = await sold_at(api, STARTER)
    subscription = await bought(api, old)
    await push(Account(api), dearer("35.00"))
    new = await sold_at(api, STARTER)
    archived = await api.v1.prices.retrieve_async(old.id)
    assert (new.unit_amount, new.active, new.product) == (3500, True, old.product)
    assert (archived.unit_amount, archived.active, archived.lookup_key) == (2900, False, None)
    portals = {one.product: one for one in (await Account(api).read()).portals}
    assert portals["mindroom"].settings.offers["berth_mindroom_starter"] == {new.id}
    async with StripeClient(KEY, url) as ours:
        known = await ours.fetch_subscription(subscription.id)
    assert known.items[0].lookup_key is None
    sold = sale(dearer("35.00"), known.id, known.items)
    assert (sold.purchase.product.product, sold.purchase.plan_name, sold.interval) == (
        "mindroom",
        "starter",
        "month",
    )


async def test_an_agreed_price_sells_its_plan_after_the_next_customers_took_the_lookup_key(
    url: str, api: stripe.StripeClient
) -> None:
    mindroom, paycraft = CATALOGUE.products["mindroom"], CATALOGUE.products["paycraft"]
    two = Catalogue({"mindroom": mindroom, "paycraft": paycraft})
    await push(Account(api), two)
    prices = [Price(lookup_key="x", amount=Decimal(amount)) for amount in ("499.00", "399.00", "9000.00")]
    quoted = [
        await make_quote(Account(api), mindroom, "enterprise", "month", prices[0]),
        await make_quote(Account(api), mindroom, "enterprise", "month", prices[1]),
        await make_quote(Account(api), paycraft, "enterprise", "year", prices[2]),
    ]
    assert (await sold_at(api, "mindroom_enterprise_month")).id == quoted[1]
    check = [await bought(api, await api.v1.prices.retrieve_async(price)) for price in quoted]
    async with StripeClient(KEY, url) as ours:
        found = [await ours.fetch_subscription(one.id) for one in check]
    sales = [sale(two, one.id, one.items) for one in found]
    assert [(one.purchase.product.product, one.interval) for one in sales] == [
        ("mindroom", "month"),
        ("mindroom", "month"),
        ("paycraft", "year"),
    ]
    assert differences(two, await Account(api).read(), archive=True) == []


class CutOffError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 4, 5])
async def test_a_push_cut_off_is_completed_by_the_next(api: stripe.StripeClient, after: int) -> None:
    done: list[Difference] = []

    def cut_off(difference: Difference) -> None:
        done.append(difference)
        if len(done) == after:
            raise CutOffError

    with pytest.raises(CutOffError):
        await push(Account(api), MINDROOM, told=Told(lambda _: None, cut_off))
    await push(Account(api), MINDROOM)
    check_mindroom(await Account(api).read())


async def test_a_replacement_cut_off_before_the_old_price_was_archived_is_completed(
    api: stripe.StripeClient,
) -> None:
    await push(Account(api), MINDROOM)
    old = await sold_at(api, STARTER)
    await api.v1.prices.create_async(
        {
            "product": "berth_mindroom_starter",
            "currency": "usd",
            "unit_amount": 3500,
            "recurring": {"interval": "month"},
            "lookup_key": STARTER,
            "transfer_lookup_key": True,
            "metadata": {"berth_price": "catalogue"},
        }
    )
    await push(Account(api), dearer("35.00"))
    assert not (await api.v1.prices.retrieve_async(old.id)).active
    check_mindroom(await Account(api).read(), dearer("35.00"))


async def test_pushes_at_the_same_time_make_everything_once(url: str) -> None:
    async def one(catalogue: Catalogue) -> None:
        async with client(url) as own:
            await push(Account(own), catalogue)

    await asyncio.gather(*(one(MINDROOM) for _ in range(3)))
    async with client(url) as api:
        check_mindroom(await Account(api).read())
        await asyncio.gather(*(one(dearer("35.00")) for _ in range(3)))
        now = await Account(api).read()
        check_mindroom(now, dearer("35.00"))
        assert len(now.prices) == 3, "the old and one new"


async def test_a_push_waits_when_stripe_asks_to_slow_down(url: str, api: stripe.StripeClient) -> None:
    await control(url, "POST", "faults", {"rate_limit": 1})
    await push(Account(api), MINDROOM)
    check_mindroom(await Account(api).read())


async def test_the_webhook_endpoint_is_made_once_and_follows_what_we_listen_to(
    api: stripe.StripeClient,
) -> None:
    hook = "http://127.0.0.1:9/webhooks/stripe"
    secret = await ensure_webhook(api, hook, secret_known=False)
    assert secret is not None
    (made,) = (await api.v1.webhook_endpoints.list_async()).data
    await api.v1.webhook_endpoints.update_async(made.id, {"enabled_events": ["invoice.paid"]})
    assert await ensure_webhook(api, hook, secret_known=True) is None
    (kept,) = (await api.v1.webhook_endpoints.list_async()).data
    assert (kept.id, sorted(kept.enabled_events)) == (made.id, sorted(EVENTS))
    assert await ensure_webhook(api, hook, secret_known=False) not in {None, secret}
    (anew,) = (await api.v1.webhook_endpoints.list_async()).data
    assert anew.id != made.id


async def test_the_commands_say_what_differs_and_mend_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTH_STRIPE_API_KEY", KEY)
    monkeypatch.setenv("BERTH_STRIPE_API_URL", url)
    offline = await berth("catalogue", "check", "--offline", "--json")
    assert json.loads(offline.stdout) == {"ok": True, "products": sorted(CATALOGUE.products)}
    before = await berth("catalogue", "check", "--json")
    assert (before.exit_code, len(json.loads(before.stdout)["differences"])) == (1, 27)
    plan = await berth("catalogue", "push", "--dry-run", "--json")
    assert len(json.loads(plan.stdout)["changes"]) == 27
    pushed = await berth("catalogue", "push", "--json")
    assert json.loads(pushed.stdout) == json.loads(plan.stdout) | {"dry_run": False}
    after = await berth("catalogue", "check", "--json")
    assert (after.exit_code, json.loads(after.stdout)["differences"]) == (0, [])
    unread = await berth("catalogue", "quote", "mindrom", "enterprise", "499.00")
    assert isinstance(unread.exception, CommandError)
    assert unread.exception.remedy == "did you mean 'mindroom'?"
    quote = await berth("catalogue", "quote", "mindroom", "enterprise", "499.00 eur", "--json")
    assert json.loads(quote.stdout)["price"].startswith("price_")
    hook = ["stripe", "webhook", "http://127.0.0.1:9/hook", "--secret-file", str(tmp_path / "secret")]
    assert (await berth(*hook, "--json")).exit_code == 0
    assert (tmp_path / "secret").read_text().startswith("whsec_")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "secret").unlink()
    assert "told its secret only when it was made" in str((await berth(*hook)).exception)
    assert (await berth(*hook, "--replace")).exit_code == 0


async def berth(*words: str) -> Result:
    """What `berth …` does; in a thread, for it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, build_app(), words)
