"""How the client reads what Stripe may answer; a canned server says what no well-behaved stand-in would."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from provisioner.clients.stripe import (
    NotFoundError,
    StripeClient,
    StripeInvoice,
    StripeItem,
    StripeTestClock,
)
from provisioner.contract.errors import PermanentError, TemporaryError
from tests.integration.canned_stripe import AUGUST, JULY, answering, invoice, subscription


def refusal(kind: str, **more: object) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "no, said with sk_test_hidden", **more}}


async def test_a_subscription_is_read_with_all_we_use() -> None:
    async with answering((200, {}, subscription(customer={"id": "cus_1", "object": "customer"}))) as (
        client,
        canned,
    ):
        found = await client.fetch_subscription("sub_1")
    (request,) = canned.requests
    assert unquote(request) == (
        "GET /v1/subscriptions/sub_1?expand[0]=latest_invoice&expand[1]=test_clock HTTP/1.1"
    )
    july, august = datetime.fromtimestamp(JULY, UTC), datetime.fromtimestamp(AUGUST, UTC)
    assert found.items == (StripeItem("price_1", "mindroom_pro_month", "month", 1, july, august),)
    assert (found.id, found.status, found.customer_id) == ("sub_1", "active", "cus_1")
    assert found.current_period_end == august
    assert found.created == datetime.fromtimestamp(JULY, UTC)
    assert (found.metadata, found.cancel_at_period_end, found.trial_end) == (
        {"berth_checkout": "co1"},
        False,
        None,
    )
    assert found.latest_invoice == StripeInvoice("in_1", "paid", july, 2900, "usd", 1)
    assert (found.ended_at, found.cancel_at, found.past_due_since, found.test_clock) == (None,) * 4


async def test_the_end_and_a_time_of_its_own_are_read() -> None:
    said = subscription(
        cancel_at=AUGUST,
        ended_at=AUGUST,
        trial_end=JULY,
        latest_invoice="in_1",
        test_clock={"id": "clock_1", "object": "test_helpers.test_clock", "frozen_time": AUGUST},
    )
    async with answering((200, {}, said)) as (client, _):
        found = await client.fetch_subscription("sub_1")
    august = datetime.fromtimestamp(AUGUST, UTC)
    assert (found.cancel_at, found.ended_at, found.trial_end) == (
        august,
        august,
        datetime.fromtimestamp(JULY, UTC),
    )
    assert found.cancel_at_period_end, "flexible billing says so with cancel_at alone"
    assert (found.test_clock, found.latest_invoice) == (StripeTestClock("clock_1", august), None)


@pytest.mark.parametrize(
    ("invoices", "since"),
    [
        # newest first
        ([invoice("in_2", "open", JULY + 60), invoice("in_1", "paid", JULY)], JULY + 60),
        ([invoice("in_2", "open", None, JULY + 30), invoice("in_1", "paid", JULY)], JULY + 30),
        ([invoice("in_3", "open", JULY + 9), invoice("in_2", "uncollectible", JULY + 5)], JULY + 5),
        ([invoice("in_3", "draft", None), invoice("in_2", "void", JULY + 2), invoice("in_1", "open", 7)], 7),
        ([invoice("in_3", "open", 9), invoice("in_2", "paid", 8), invoice("in_1", "open", 7)], 9),
        ([invoice("in_1", "paid", JULY)], AUGUST),
    ],
)
async def test_a_failing_begins_with_the_oldest_bill_unpaid_up_to_now(
    invoices: list[dict[str, Any]], since: int
) -> None:
    late = subscription(status="past_due", latest_invoice=invoice("in_9", "open", AUGUST))
    page = {"object": "list", "data": invoices, "has_more": False, "url": "/v1/invoices"}
    async with answering((200, {}, late), (200, {}, page)) as (client, canned):
        found = await client.fetch_subscription("sub_1")
    assert found.past_due_since == datetime.fromtimestamp(since, UTC)
    assert canned.requests[1] == "GET /v1/invoices?subscription=sub_1&limit=100 HTTP/1.1"


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait"),
    [
        (429, {"retry-after": "7"}, "rate_limit_error", timedelta(seconds=7)),
        (429, {"retry-after": "99999999"}, "rate_limit_error", timedelta(minutes=10)),
        (429, {"retry-after": "soon"}, "rate_limit_error", None),
        (500, {}, "api_error", None),
        (503, {"retry-after": "3"}, "api_error", timedelta(seconds=3)),
    ],
)
async def test_what_may_pass_is_temporary(
    status: int, headers: Mapping[str, str], error: str, wait: timedelta | None
) -> None:
    async with answering((status, headers, refusal(error))) as (client, canned):
        with pytest.raises(TemporaryError) as raised:
            await client.fetch_subscription("sub_1")
    assert raised.value.retry_after == wait
    assert "sub_1" in str(raised.value)
    assert len(canned.requests) <= 2, "retries are bounded"


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, "invalid_request_error", "BERTH_STRIPE_API_KEY"),
        (403, "invalid_request_error", "BERTH_STRIPE_API_KEY"),
        (400, "invalid_request_error", "report it"),
    ],
)
async def test_what_only_a_person_can_mend_is_permanent(status: int, kind: str, says: str) -> None:
    async with answering((status, {}, refusal(kind))) as (client, _):
        with pytest.raises(PermanentError) as raised:
            await client.fetch_subscription("sub_1")
    assert says in str(raised.value)
    assert "hidden" not in str(raised.value), "invariant 6: Stripe's text may hold the key"


async def test_an_unknown_subscription_is_not_found() -> None:
    async with answering((404, {}, refusal("invalid_request_error", code="resource_missing"))) as (client, _):
        with pytest.raises(NotFoundError, match="sub_gone"):
            await client.fetch_subscription("sub_gone")


async def test_nobody_listening_is_temporary() -> None:
    async with StripeClient("sk_test_x", "http://127.0.0.1:9") as client:
        with pytest.raises(TemporaryError, match="could not be reached"):
            await client.fetch_subscription("sub_1")


@pytest.mark.parametrize("changes", [{"items": {"object": "list", "data": []}}, {"status": None}])
async def test_an_answer_that_makes_no_sense_names_the_field(changes: dict[str, Any]) -> None:
    async with answering((200, {}, subscription(**changes))) as (client, _):
        with pytest.raises(PermanentError, match=next(iter(changes))):
            await client.fetch_subscription("sub_1")


async def test_all_pages_are_listed() -> None:
    def page(ids: list[str], *, more: bool) -> tuple[int, Mapping[str, str], object]:
        data = [subscription(id_) for id_ in ids]
        return 200, {}, {"object": "list", "data": data, "has_more": more, "url": "/v1/subscriptions"}

    async with answering(page(["sub_3", "sub_2"], more=True), page(["sub_1"], more=False)) as (
        client,
        canned,
    ):
        assert [found.id async for found in client.list_subscriptions()] == ["sub_3", "sub_2", "sub_1"]
    assert canned.requests == [
        "GET /v1/subscriptions?limit=100 HTTP/1.1",
        "GET /v1/subscriptions?limit=100&starting_after=sub_2 HTTP/1.1",
    ]
