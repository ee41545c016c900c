"""What Stripe says now. A thin layer over the official client: typed rows out, our two kinds of error."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Annotated, Any, Self

import stripe
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

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


@dataclass(frozen=True, slots=True)
class StripeItem:
    """One line of a subscription. `current_period_end` is when it renews."""

    price_id: str
    lookup_key: str | None
    interval: str | None
    quantity: int
    current_period_end: datetime


@dataclass(frozen=True, slots=True)
class StripeSubscription:
    """A subscription as Stripe has it at this moment; times are aware, `items` has at least one."""

    id: str
    status: str
    customer_id: str
    items: tuple[StripeItem, ...]
    cancel_at_period_end: bool
    metadata: Mapping[str, str]
    created: datetime
    trial_end: datetime | None

    @property
    def current_period_end(self) -> datetime:
        """When the first of its items renews."""
        return min(item.current_period_end for item in self.items)


class StripeClient:
    """Fetches from Stripe, or from what stands in for it at `url`.

    Args:
        api_key: a secret or restricted key that may read subscriptions.
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
                found = await self._client.v1.subscriptions.retrieve_async(subscription_id)
        except (stripe.StripeError, TimeoutError) as error:
            raise _translated(error, f"subscription {subscription_id}") from error
        return _subscription(found.to_dict())

    async def list_subscriptions(self) -> AsyncIterator[StripeSubscription]:
        """Every subscription that was not canceled, newest first.

        Raises:
            TemporaryError, PermanentError: as `fetch_subscription`; what was yielded before is incomplete.
        """
        after: str | None = None
        for _ in range(MOST_PAGES):
            page = await self._page(after)
            for found in page.data:
                yield _subscription(found.to_dict())
            if not page.has_more or not page.data:
                return
            after = page.data[-1].id
        raise PermanentError(f"Stripe lists more than {MOST_PAGES * PAGE} subscriptions: raise MOST_PAGES")

    async def _page(self, after: str | None) -> stripe.ListObject[stripe.Subscription]:
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                if after is None:
                    return await self._client.v1.subscriptions.list_async({"limit": PAGE})
                return await self._client.v1.subscriptions.list_async(
                    {"limit": PAGE, "starting_after": after}
                )
        except (stripe.StripeError, TimeoutError) as error:
            raise _translated(error, "the list of subscriptions") from error


def _translated(error: stripe.StripeError | TimeoutError, what: str) -> Exception:
    match error:
        case stripe.InvalidRequestError(http_status=404):
            return NotFoundError(
                f"Stripe has no {what}: check that BERTH_STRIPE_API_KEY is of the account, and of the mode"
                " (test or live), that it came from"
            )
        case stripe.AuthenticationError() | stripe.PermissionError():
            return PermanentError(
                f"Stripe refused the key when asked for {what}: put one that may read subscriptions into"
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


class _Recurring(BaseModel):
    interval: str


class _Price(BaseModel):
    id: str
    lookup_key: str | None = None
    recurring: _Recurring | None = None


class _Item(BaseModel):
    price: _Price
    quantity: int = 1
    current_period_end: datetime


class _Items(BaseModel):
    data: list[_Item] = Field(min_length=1)


def _id(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value


class _Subscription(BaseModel):
    id: str
    status: str
    customer: Annotated[str, BeforeValidator(_id)]
    items: _Items
    cancel_at_period_end: bool
    metadata: dict[str, str] = {}
    created: datetime
    trial_end: datetime | None = None


def _subscription(raw: Mapping[str, Any]) -> StripeSubscription:
    try:
        found = _Subscription.model_validate(raw)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
        raise PermanentError(
            f"Stripe's subscription {raw.get('id')} has fields Berth does not understand ({fields}): upgrade"
            " Berth"
        ) from error
    return StripeSubscription(
        id=found.id,
        status=found.status,
        customer_id=found.customer,
        items=tuple(_item(item) for item in found.items.data),
        cancel_at_period_end=found.cancel_at_period_end,
        metadata=found.metadata,
        created=found.created.astimezone(UTC),
        trial_end=found.trial_end,
    )


def _item(item: _Item) -> StripeItem:
    return StripeItem(
        price_id=item.price.id,
        lookup_key=item.price.lookup_key,
        interval=item.price.recurring.interval if item.price.recurring else None,
        quantity=item.quantity,
        current_period_end=item.current_period_end,
    )
