"""Every request that Berth sends to Stripe is one that Stripe's API understands, by stripe-mock's word.

Every public method of the three classes that speak to Stripe is run against a stand-in, and stripe-mock sees
what it asks. A new method, or a new call anywhere in the source, fails until it is listed here.
"""

import ast
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import httpx
import stripe
import structlog

from catalogue.loader import load_catalogue
from catalogue.schema import Catalogue, Price, Product
from platform_api.customers.queries import Customer
from platform_api.stripe_gateway import SessionRequest, StripeGateway, open_client
from provisioner.clients.stripe import StripeClient
from sandbox.stripe_api.app import serve
from scripts.stripe_catalogue.account import Account
from scripts.stripe_catalogue.push import push
from scripts.stripe_catalogue.quote import make_quote
from scripts.stripe_catalogue.webhook import ensure_webhook
from tests.integration.stripe_mock import Witness, stripe_mock, witness
from tests.integration.stripe_tools import KEY, bought, client, control

ROOT = Path(__file__).parents[2]
SOURCES = ("catalogue", "platform_api", "provisioner", "scripts")
MINDROOM = load_catalogue().products["mindroom"]
VOXFLOW = load_catalogue().products["voxflow"]
STARTER = MINDROOM.plans["starter"].prices["month"]
HOOK = "https://berth.test/webhooks/stripe"


@dataclass(frozen=True)
class Shop:
    """A stand-in with a subscriber, asked past stripe-mock."""

    url: str
    quietly: stripe.StripeClient
    subscription: stripe.Subscription
    promotion_code: str

    @property
    def customer(self) -> str:
        """Who subscribed."""
        return str(self.subscription.customer)

    async def payment(self) -> str:
        """The id of the payment intent that paid the subscription's first bill."""
        invoice = str(self.subscription.latest_invoice)
        (paid,) = (await self.quietly.v1.invoice_payments.list_async({"invoice": invoice})).data
        return str(paid.payment.payment_intent)


def session_request(shop: Shop, *, promotion_code: str | None = None) -> SessionRequest:
    return SessionRequest(
        id=str(uuid4()),
        customer_id="customer",
        stripe_customer_id=shop.customer,
        price=STARTER,
        trial_days=0 if promotion_code else 3,
        promotion_code=promotion_code,
        success_url="https://berth.test/done",
        cancel_url="https://berth.test/back",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )


async def buy(gateway: StripeGateway, shop: Shop) -> None:
    await gateway.create_session(session_request(shop))
    await gateway.create_session(session_request(shop, promotion_code=shop.promotion_code))


async def look_at_a_session(gateway: StripeGateway, shop: Shop) -> None:
    await gateway.session((await gateway.create_session(session_request(shop))).id)


async def end_a_session(gateway: StripeGateway, shop: Shop) -> None:
    opened = await gateway.create_session(session_request(shop))
    assert (await gateway.end_session(opened.id)).status == "expired"


async def look_for_codes(gateway: StripeGateway, _: Shop) -> None:
    assert await gateway.promotion_codes("FRIEND", only_active=True)
    assert await gateway.promotion_codes("FRIEND", only_active=False)


async def open_the_portal(gateway: StripeGateway, shop: Shop) -> None:
    for product in (None, "mindroom", "unknown"):
        await gateway.open_portal(shop.customer, product, "https://berth.test/")


ADA = Customer("id", "ada@example.com", "Ada", None, datetime.now(UTC), None)
GATEWAY: Mapping[str, Callable[[StripeGateway, Shop], Awaitable[object]]] = {
    "create_customer": lambda gateway, _: gateway.create_customer(ADA, "chk_1"),
    "create_session": buy,
    "end_session": end_a_session,
    "open_portal": open_the_portal,
    "promotion_codes": look_for_codes,
    "session": look_at_a_session,
    "subscriptions": lambda gateway, shop: gateway.subscriptions(shop.customer),
}


async def list_subscriptions(fetcher: StripeClient, shop: Shop) -> None:
    assert [one.id async for one in fetcher.list_subscriptions()] == [shop.subscription.id]


async def list_events(fetcher: StripeClient, _: Shop) -> None:
    now = datetime.now(UTC)
    for until in (None, now + timedelta(seconds=5)):
        pages = fetcher.list_events(now - timedelta(hours=1), until, ["invoice.paid", "charge.refunded"])
        assert sum([len(page) async for page in pages]) > 0


async def fetch_an_event(fetcher: StripeClient, shop: Shop) -> None:
    await fetcher.fetch_event((await shop.quietly.v1.events.list_async()).data[0].id)


async def fetch_a_subscription(fetcher: StripeClient, shop: Shop) -> None:
    await fetcher.fetch_subscription(shop.subscription.id)
    await control(shop.url, "POST", f"subscriptions/{shop.subscription.id}", {"status": "past_due"})
    await fetcher.fetch_subscription(shop.subscription.id)  # asks for its bills too


async def fetch_a_charge(fetcher: StripeClient, shop: Shop) -> None:
    paid = await shop.quietly.v1.payment_intents.retrieve_async(await shop.payment())
    assert not (await fetcher.fetch_charge(str(paid.latest_charge))).refunded


async def look_whose_payment(fetcher: StripeClient, shop: Shop) -> None:
    assert await fetcher.subscriptions_paid_by(await shop.payment()) == {shop.subscription.id}


FETCHER: Mapping[str, Callable[[StripeClient, Shop], Awaitable[object]]] = {
    "fetch_charge": fetch_a_charge,
    "fetch_event": fetch_an_event,
    "fetch_subscription": fetch_a_subscription,
    "list_events": list_events,
    "list_subscriptions": list_subscriptions,
    "subscriptions_paid_by": look_whose_payment,
}


def at(price: Price) -> Product:
    """MindRoom with another price for its starter plan."""
    starter = MINDROOM.plans["starter"].model_copy(update={"prices": {"month": price}})
    return MINDROOM.model_copy(update={"plans": {**MINDROOM.plans, "starter": starter}})


async def push_and_quote(api: stripe.StripeClient, shop: Shop) -> None:
    account = Account(api)
    await make_quote(
        account,
        MINDROOM,
        "enterprise",
        "month",
        Price(lookup_key="mindroom_enterprise_month", amount=Decimal("499.00")),
    )
    prices = await shop.quietly.v1.prices.list_async({"lookup_keys": [str(STARTER.lookup_key)]})
    product = str(prices.data[0].product)
    agreed = await account.create_agreed_price(product, 1000, "usd", "month", None)
    await shop.quietly.v1.products.update_async(product, {"name": "Another"})
    dearer = STARTER.model_copy(update={"amount": Decimal("31.00")})
    named = Price(id=agreed, amount=Decimal("10.00"))
    for products in ({"mindroom": at(dearer)}, {}, {"mindroom": at(named)}, {"voxflow": VOXFLOW}):
        await push(account, Catalogue(products), archive=True)


async def set_the_webhook(api: stripe.StripeClient, shop: Shop) -> None:
    assert await ensure_webhook(api, HOOK, secret_known=False)
    (ours,) = (await shop.quietly.v1.webhook_endpoints.list_async()).data
    await shop.quietly.v1.webhook_endpoints.update_async(ours.id, {"enabled_events": ["*"]})
    assert await ensure_webhook(api, HOOK, secret_known=True) is None
    assert await ensure_webhook(api, HOOK, secret_known=False)


ACCOUNT = {"apply", "create_agreed_price", "read"}
"""The methods of Account that `push_and_quote` runs."""


def test_every_method_that_speaks_to_stripe_is_run() -> None:
    for speaker, run in ((StripeGateway, set(GATEWAY)), (StripeClient, set(FETCHER)), (Account, ACCOUNT)):
        public = {name for name, _ in inspect.getmembers(speaker, inspect.isfunction) if name[0] != "_"}
        assert public == run, speaker


async def test_stripe_mock_understands_every_request_of_ours(tmp_path: Path) -> None:
    async with (
        serve() as server,
        client(server.url) as quietly,
        witness(server.url, tmp_path) as (url, watching),
        open_client(KEY, url) as for_gateway,
        StripeClient(KEY, url) as fetcher,
        client(url) as api,
    ):
        shop = await open_shop(server.url, quietly)
        gateway = StripeGateway(for_gateway, structlog.stdlib.get_logger())
        for name, use in GATEWAY.items():
            await heard(watching, name, use(gateway, shop))
        for name, fetch in FETCHER.items():
            await heard(watching, name, fetch(fetcher, shop))
        await heard(watching, "push", push_and_quote(api, shop))
        await heard(watching, "webhook", set_the_webhook(api, shop))

    refused = {one for one in watching.shown if one.refusal is not None}
    assert not refused
    asked = {(one.method, one.path) for one in watching.shown}
    unheard = [call for call, ways in called() if not any(matches(way, asked) for way in ways)]
    assert not unheard, "these calls in the source were not made: run them above"


async def heard(watching: Witness, name: str, use: Awaitable[object]) -> None:
    """Do something that must ask Stripe."""
    before = len(watching.shown)
    await use
    assert len(watching.shown) > before, f"{name} asked nothing"


async def open_shop(url: str, quietly: stripe.StripeClient) -> Shop:
    """A stand-in that sells MindRoom, and has sold it once."""
    await push(Account(quietly), Catalogue({"mindroom": MINDROOM}))
    prices = await quietly.v1.prices.list_async({"lookup_keys": [str(STARTER.lookup_key)]})
    coupon = await quietly.v1.coupons.create_async({"percent_off": 10, "duration": "once"})
    code = await quietly.v1.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "FRIEND"}
    )
    return Shop(url, quietly, await bought(quietly, prices.data[0]), code.id)


Way = tuple[str, str]
"""A method of HTTP and a path with placeholders."""


def called() -> Iterator[tuple[str, set[Way]]]:
    """Each call of the official client in the source, with what it may ask for."""
    known = dict(offered(stripe.StripeClient("sk_test_none").v1))
    for file in (file for folder in SOURCES for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            chain = chain_of(node)
            # What follows `v1`; of a part that is kept under another name, all that ends alike.
            _, asked, end = ".".join(chain).replace("_v1.", "v1.").rpartition("v1.")
            if not asked and not end.endswith("_async"):
                continue
            end = end if asked else ".".join(chain[-2:])
            ways = {
                way
                for path, way in known.items()
                if f".{path}".endswith(f".{end}") and (path == end or not asked)
            }
            if ways:
                yield f"{file.relative_to(ROOT)}: {'.'.join(chain)}", ways
            else:
                assert not end.endswith("_async") or chain[-1] == "close_async", (file, chain)


def chain_of(node: ast.AST) -> list[str]:
    """`["self", "_v1", "prices", "list_async"]` for an attribute of that."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    if names and isinstance(node, ast.Name):
        return [node.id, *names]
    return []


def offered(service: object, path: str = "") -> Iterator[tuple[str, Way]]:
    """What the official client can ask for: `("prices.list_async", ("GET", "/v1/prices"))`."""
    for name, member in inspect.getmembers(service):
        if inspect.ismethod(member) and name[0] != "_":
            asked = re.search(r'_request(?:_async)?\(\s*"(\w+)",\s*"([^"]+)"', inspect.getsource(member))
            if asked is not None:
                yield f"{path}{name}", (asked[1].upper(), asked[2])
    for name in getattr(type(service), "__annotations__", {}) or {}:
        yield from offered(getattr(service, name), f"{path}{name}.")


def matches(way: Way, asked: set[tuple[str, str]]) -> bool:
    """Whether one of the requests asked for this."""
    pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", way[1]))
    return any(method == way[0] and pattern.fullmatch(path) for method, path in asked)


async def test_the_check_itself_finds_faults(tmp_path: Path) -> None:
    async with stripe_mock(tmp_path) as mock, httpx.AsyncClient(base_url=mock, trust_env=False) as http:
        http.headers["Authorization"] = f"Bearer {KEY}"
        for form, status in (
            ({"customer": "cus_1"}, 200),
            ({"customer": "cus_1", "colour": "red"}, 400),
            ({"customer": "cus_1", "flow_data[type]": "payment_method_update"}, 200),
            ({"customer": "cus_1", "flow_data[type]": "payment_method_update", "flow_data[x]": "1"}, 400),
            ({"customer": "cus_1", "flow_data[type]": "dance"}, 400),
        ):
            answer = await http.post("/v1/billing_portal/sessions", data=form)
            assert answer.status_code == status, (form, answer.text)
