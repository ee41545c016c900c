"""Every object the stand-in returns or sends fits the schema in Stripe's own OpenAPI document.

The document ships inside the Go module stripe-mock, pinned in sandbox/go/stripe-mock.
"""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import stripe

from sandbox.stripe_api.api import operations
from sandbox.stripe_api.app import serve
from tests.integration.stripe_time import (
    DAY,
    START,
    advance,
    new_clock,
    new_customer,
    pays_with,
    subscribe,
)
from tests.integration.stripe_tools import KEY, bought, client, control, new_price, open_session, pay

MODULE = Path(__file__).parents[2] / "sandbox/go/stripe-mock"
OURS_ONLY = frozenset({"type@product"})
"""Fields Stripe answers though its document does not list them."""


def openapi_document() -> dict[str, Any]:
    go = shutil.which("go")
    assert go is not None, "Go is needed to fetch Stripe's OpenAPI document: install Go 1.26 or newer"
    command = [go, "mod", "download", "-json", "github.com/stripe/stripe-mock"]
    told = subprocess.run(command, cwd=MODULE, check=True, capture_output=True, timeout=120)
    document = Path(json.loads(told.stdout)["Dir"]) / "embedded/openapi/spec3.json"
    found: dict[str, Any] = json.loads(document.read_bytes())
    return found


def as_json_schema(node: Any) -> Any:  # noqa: ANN401  # any JSON
    """OpenAPI 3.0's `nullable` said in JSON Schema's words; formats and annotations left out."""
    if isinstance(node, list):
        return [as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    known = {"$ref", "additionalProperties", "anyOf", "enum", "items", "maxLength", "required", "type"}
    schema = {name: as_json_schema(value) for name, value in node.items() if name in known}
    if "properties" in node:
        schema["properties"] = {name: as_json_schema(value) for name, value in node["properties"].items()}
    if node.get("nullable"):
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


class Contract:
    """Stripe's schemas, by the `object` field of what they describe."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.paths: dict[str, Any] = document["paths"]
        self._schemas = document["components"]["schemas"]
        self._root = {
            "components": {
                "schemas": {name: as_json_schema(schema) for name, schema in self._schemas.items()}
            }
        }

    def faults(self, found: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON
        """What is wrong with each Stripe object within an answer, sub-objects included."""
        if isinstance(found, list):
            for item in found:
                yield from self.faults(item)
        if not isinstance(found, dict):
            return
        kind = found.get("object")
        if isinstance(kind, str) and kind not in ("list", "search_result"):
            yield from self._object_faults(kind, found)
        for value in found.values():
            yield from self.faults(value)

    def _object_faults(self, kind: str, found: dict[str, Any]) -> Iterator[str]:
        name = f"deleted_{kind}" if found.get("deleted") else kind
        schema = {**self._root, "$ref": f"#/components/schemas/{name}"}
        for error in jsonschema.Draft202012Validator(schema).iter_errors(found):
            yield f"{kind} {error.json_path}: {error.message[:200]}"
        listed = self._schemas[name]["properties"]
        for field in found.keys() - listed.keys():
            if f"{field}@{kind}" not in OURS_ONLY:
                yield f"{kind}.{field}: Stripe has no such field"


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(openapi_document())


STATUSES = ("past_due", "paused", "incomplete", "unpaid", "active", "incomplete_expired", "trialing")
NEEDED = {"/v1/payment_methods": ("customer",), "/v1/subscription_items": ("subscription",)}
"""By path, what a list cannot do without."""
EXPANSIONS = {
    "/v1/charges": ("data.customer", "data.payment_intent", "data.refunds"),
    "/v1/billing_portal/configurations": ("data.features.subscription_update.products",),
    "/v1/checkout/sessions": (
        "data.customer",
        "data.subscription.latest_invoice",
        "data.line_items",
        "data.discounts.promotion_code",
    ),
    "/v1/customers": ("data.subscriptions",),
    "/v1/disputes": ("data.charge", "data.payment_intent"),
    "/v1/payment_intents": ("data.customer", "data.latest_charge", "data.payment_method"),
    "/v1/invoice_payments": ("data.invoice", "data.payment.payment_intent"),
    "/v1/invoiceitems": ("data.invoice", "data.customer"),
    "/v1/invoices": (
        "data.confirmation_secret",
        "data.discounts",
        "data.parent.subscription_details.subscription",
        "data.payments",
        "data.test_clock",
    ),
    "/v1/prices": ("data.product",),
    "/v1/promotion_codes": ("data.promotion.coupon",),
    "/v1/refunds": ("data.charge", "data.payment_intent"),
    "/v1/subscriptions": (
        "data.default_payment_method",
        "data.discounts.promotion_code",
        "data.discounts.source.coupon",
        "data.latest_invoice.payments",
        "data.test_clock",
    ),
}


@dataclass(frozen=True)
class Caller:
    """Calls the API without the official client, which would hide what it does not know."""

    http: httpx.AsyncClient

    async def ask(self, method: str, path: str, data: Mapping[str, str] | None = None) -> dict[str, Any]:
        query, form = (None, data) if method == "POST" else (data, None)
        answer = await self.http.request(method, path, params=query, data=form)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def stock(api: stripe.StripeClient, endpoint: str) -> dict[str, str]:
    """Make one of everything; returns the ids by their names in the paths."""
    price = await new_price(api)
    trial = await bought(api, price, subscription_data={"trial_period_days": 3})
    paid = await bought(api, price)
    opened = await open_session(api, price.id)
    expired = await open_session(api, price.id)
    await api.v1.checkout.sessions.expire_async(expired.id)
    configuration = (await api.v1.billing_portal.configurations.list_async()).data[0]
    return {
        "configuration": configuration.id,
        "customer": str(trial.customer),
        "endpoint": endpoint,
        "event": (await api.v1.events.list_async({"limit": 1})).data[0].id,
        "invoice": str(paid.latest_invoice),
        "payment_method": str(trial.default_payment_method),
        "price": price.id,
        "product": str(price.product),
        "session": opened.id,
        "subscription": trial.id,
        **await money(api, str(trial.customer), price.id),
        **await passing_time(api, price.id),
    }


async def money(api: stripe.StripeClient, customer: str, price: str) -> dict[str, str]:
    """Payments that succeed, are disputed, decline and wait, a refund, and a discount on a subscription."""
    coupon = await api.v1.coupons.create_async({"percent_off": 25, "name": "Spring", "duration": "forever"})
    promotion = await api.v1.promotion_codes.create_async(
        {"promotion": {"type": "coupon", "coupon": coupon.id}}
    )
    session = await open_session(api, price, customer, discounts=[{"promotion_code": promotion.id}])
    assert (await pay(session)).status_code == 303
    await api.v1.coupons.create_async({"amount_off": 5, "currency": "usd", "duration": "forever"})
    intents = {}
    for card in (
        "visa",
        "createDispute",
        "authenticationRequired",
        "threeDSecure2Required",
        "chargeDeclined",
    ):
        with suppress(stripe.CardError):
            made = await api.v1.payment_intents.create_async(
                {"amount": 1000, "currency": "usd", "payment_method": f"pm_card_{card}", "confirm": True}
            )
            intents[card] = made.id
    await api.v1.payment_intents.cancel_async(intents["authenticationRequired"])
    refund = await api.v1.refunds.create_async({"payment_intent": intents["visa"], "amount": 1})
    dispute = (await api.v1.disputes.list_async()).data[0]
    return {
        "charge": str(refund.charge),
        "coupon": coupon.id,
        "dispute": dispute.id,
        "intent": intents["visa"],
        "waiting_intent": intents["threeDSecure2Required"],
        "promotion_code": promotion.id,
        "refund": refund.id,
    }


async def passing_time(api: stripe.StripeClient, price: str) -> dict[str, str]:
    """What renewals, failed payments, authentications, prorations and the end of a trial leave behind."""
    clock = await new_clock(api)
    customer = await new_customer(api, clock)
    paying = await subscribe(api, customer, price)
    item = paying["items"].data[0].id
    authenticated = await pays_with(api, customer, "pm_card_authenticationRequired")
    waiting = await subscribe(api, customer, price, default_payment_method=authenticated)
    await api.v1.invoices.void_invoice_async(str(waiting.latest_invoice))
    untried = await subscribe(api, customer, price, payment_behavior="default_incomplete")
    await api.v1.invoices.mark_uncollectible_async(str(untried.latest_invoice))
    trying = await new_customer(api, clock, card=None)
    pause: Any = {"end_behavior": {"missing_payment_method": "pause"}}
    paused = await subscribe(api, trying, price, trial_period_days=5, trial_settings=pause)
    await advance(api, clock, START + 15 * DAY)
    await api.v1.subscription_items.update_async(item, {"quantity": 3})
    await pays_with(api, customer, "pm_card_chargeCustomerFail")
    await advance(api, clock, START + 40 * DAY)
    await pays_with(api, trying, "pm_card_visa")
    await api.v1.subscriptions.resume_async(paused.id)
    await api.v1.customers.delete_async(trying)
    payments = await api.v1.invoice_payments.list_async()
    waiting_items = await api.v1.invoice_items.list_async()
    return {
        "clock": clock,
        "invoice_payment": payments.data[0].id,
        "invoiceitem": waiting_items.data[0].id,
        "item": item,
    }


async def reads(caller: Caller, ids: Mapping[str, str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Every GET there is, and lists with what they can expand."""
    for operation in operations():
        if operation.method == "GET":
            needed = {name: ids[name] for name in NEEDED.get(operation.path, ())}
            if operation.path.endswith("/search"):
                needed = {"query": "-metadata['a']:'b'"}
            yield operation.path, await caller.ask("GET", operation.path.format(**ids), needed)
    for path, names in EXPANSIONS.items():
        query = {f"expand[{position}]": name for position, name in enumerate(names)}
        yield f"{path} expanded", await caller.ask("GET", path, query)


async def changes(
    url: str, caller: Caller, ids: Mapping[str, str]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A change of everything, and then all events."""
    subscription = f"subscriptions/{ids['subscription']}"
    for status in STATUSES:
        yield status, await control(url, "POST", subscription, {"status": status})
    plan = "features[subscription_update][products][0]"
    for method, path, data in (
        (
            "POST",
            f"/v1/billing_portal/configurations/{ids['configuration']}",
            {
                f"{plan}[product]": ids["product"],
                f"{plan}[prices][0]": ids["price"],
                "expand[0]": "features.subscription_update.products",
            },
        ),
        (
            "POST",
            "/v1/billing_portal/sessions",
            {
                "customer": ids["customer"],
                "flow_data[type]": "subscription_update",
                "flow_data[subscription_update][subscription]": ids["subscription"],
                "expand[0]": "configuration",
            },
        ),
        (
            "POST",
            "/v1/invoices/create_preview",
            {"subscription": ids["subscription"], "expand[0]": "discounts"},
        ),
        ("POST", f"/v1/invoices/{ids['invoice']}", {"description": "Thank you"}),
        ("POST", f"/v1/payment_intents/{ids['waiting_intent']}", {"amount": "1001"}),
        ("POST", f"/v1/refunds/{ids['refund']}", {"metadata[a]": "b"}),
        (
            "POST",
            f"/v1/disputes/{ids['dispute']}",
            {"evidence[uncategorized_text]": "winning_evidence", "submit": "false"},
        ),
        ("POST", f"/v1/disputes/{ids['dispute']}/close", None),
        ("POST", f"/v1/{subscription}", {"cancel_at": "min_period_end"}),
        ("POST", f"/v1/{subscription}", {"cancel_at_period_end": "true"}),
        ("DELETE", f"/v1/{subscription}", None),
        ("POST", f"/v1/prices/{ids['price']}", {"active": "false"}),
        ("POST", f"/v1/products/{ids['product']}", {"name": "Other"}),
        ("POST", f"/v1/customers/{ids['customer']}", {"name": "Ada", "address[city]": "Bern"}),
        ("POST", f"/v1/payment_methods/{ids['payment_method']}", {"billing_details[name]": "Ada"}),
        ("POST", f"/v1/payment_methods/{ids['payment_method']}/detach", None),
        ("POST", f"/v1/promotion_codes/{ids['promotion_code']}", {"active": "false"}),
        ("DELETE", f"/v1/coupons/{ids['coupon']}", None),
        ("POST", f"/v1/webhook_endpoints/{ids['endpoint']}", {"disabled": "true"}),
        ("DELETE", f"/v1/webhook_endpoints/{ids['endpoint']}", None),
        ("DELETE", f"/v1/test_helpers/test_clocks/{ids['clock']}", None),
    ):
        yield f"{method} {path}", await caller.ask(method, path, data)
    async for page in events(caller):
        yield "events", page


async def events(caller: Caller) -> AsyncIterator[dict[str, Any]]:
    """All that happened, page by page."""
    query = {"limit": "100"}
    while True:
        page = await caller.ask("GET", "/v1/events", query)
        yield page
        if not page["has_more"]:
            return
        query["starting_after"] = page["data"][-1]["id"]


async def answers() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Every kind of answer the stand-in gives, with the call that got it."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        serve() as server,
        client(server.url) as api,
        httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as http,
    ):
        caller = Caller(http)
        listening = {"url": "http://127.0.0.1:9/", "enabled_events[]": "*"}
        endpoint = await caller.ask("POST", "/v1/webhook_endpoints", listening)
        yield "new endpoint", endpoint
        ids = await stock(api, endpoint["id"])
        async for one in reads(caller, ids):
            yield one
        async for one in changes(server.url, caller, ids):
            yield one


async def test_every_object_fits_stripes_schema(contract: Contract) -> None:
    faults: list[str] = []
    calls = 0
    kinds: set[str] = set()
    async for call, answer in answers():
        calls += 1
        kinds |= set(found_kinds(answer))
        faults.extend(f"{call}: {fault}" for fault in contract.faults(answer))

    assert not faults, "\n".join(sorted(set(faults))[:40])
    assert calls > 30
    assert kinds == {
        "billing_portal.configuration",
        "billing_portal.session",
        "charge",
        "checkout.session",
        "coupon",
        "customer",
        "discount",
        "dispute",
        "event",
        "invoice",
        "invoice_payment",
        "invoiceitem",
        "item",
        "line_item",
        "list",
        "payment_intent",
        "payment_method",
        "price",
        "product",
        "promotion_code",
        "refund",
        "search_result",
        "subscription",
        "subscription_item",
        "test_helpers.test_clock",
        "webhook_endpoint",
    }


def found_kinds(found: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON
    if isinstance(found, list):
        for item in found:
            yield from found_kinds(item)
    if isinstance(found, dict):
        if isinstance(found.get("object"), str):
            yield found["object"]
        for value in found.values():
            yield from found_kinds(value)


def test_every_call_and_parameter_is_stripes_own(contract: Contract) -> None:
    theirs = {
        (method.upper(), "/".join("*" if part.startswith("{") else part for part in path.split("/"))): call
        for path, calls in contract.paths.items()
        for method, call in calls.items()
    }
    for operation in operations():
        path = "/".join("*" if part.startswith("{") else part for part in operation.path.split("/"))
        call = theirs[operation.method, path]
        form = call.get("requestBody", {}).get("content", {}).get("application/x-www-form-urlencoded", {})
        known = {parameter["name"] for parameter in call.get("parameters", [])}
        known |= set(form.get("schema", {}).get("properties", {}))
        ours = set(operation.params.model_fields) - {"expand"}  # taken everywhere, listed almost everywhere
        assert ours <= known, (operation.method, operation.path)


def test_the_check_itself_finds_faults(contract: Contract) -> None:
    answer = {
        "object": "list",
        "data": [
            {"id": "prod_1", "object": "product", "active": "yes", "colour": "red"},
            {"id": "evt_1", "object": "event", "type": None},
        ],
    }

    found = "\n".join(contract.faults(answer))

    assert "product $.active: 'yes' is not of type 'boolean'" in found
    assert "product $: 'name' is a required property" in found
    assert "product.colour: Stripe has no such field" in found
    assert "event $.type" in found
