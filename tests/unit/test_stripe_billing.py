"""The Stripe stand-in's time: what trials, renewals, retries and changes come to, and when. No HTTP."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.stripe_api.api import operations
from sandbox.stripe_api.bell import Bell
from sandbox.stripe_api.billing.dunning import Settings, stored_settings
from sandbox.stripe_api.database import open_database
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.idempotency import Replies
from sandbox.stripe_api.ledger import Ledger, new_id
from sandbox.stripe_api.objects import Cause, Json
from sandbox.stripe_api.operation import Asked, Moment
from sandbox.stripe_api.params import parse
from sandbox.stripe_api.present import expanded
from sandbox.stripe_api.store import Query, Store, every
from sandbox.stripe_api.timekeeper import catch_up, each_step
from sandbox.stripe_api.webhooks.outbox import Outbox

DAY = 86400
HOUR = 3600
START = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())
_CALLS = {(one.method, one.path): one for one in operations()}


@dataclass
class World:
    """A stand-in without HTTP, whose real time stands still."""

    ledger: Ledger

    def call(self, method: str, path: str, fields: Mapping[str, object] | None = None, **ids: str) -> Json:
        """Make one call; a refusal that left traces leaves them."""
        self.pass_time()
        operation = _CALLS[method, path]  # type: ignore[index]
        with self.ledger.transaction():
            moment = Moment(int(self.ledger.clock()), new_id, "http://stripe.test")
            params = parse(operation.params, dict(fields or {}))
            change = operation.run(Asked(ids, params, self.ledger.store, moment))
            self.ledger.commit(change, Cause())
        if change.refusal is not None:
            raise change.refusal
        return expanded(change.answer, params.expand, self.ledger.store)

    def advance(self, seconds: int) -> None:
        with self.ledger.transaction():
            self.ledger.advance(seconds)
        self.pass_time()

    def pass_time(self) -> None:
        for _ in each_step(self.ledger, "http://stripe.test"):
            pass

    def customer(self, card: str | None = "pm_card_visa", **fields: object) -> str:
        customer: str = self.call("POST", "/v1/customers", {"email": "ada@b.test", **fields})["id"]
        if card is not None:
            self.default_card(customer, card)
        return customer

    def default_card(self, customer: str, card: str) -> None:
        path = "/v1/payment_methods/{payment_method}/attach"
        method = self.call("POST", path, {"customer": customer}, payment_method=card)
        settings = {"invoice_settings": {"default_payment_method": method["id"]}}
        self.call("POST", "/v1/customers/{customer}", settings, customer=customer)

    def price(self, amount: str = "3000", interval: str = "month", currency: str = "usd") -> str:
        given = {
            "currency": currency,
            "unit_amount": amount,
            "recurring": {"interval": interval},
            "product_data": {"name": "Pro"},
        }
        price: str = self.call("POST", "/v1/prices", given)["id"]
        return price

    def subscribe(self, customer: str, price: str, **fields: object) -> Json:
        given = {"customer": customer, "items": {"0": {"price": price}}, **fields}
        return self.call("POST", "/v1/subscriptions", given)

    def update(self, subscription: Json, **fields: object) -> Json:
        path = "/v1/subscriptions/{subscription}"
        return self.call("POST", path, fields, subscription=subscription["id"])

    def switch(self, subscription: Json, price: str, **fields: object) -> Json:
        item = subscription["items"]["data"][0]["id"]
        return self.update(subscription, items={"0": {"id": item, "price": price}}, **fields)

    def now(self, subscription: Json) -> Json:
        found = self.ledger.store.find(subscription["id"])
        assert found is not None
        return found

    def invoices(self) -> list[Json]:
        """Oldest first."""
        return list(every(self.ledger.store, Query("invoice"), 1000))[::-1]

    def amounts(self) -> list[tuple[str, int]]:
        return [(one["status"], one["total"]) for one in self.invoices()]

    def events(self, *prefixes: str) -> list[tuple[str, int]]:
        """Types and times since the start, oldest first."""
        listed = list(every(self.ledger.store, Query("event"), 10_000))[::-1]
        return [
            (one["type"], one["created"] - START) for one in listed if one["type"].startswith(prefixes or "")
        ]

    def statuses(self) -> list[tuple[str, int]]:
        """The statuses the one subscription had, and since when."""
        listed = list(every(self.ledger.store, Query("event"), 10_000))[::-1]
        seen: list[tuple[str, int]] = []
        for event in listed:
            subject = event["data"]["object"]
            if subject["object"] == "subscription" and (not seen or seen[-1][0] != subject["status"]):
                seen.append((subject["status"], event["created"] - START))
        return seen

    def settle(self, **settings: Any) -> None:  # noqa: ANN401
        with self.ledger.transaction():
            self.ledger.store.put(stored_settings(Settings(**settings)))


@pytest.fixture
def world() -> Iterator[World]:
    with open_database(":memory:") as connection:
        stores = Store(connection), Outbox(connection), Replies(connection)
        yield World(Ledger(connection, *stores, lambda: float(START), Bell()))


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_trial_is_announced_ends_and_is_billed(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price(), trial_period_days="14")
    assert (subscription["status"], world.amounts()) == ("trialing", [("paid", 0)])

    world.advance(20 * DAY)

    assert world.statuses() == [("trialing", 0), ("active", 14 * DAY)]
    assert world.events("customer.subscription.trial", "invoice.created", "invoice.paid")[2:] == [
        ("customer.subscription.trial_will_end", 11 * DAY),
        ("invoice.created", 14 * DAY),
        ("invoice.paid", 14 * DAY + HOUR),
    ]
    assert world.amounts() == [("paid", 0), ("paid", 3000)]
    item = world.now(subscription)["items"]["data"][0]
    assert item["current_period_start"] == START + 14 * DAY


def test_a_trial_of_three_days_is_announced_at_once(world: World) -> None:
    world.subscribe(world.customer(), world.price(), trial_period_days="3")
    world.advance(2 * DAY)

    assert world.events("customer.subscription") == [
        ("customer.subscription.created", 0),
        ("customer.subscription.trial_will_end", 0),
    ]


@pytest.mark.parametrize(
    ("behavior", "status", "told"),
    [
        ("create_invoice", "past_due", "customer.subscription.updated"),
        ("cancel", "canceled", "customer.subscription.deleted"),
        ("pause", "paused", "customer.subscription.paused"),
    ],
)
def test_a_trial_ends_without_a_card(world: World, behavior: str, status: str, told: str) -> None:
    subscription = world.subscribe(
        world.customer(card=None),
        world.price(),
        trial_period_days="5",
        trial_settings={"end_behavior": {"missing_payment_method": behavior}},
    )

    world.advance(6 * DAY)

    assert world.now(subscription)["status"] == status
    assert told in [kind for kind, _ in world.events()]


def test_a_paused_subscription_resumes_with_an_invoice(world: World) -> None:
    customer = world.customer(card=None)
    end = {"end_behavior": {"missing_payment_method": "pause"}}
    subscription = world.subscribe(customer, world.price(), trial_period_days="5", trial_settings=end)
    world.advance(90 * DAY)
    assert world.amounts() == [("paid", 0)]
    world.default_card(customer, "pm_card_visa")

    path = "/v1/subscriptions/{subscription}/resume"
    resumed = world.call("POST", path, subscription=subscription["id"])

    assert resumed["status"] == "active"
    assert world.amounts() == [("paid", 0), ("paid", 3000)]
    assert ("customer.subscription.resumed", 90 * DAY) in world.events()
    with pytest.raises(ApiError, match="Only paused"):
        world.call("POST", path, subscription=subscription["id"])


def test_a_year_passes_in_one_jump_month_after_month(world: World) -> None:
    world.subscribe(world.customer(), world.price())

    world.advance(at("2027-01-31T14:00") - START)

    made = [datetime.fromtimestamp(one["created"], UTC).date().isoformat() for one in world.invoices()]
    assert made == [
        "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30", "2026-07-31",
        "2026-08-31", "2026-09-30", "2026-10-31", "2026-11-30", "2026-12-31", "2027-01-31",
    ]  # fmt: skip
    assert world.amounts() == [("paid", 3000)] * 13
    assert len({one["number"] for one in world.invoices()}) == 13
    times = [time for _, time in world.events()]
    assert times == sorted(times)


async def test_others_have_their_turn_while_a_year_passes(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price())
    turns = 0

    async def read() -> None:
        nonlocal turns
        while world.now(subscription)["items"]["data"][0]["current_period_end"] < at("2027-01-31T12"):
            turns += 1
            await asyncio.sleep(0)

    reading = asyncio.create_task(read())
    with world.ledger.transaction():
        world.ledger.advance(366 * DAY)
    passing = (catch_up(world.ledger, "http://stripe.test", hold=0) for _ in range(2))
    await asyncio.gather(*passing)
    await reading

    assert turns > 6
    assert world.amounts() == [("paid", 3000)] * 13


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_chargeCustomerFail"])
def test_one_jump_and_many_steps_come_to_the_same(card: str) -> None:
    histories = []
    for steps in (1, 400):
        with open_database(":memory:") as connection:
            stores = Store(connection), Outbox(connection), Replies(connection)
            world = World(Ledger(connection, *stores, lambda: float(START), Bell()))
            world.settle(after_retries="unpaid")
            world.subscribe(world.customer(card), world.price(), trial_period_days="10")
            for _ in range(steps):
                world.advance(400 * DAY // steps)
            histories.append((world.events(), world.statuses(), world.amounts()))

    assert histories[0] == histories[1]
    assert len(histories[0][2]) >= 14


@pytest.mark.parametrize(
    ("after", "status"), [("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due")]
)
def test_a_failed_renewal_is_retried_and_then_it_is_over(world: World, after: str, status: str) -> None:
    world.settle(after_retries=after)
    customer = world.customer()
    subscription = world.subscribe(customer, world.price())
    world.default_card(customer, "pm_card_chargeCustomerFail")

    world.advance(28 * DAY + 2 * HOUR)
    invoice = world.invoices()[-1]
    assert (invoice["status"], invoice["attempt_count"]) == ("open", 1)
    assert invoice["next_payment_attempt"] == START + 28 * DAY + HOUR + 3 * DAY
    world.advance(16 * DAY)

    first = 28 * DAY + HOUR
    assert [time for _, time in world.events("invoice.payment_failed")] == [
        first,
        first + 3 * DAY,
        first + 8 * DAY,
        first + 15 * DAY,
    ]
    expected = [("incomplete", 0), ("active", 0), ("past_due", first), (status, first + 15 * DAY)]
    assert world.statuses() == (expected[:3] if status == "past_due" else expected)
    assert world.invoices()[-1]["next_payment_attempt"] is None
    if status == "canceled":
        assert world.now(subscription)["cancellation_details"]["reason"] == "payment_failed"
        world.advance(100 * DAY)
        assert len(world.invoices()) == 2


def test_an_unpaid_subscription_drafts_on_and_is_revived_by_paying(world: World) -> None:
    world.settle(after_retries="unpaid", retry_days=(1,))
    customer = world.customer()
    subscription = world.subscribe(customer, world.price())
    world.default_card(customer, "pm_card_chargeCustomerFail")
    world.advance(65 * DAY)
    assert world.now(subscription)["status"] == "unpaid"
    assert [status for status, _ in world.amounts()] == ["paid", "open", "draft"]

    owed = world.invoices()[1]
    with pytest.raises(ApiError, match="declined"):
        world.call("POST", "/v1/invoices/{invoice}/pay", invoice=owed["id"])
    assert world.now(subscription)["status"] == "unpaid"
    world.default_card(customer, "pm_card_visa")
    paid = world.call("POST", "/v1/invoices/{invoice}/pay", invoice=owed["id"])

    assert (paid["status"], paid["attempt_count"]) == ("paid", 2)
    assert world.now(subscription)["status"] == "active"


def test_a_new_card_lets_the_next_retry_succeed(world: World) -> None:
    customer = world.customer()
    subscription = world.subscribe(customer, world.price())
    world.default_card(customer, "pm_card_chargeCustomerFail")
    world.advance(29 * DAY)
    world.default_card(customer, "pm_card_visa")

    world.advance(3 * DAY)

    assert world.now(subscription)["status"] == "active"
    assert world.amounts() == [("paid", 3000)] * 2
    assert [one["attempt_count"] for one in world.invoices()] == [1, 2]


def test_a_first_payment_that_is_not_made_expires(world: World) -> None:
    customer = world.customer("pm_card_chargeCustomerFail")
    subscription = world.subscribe(customer, world.price())
    assert subscription["status"] == "incomplete"

    world.advance(22 * HOUR)
    assert world.now(subscription)["status"] == "incomplete"
    world.advance(2 * HOUR)

    assert world.statuses() == [("incomplete", 0), ("incomplete_expired", 23 * HOUR)]
    assert world.amounts() == [("void", 3000)]
    assert ("invoice.voided", 23 * HOUR) in world.events()


def test_a_caller_may_want_an_error_instead_of_an_incomplete_subscription(world: World) -> None:
    customer = world.customer("pm_card_chargeCustomerFail")

    with pytest.raises(ApiError, match="declined") as caught:
        world.subscribe(customer, world.price(), payment_behavior="error_if_incomplete")

    assert (caught.value.status, caught.value.type) == (402, "card_error")
    assert world.invoices() == []
    assert world.events("customer.subscription") == []


def test_an_authentication_completes_what_was_incomplete(world: World) -> None:
    customer = world.customer("pm_card_authenticationRequired")
    subscription = world.subscribe(customer, world.price(), expand={"0": "latest_invoice"})
    expand = {"expand": {"0": "payments.data.payment.payment_intent"}}
    invoice = world.call(
        "GET", "/v1/invoices/{invoice}", expand, invoice=subscription["latest_invoice"]["id"]
    )
    payment = invoice["payments"]["data"][0]
    intent = payment["payment"]["payment_intent"]
    assert (subscription["status"], payment["status"], intent["status"]) == (
        "incomplete",
        "open",
        "requires_action",
    )
    assert ("invoice.payment_action_required", 0) in world.events()

    other = world.call(
        "POST",
        "/v1/payment_intents/{intent}/confirm",
        {"payment_method": "pm_card_visa"},
        intent=intent["id"],
    )

    assert other["status"] == "succeeded"
    assert world.now(subscription)["status"] == "active"
    assert world.amounts() == [("paid", 3000)]


def test_an_end_comes_at_its_time_without_another_invoice(world: World) -> None:
    customer, price = world.customer(), world.price()
    subscription = world.subscribe(customer, price)
    world.update(subscription, cancel_at_period_end="true")

    world.advance(60 * DAY)

    over = world.now(subscription)
    assert (over["status"], over["ended_at"], over["canceled_at"]) == ("canceled", START + 28 * DAY, START)
    assert world.amounts() == [("paid", 3000)]
    with pytest.raises(ApiError, match="in the future"):
        world.subscribe(customer, price, cancel_at=str(START))


def test_a_change_is_prorated_to_the_second(world: World) -> None:
    customer = world.customer()
    subscription = world.subscribe(customer, world.price("2800"))
    world.advance(7 * DAY)

    changed = world.switch(subscription, world.price("5600"), proration_behavior="always_invoice")

    credit, debit = world.invoices()[-1]["lines"]["data"]
    assert (credit["amount"], debit["amount"]) == (-2100, 4200)
    assert credit["parent"]["subscription_item_details"]["proration"] is True
    assert world.amounts() == [("paid", 2800), ("paid", 2100)]
    assert changed["items"]["data"][0]["current_period_end"] == START + 28 * DAY


def test_prorations_wait_for_the_renewal_unless_they_are_wanted_now(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price("2800"))
    world.advance(14 * DAY)
    world.update(subscription, items={"0": {"id": _item(subscription), "quantity": "3"}})
    assert len(world.invoices()) == 1

    world.advance(15 * DAY)

    assert [line["amount"] for line in world.invoices()[-1]["lines"]["data"]] == [-1400, 4200, 8400]
    assert world.amounts()[-1] == ("paid", 11200)
    world.update(
        subscription, items={"0": {"id": _item(subscription), "quantity": "1"}}, proration_behavior="none"
    )
    world.advance(31 * DAY)
    assert world.amounts()[-1] == ("paid", 2800)


def test_a_credit_is_kept_and_used_up(world: World) -> None:
    customer = world.customer()
    subscription = world.subscribe(customer, world.price("5600"))
    world.advance(14 * DAY)
    world.switch(subscription, world.price("1400"), proration_behavior="always_invoice")
    assert world.amounts()[-1] == ("paid", -2100)
    assert world.call("GET", "/v1/customers/{customer}", customer=customer)["balance"] == -2100

    world.advance(76 * DAY)

    assert [(one["total"], one["amount_paid"]) for one in world.invoices()[2:]] == [
        (1400, 0),
        (1400, 700),
        (1400, 1400),
    ]


def test_another_interval_begins_at_once_and_gives_back_the_rest(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price("2800"))
    world.advance(7 * DAY)

    yearly = world.switch(subscription, world.price("28000", "year"))

    item = yearly["items"]["data"][0]
    assert item["current_period_start"] == START + 7 * DAY
    assert item["current_period_end"] == at("2027-02-07T12:00")
    assert world.amounts()[-1] == ("paid", 28000 - 2100)


def test_an_upgrade_that_cannot_be_paid_is_past_due_or_refused(world: World) -> None:
    customer = world.customer()
    subscription = world.subscribe(customer, world.price("2800"))
    world.default_card(customer, "pm_card_chargeCustomerFail")
    better = world.price("5600")
    world.advance(7 * DAY)
    wanted = {"proration_behavior": "always_invoice"}

    with pytest.raises(ApiError, match="declined"):
        world.switch(subscription, better, payment_behavior="error_if_incomplete", **wanted)
    assert world.now(subscription)["items"]["data"][0]["price"] != better
    changed = world.switch(subscription, better, **wanted)

    assert changed["status"] == "past_due"
    assert changed["items"]["data"][0]["price"]["id"] == better


def test_a_trial_is_ended_by_hand_and_paid_at_once(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price(), trial_period_days="30")
    world.advance(DAY)

    active = world.update(subscription, trial_end="now")

    assert (active["status"], active["trial_end"]) == ("active", START + DAY)
    assert world.amounts() == [("paid", 0), ("paid", 3000)]
    assert world.events("customer.subscription.trial") == [("customer.subscription.trial_will_end", DAY)]


def test_collection_pauses_and_goes_on_by_itself(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price())
    pause = {"behavior": "void", "resumes_at": str(START + 60 * DAY)}
    world.update(subscription, pause_collection=pause)

    world.advance(95 * DAY)

    assert [status for status, _ in world.amounts()] == ["paid", "void", "void", "paid"]
    assert world.now(subscription)["status"] == "active"


def test_a_discount_lasts_as_long_as_its_coupon_says(world: World) -> None:
    coupon = world.call("POST", "/v1/coupons", {"percent_off": "50", "duration": "once"})
    forever = world.call(
        "POST", "/v1/coupons", {"amount_off": "100", "currency": "usd", "duration": "forever"}
    )
    discounts = {"0": {"coupon": coupon["id"]}, "1": {"coupon": forever["id"]}}

    world.subscribe(world.customer(), world.price(), discounts=discounts)
    world.advance(30 * DAY)

    assert world.amounts() == [("paid", 1400), ("paid", 2900)]
    assert world.invoices()[0]["subtotal"] == 3000


def _item(subscription: Json) -> str:
    item: str = subscription["items"]["data"][0]["id"]
    return item


def preview(world: World, **fields: object) -> Json:
    return world.call("POST", "/v1/invoices/create_preview", fields)


@pytest.mark.parametrize("how", ["always_invoice", "create_prorations", "none"])
@pytest.mark.parametrize("interval", ["month", "year"])
def test_a_preview_comes_true_and_leaves_nothing_behind(world: World, how: str, interval: str) -> None:
    subscription = world.subscribe(world.customer(), world.price())
    dear = world.price("9000", interval)
    item = subscription["items"]["data"][0]["id"]
    world.advance(10 * DAY)
    asked = {
        "items": {"0": {"id": item, "price": dear}},
        "proration_behavior": how,
        "proration_date": str(START + 8 * DAY),
    }
    events = world.events()

    seen = preview(world, subscription=subscription["id"], subscription_details=asked)

    assert (world.events(), world.amounts()) == (events, [("paid", 3000)])
    assert (seen["status"], seen["billing_reason"], seen["id"][:12]) == ("draft", "upcoming", "upcoming_in_")
    world.update(subscription, **asked)
    world.advance(0 if len(world.amounts()) > 1 else 20 * DAY)
    made = world.invoices()[1]
    assert [line["amount"] for line in made["lines"]["data"]] == [
        line["amount"] for line in seen["lines"]["data"]
    ]
    assert (made["total"], made["amount_due"]) == (seen["total"], seen["amount_due"])


def test_a_preview_shows_what_a_new_subscription_costs_and_the_customers_next_bill(world: World) -> None:
    customer, price = world.customer(), world.price()
    wanted = {"items": {"0": {"price": price, "quantity": "3"}}}

    assert preview(world, customer=customer, subscription_details=wanted)["total"] == 9000
    with pytest.raises(ApiError) as none:
        preview(world, customer=customer)
    assert (none.value.code, none.value.status) == ("invoice_upcoming_none", 404)
    yearly = world.subscribe(customer, world.price("30000", "year"))
    world.subscribe(customer, price)
    following = preview(world, customer=customer)
    assert (following["total"], following["created"]) == (3000, at("2026-02-28T12"))
    leaving = world.update(yearly, cancel_at_period_end="true")
    with pytest.raises(ApiError, match="No upcoming invoices"):
        preview(world, subscription=leaving["id"])


def test_a_change_is_counted_from_within_its_period(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price())
    dear = world.price("9000")

    with pytest.raises(ApiError) as refused:
        world.switch(subscription, dear, proration_date=str(START - 1))

    assert refused.value.param == "proration_date"
    assert world.invoices()[0]["total"] == 3000


@pytest.mark.parametrize(
    "change", [{"cancel_at_period_end": "true"}, {"items": {"0": {"price": "price_x"}}}, {"trial_end": "now"}]
)
def test_what_is_incomplete_is_paid_before_it_is_changed(world: World, change: dict[str, object]) -> None:
    subscription = world.subscribe(world.customer("pm_card_chargeCustomerFail"), world.price())

    with pytest.raises(ApiError, match="incomplete"):
        world.update(subscription, **change)

    item = subscription["items"]["data"][0]["id"]
    with pytest.raises(ApiError, match="incomplete"):
        world.call("POST", "/v1/subscription_items/{item}", {"quantity": "2"}, item=item)
    assert world.update(subscription, metadata={"a": "b"})["metadata"] == {"a": "b"}


def test_a_draft_that_was_left_alone_is_collected_when_it_is_wanted(world: World) -> None:
    subscription = world.subscribe(world.customer(), world.price())
    world.update(subscription, pause_collection={"behavior": "keep_as_draft"})
    world.advance(29 * DAY)
    draft = world.invoices()[-1]
    path = "/v1/invoices/{invoice}"

    world.update(subscription, pause_collection="")
    world.call("POST", path, {"auto_advance": "true", "description": "Late"}, invoice=draft["id"])
    world.advance(2 * HOUR)

    assert world.amounts() == [("paid", 3000), ("paid", 3000)]
    with pytest.raises(ApiError, match="nobody collects it"):
        world.call("POST", path, {"auto_advance": "true"}, invoice=draft["id"])


def test_something_is_bought_once_along_with_a_subscription(world: World) -> None:
    given = {"currency": "usd", "unit_amount": "500", "product_data": {"name": "Set-up"}}
    fee = world.call("POST", "/v1/prices", given)["id"]
    customer, plan = world.customer(), world.price()

    world.subscribe(customer, plan, add_invoice_items={"0": {"price": fee, "quantity": "2"}})
    with pytest.raises(ApiError, match="one-time"):
        world.subscribe(customer, plan, add_invoice_items={"0": {"price": plan}})

    world.advance(29 * DAY)
    assert world.amounts() == [("paid", 4000), ("paid", 3000)]
