"""What Stripe says now. A thin layer over the official client: typed rows out, our two kinds of error."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile
from math import ceil
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

import stripe
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from catalogue.stripe_names import PRICE_ORIGIN
from provisioner.contract.errors import PermanentError, TemporaryError

# Per phase of a request (connect, read, write), and for a whole call with its retries; seconds.
PHASE_TIMEOUT = 10.0
CALL_TIMEOUT = 30.0
NETWORK_RETRIES = 1
PAGE = 100
MOST_PAGES = 1000
RETRY_AFTER_CAP = timedelta(minutes=10)


class NotFoundError(PermanentError):
    """Stripe has no object of that id."""


class UnreadableError(PermanentError):
    """Stripe describes an object in a way that Berth does not understand."""


@dataclass(frozen=True, slots=True)
class UnreadableSubscription:
    """One in a list that Berth does not understand; fetching it says what."""

    id: str


@dataclass(frozen=True, slots=True)
class StripeItem:
    """One line of a subscription.

    `current_period_end` is when it renews; `made_for` the id of the price's Stripe product, if Berth made it.
    """

    price_id: str
    lookup_key: str | None
    interval: str | None
    quantity: int
    current_period_start: datetime
    current_period_end: datetime
    made_for: str | None = None


@dataclass(frozen=True, slots=True)
class StripeInvoice:
    """A bill; `amount_due` in the smallest unit of `currency`; `since`: finalized, else created."""

    id: str
    status: str
    since: datetime
    amount_due: int
    currency: str
    attempt_count: int


@dataclass(frozen=True, slots=True)
class StripeTestClock:
    """A time of its own, which passes only when somebody advances it."""

    id: str
    frozen_time: datetime


@dataclass(frozen=True, slots=True)
class StripeSubscription:
    """A subscription as Stripe has it at this moment; times are aware, `items` has at least one.

    A list holds neither `latest_invoice` nor `test_clock` nor `past_due_since`.

    Attributes:
        cancel_at_period_end: whether it ends by itself. Flexible billing says so with `cancel_at` alone:
            https://docs.stripe.com/billing/subscriptions/billing-mode/compare.
        past_due_since: the time of the oldest bill of those that are unpaid up to now; None unless past due.
    """

    id: str
    status: str
    customer_id: str
    items: tuple[StripeItem, ...]
    cancel_at_period_end: bool
    metadata: Mapping[str, str]
    created: datetime
    trial_end: datetime | None = None
    cancel_at: datetime | None = None
    ended_at: datetime | None = None
    past_due_since: datetime | None = None
    latest_invoice: StripeInvoice | None = None
    test_clock: StripeTestClock | None = None

    @property
    def current_period_end(self) -> datetime:
        """When the first of its items renews."""
        return min(item.current_period_end for item in self.items)


@dataclass(frozen=True, slots=True)
class StripeDispute:
    """A customer's bank asking for the money of a charge back."""

    id: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class StripeCharge:
    """A payment; `amount` in the smallest unit of `currency`, `refunded` only when all of it went back."""

    id: str
    customer_id: str | None
    payment_intent: str | None
    amount: int
    currency: str
    refunded: bool
    disputes: tuple[StripeDispute, ...]


class StripeClient:
    """Fetches from Stripe, or from what stands in for it at `url`.

    Args:
        api_key: a secret or restricted key that may read subscriptions, invoices with their payments, events,
            charges and disputes.
        url: the API's address.
    """

    def __init__(self, api_key: str, url: str) -> None:
        self._http = stripe.HTTPXClient(timeout=PHASE_TIMEOUT)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": url.rstrip("/")},
            http_client=self._http,
            max_network_retries=NETWORK_RETRIES,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the library left it untyped

    async def fetch_subscription(self, subscription_id: str) -> StripeSubscription:
        """The subscription as it is now.

        Raises:
            NotFoundError: Stripe has none of that id.
            TemporaryError: Stripe did not answer, or asked us to wait.
            PermanentError: Stripe refused our key.
        """
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                found = await self._client.v1.subscriptions.retrieve_async(
                    subscription_id, {"expand": ["latest_invoice", "test_clock"]}
                )
        except (stripe.StripeError, TimeoutError) as error:
            raise _translated(error, f"subscription {subscription_id}") from error
        subscription = _subscription(found.to_dict())
        if subscription.status != "past_due":
            return subscription
        invoices = await self._invoices(subscription_id)
        return replace(subscription, past_due_since=_past_due_since(subscription, invoices))

    async def _invoices(self, subscription_id: str) -> list[StripeInvoice]:
        """The newest bills of a subscription, newest first."""
        what = f"the invoices of subscription {subscription_id}"
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                page = await self._client.v1.invoices.list_async(
                    {"subscription": subscription_id, "limit": PAGE}
                )
        except (stripe.StripeError, TimeoutError) as error:
            raise _translated(error, what) from error
        return [_invoice(_read(_Invoice, invoice.to_dict(), what)) for invoice in page.data]

    async def list_subscriptions(self) -> AsyncIterator[StripeSubscription | UnreadableSubscription]:
        """Every subscription that was not canceled, newest first.

        Raises:
            TemporaryError, PermanentError: as `fetch_subscription`; what was yielded before is incomplete.
        """
        ask = self._client.v1.subscriptions.list_async
        async for page in self._pages(ask, {}, "the list of subscriptions"):
            for found in page:
                try:
                    yield _subscription(found)
                except UnreadableError:
                    yield UnreadableSubscription(found["id"])

    async def list_events(
        self, since: datetime, until: datetime | None, types: Sequence[str]
    ) -> AsyncIterator[list[str]]:
        """The events created from `since` on and before `until`, as pages of their JSON, newest first.

        Args:
            since: at most 30 days ago: Stripe lists no older ones.
            until: None for all up to now.
            types: at most 20 names of types.

        Raises:
            TemporaryError, PermanentError: as `fetch_subscription`; what was yielded before is incomplete.
        """
        created = {"gte": int(since.timestamp())}
        if until is not None:
            created["lt"] = ceil(until.timestamp())
        ask = self._client.v1.events.list_async
        params = {"created": created, "types": list(types)}
        async for page in self._pages(ask, params, "the list of events"):
            yield [json.dumps(found) for found in page]

    async def fetch_event(self, event_id: str) -> str:
        """The JSON of an event of the last 30 days.

        Raises:
            NotFoundError, TemporaryError, PermanentError: as `fetch_subscription`.
        """
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                found = await self._client.v1.events.retrieve_async(event_id)
        except (stripe.StripeError, TimeoutError) as error:
            raise _translated(error, f"event {event_id}") from error
        return json.dumps(found.to_dict(for_json=True))

    async def fetch_charge(self, charge_id: str) -> StripeCharge:
        """The charge and its disputes as they are now.

        Raises:
            NotFoundError, TemporaryError, PermanentError: as `fetch_subscription`.
        """
        what = f"charge {charge_id}"
        raw = await self._ask(lambda: self._client.v1.charges.retrieve_async(charge_id), what)
        found = _read(_Charge, raw, what)
        disputes = [
            _read(_Dispute, one, f"the disputes of {what}")
            async for page in self._pages(
                self._client.v1.disputes.list_async, {"charge": charge_id}, f"the disputes of {what}"
            )
            for one in page
        ]
        return StripeCharge(
            id=found.id,
            customer_id=found.customer,
            payment_intent=found.payment_intent,
            amount=found.amount,
            currency=found.currency,
            refunded=found.refunded,
            disputes=tuple(StripeDispute(one.id, one.status, one.reason) for one in disputes),
        )

    async def subscriptions_paid_by(self, payment_intent: str) -> frozenset[str]:
        """The ids of the subscriptions whose bills a payment was for; none when it was for something else.

        A charge names neither bill nor subscription since API version 2025-03-31; the way is over
        https://docs.stripe.com/api/invoice-payment.

        Raises:
            TemporaryError, PermanentError: as `fetch_subscription`.
        """
        what = f"the bills of payment {payment_intent}"
        params = {
            "payment": {"type": "payment_intent", "payment_intent": payment_intent},
            "expand": ["data.invoice"],
        }
        bills = [
            _read(_InvoicePayment, one, what).invoice
            async for page in self._pages(self._client.v1.invoice_payments.list_async, params, what)
            for one in page
        ]
        return frozenset(bill.subscription for bill in bills if bill.subscription is not None)

    async def _ask(self, ask: Callable[[], Awaitable[stripe.StripeObject]], what: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                return (await ask()).to_dict(for_json=True)
        except (stripe.StripeError, TimeoutError) as error:
            raise _translated(error, what) from error

    async def _pages(
        self,
        ask: Callable[[Any], Awaitable[stripe.ListObject[Any]]],
        params: Mapping[str, object],
        what: str,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        cursor: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    page = await ask({"limit": PAGE, **params, **cursor})
            except (stripe.StripeError, TimeoutError) as error:
                raise _translated(error, what) from error
            yield [found.to_dict(for_json=True) for found in page.data]
            if not page.has_more or not page.data:
                return
            cursor = {"starting_after": page.data[-1].id}
        raise PermanentError(f"Stripe has more than {MOST_PAGES * PAGE} in {what}: raise MOST_PAGES")


def _translated(error: stripe.StripeError | TimeoutError, what: str) -> Exception:
    match error:
        case stripe.InvalidRequestError(http_status=404):
            return NotFoundError(
                f"Stripe has no {what}: check that BERTH_STRIPE_API_KEY is of the account, and of the mode"
                " (test or live), that it came from"
            )
        case stripe.AuthenticationError() | stripe.PermissionError():
            return PermanentError(
                f"Stripe refused the key when asked for {what}: put one that may read it into"
                " BERTH_STRIPE_API_KEY and restart the provisioner"
            )
        case stripe.RateLimitError():
            return TemporaryError(f"Stripe asked to slow down when asked for {what}", _retry_after(error))
        case stripe.InvalidRequestError():
            return PermanentError(
                f"Stripe rejected the request for {what} ({error.http_status} {error.code}): this is a"
                " defect of Berth, report it"
            )
        case stripe.StripeError(http_status=int(status)):
            return TemporaryError(f"Stripe answered {status} when asked for {what}", _retry_after(error))
        case _:
            return TemporaryError(f"Stripe could not be reached for {what}")


def _retry_after(error: stripe.StripeError) -> timedelta | None:
    value = str((error.headers or {}).get("retry-after", ""))
    return min(timedelta(seconds=int(value[:9])), RETRY_AFTER_CAP) if value.isdecimal() else None


def _id(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value


class _Recurring(BaseModel):
    interval: str


class _Price(BaseModel):
    id: str
    lookup_key: str | None = None
    recurring: _Recurring | None = None
    product: Annotated[str | None, BeforeValidator(_id)] = None
    metadata: dict[str, str] = {}


class _Item(BaseModel):
    price: _Price
    quantity: int = 1
    current_period_start: datetime
    current_period_end: datetime


class _Items(BaseModel):
    data: list[_Item] = Field(min_length=1)


class _Transitions(BaseModel):
    finalized_at: datetime | None


class _Invoice(BaseModel):
    id: str
    status: str
    created: datetime
    status_transitions: _Transitions
    amount_due: int
    currency: str
    attempt_count: int


class _TestClock(BaseModel):
    id: str
    frozen_time: datetime


def _expanded(value: object) -> object:
    """The object itself; None for a mere id."""
    return value if isinstance(value, dict) else None


class _Subscription(BaseModel):
    id: str
    status: str
    customer: Annotated[str, BeforeValidator(_id)]
    items: _Items
    cancel_at_period_end: bool
    metadata: dict[str, str] = {}
    created: datetime
    trial_end: datetime | None = None
    cancel_at: datetime | None = None
    ended_at: datetime | None = None
    latest_invoice: Annotated[_Invoice | None, BeforeValidator(_expanded)] = None
    test_clock: Annotated[_TestClock | None, BeforeValidator(_expanded)] = None


class _Dispute(BaseModel):
    id: str
    status: str
    reason: str


class _Charge(BaseModel):
    id: str
    customer: Annotated[str | None, BeforeValidator(_id)] = None
    payment_intent: Annotated[str | None, BeforeValidator(_id)] = None
    amount: int
    currency: str
    refunded: bool


class _SubscriptionDetails(BaseModel):
    subscription: Annotated[str | None, BeforeValidator(_id)] = None


class _Parent(BaseModel):
    subscription_details: _SubscriptionDetails | None = None


class _Bill(BaseModel):
    parent: _Parent | None = None

    @property
    def subscription(self) -> str | None:
        details = self.parent.subscription_details if self.parent else None
        return details.subscription if details else None


class _InvoicePayment(BaseModel):
    invoice: _Bill


M = TypeVar("M", bound=BaseModel)


def _read(model: type[M], raw: Mapping[str, Any], what: str) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
        raise UnreadableError(
            f"Stripe's answer about {what} has fields Berth does not understand ({fields}): upgrade Berth"
        ) from error


def _subscription(raw: Mapping[str, Any]) -> StripeSubscription:
    found = _read(_Subscription, raw, f"subscription {raw.get('id')}")
    clock = found.test_clock
    return StripeSubscription(
        id=found.id,
        status=found.status,
        customer_id=found.customer,
        items=tuple(_item(item) for item in found.items.data),
        cancel_at_period_end=found.cancel_at_period_end or found.cancel_at is not None,
        metadata=found.metadata,
        created=found.created,
        trial_end=found.trial_end,
        cancel_at=found.cancel_at,
        ended_at=found.ended_at,
        latest_invoice=_invoice(found.latest_invoice) if found.latest_invoice else None,
        test_clock=StripeTestClock(clock.id, clock.frozen_time) if clock else None,
    )


def _item(item: _Item) -> StripeItem:
    return StripeItem(
        price_id=item.price.id,
        lookup_key=item.price.lookup_key,
        interval=item.price.recurring.interval if item.price.recurring else None,
        quantity=item.quantity,
        current_period_start=item.current_period_start,
        current_period_end=item.current_period_end,
        made_for=item.price.product if PRICE_ORIGIN in item.price.metadata else None,
    )


def _invoice(invoice: _Invoice) -> StripeInvoice:
    return StripeInvoice(
        id=invoice.id,
        status=invoice.status,
        since=invoice.status_transitions.finalized_at or invoice.created,
        amount_due=invoice.amount_due,
        currency=invoice.currency,
        attempt_count=invoice.attempt_count,
    )


def _past_due_since(subscription: StripeSubscription, invoices: Sequence[StripeInvoice]) -> datetime:
    """When the failing began that goes on still: a paid bill ends it, a further unpaid one does not renew it.

    Told from Stripe's present state alone, so that whoever missed what was between comes to the same.
    """
    unpaid = [
        invoice.since
        for invoice in takewhile(lambda invoice: invoice.status != "paid", invoices)
        if invoice.status in {"open", "uncollectible"}
    ]
    if unpaid:
        return min(unpaid)
    latest = subscription.latest_invoice
    return latest.since if latest else min(item.current_period_start for item in subscription.items)
