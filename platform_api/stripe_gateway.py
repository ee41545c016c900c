"""What we ask of Stripe, with bounds on time and retries, and its errors as problems."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar

import stripe

from catalogue.schema import Price
from platform_api import problems
from platform_api.customers.queries import Customer
from platform_api.logs import Log
from platform_api.problems import Problem
from platform_api.stripe_objects import (
    PromotionCode,
    Session,
    StripeSubscription,
    promotion_code_of,
    session_of,
    subscription_of,
)

if TYPE_CHECKING:
    from stripe.params import PromotionCodeListParams
    from stripe.params.billing_portal import SessionCreateParams as PortalCreateParams
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsSubscriptionData

T = TypeVar("T")
Found = TypeVar("Found")
Made = TypeVar("Made")

_ATTEMPT_TIMEOUT = 10.0  # seconds, one try
_CALL_TIMEOUT = 20.0  # seconds, all tries of one call
_RETRIES = 2
_MEMORY = 300.0  # seconds
_DEFAULT_RETRY_AFTER = 5  # seconds
_MAX_RETRY_AFTER = 120
_PAGE = 100
_MOST_SUBSCRIPTIONS = 500  # of one customer
PORTAL_PRODUCT = "berth_product"
"""The key of a portal configuration's metadata that says which product it is for."""


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A subscription to sell; `id` is ours, and makes a repeated request find the same session."""

    id: str
    customer_id: str
    stripe_customer_id: str
    price: Price
    trial_days: int
    promotion_code: str | None
    success_url: str
    cancel_url: str
    expires_at: datetime


class _Remembered(Generic[T]):
    """What Stripe answered some minutes ago at most."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[T, float]] = {}

    def get(self, key: str) -> T | None:
        value, until = self._known.get(key, (None, 0.0))
        return value if until > time.monotonic() else None

    def put(self, key: str, value: T) -> None:
        self._known[key] = (value, time.monotonic() + _MEMORY)

    def forget(self, key: str) -> None:
        self._known.pop(key, None)


@asynccontextmanager
async def open_client(api_key: str, api_url: str) -> AsyncIterator[stripe.StripeClient]:
    """Lend a client of the Stripe at `api_url`."""
    transport = stripe.HTTPXClient(timeout=_ATTEMPT_TIMEOUT)
    try:
        yield stripe.StripeClient(
            api_key, base_addresses={"api": api_url}, http_client=transport, max_network_retries=_RETRIES
        )
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]  # the library leaves it untyped


class CustomerGoneError(Exception):
    """Stripe has no such customer any more: somebody deleted them there, which ended all they had."""


class StripeGateway:
    """Stripe's API as this service uses it. Every method raises Problem (502 or 503) when Stripe will not."""

    def __init__(self, client: stripe.StripeClient, log: Log) -> None:
        self._client = client
        self._log = log
        self._prices = _Remembered[str]()
        self._configurations = _Remembered[Mapping[str, str]]()

    async def create_customer(self, customer: Customer, attempt: str) -> str:
        """Return the Stripe id of our customer, made if Stripe has none by that idempotency key.

        `attempt` is one attempt to buy: under a key Stripe repeats for a day even an error that it answered.
        """
        async with self._asking("create customer"):
            made = await self._client.v1.customers.create_async(
                {"email": customer.email, "name": customer.name, "metadata": {"berth_customer": customer.id}},
                {"idempotency_key": f"customer-{customer.id}-{attempt}"},
            )
        return made.id

    async def subscriptions(self, stripe_customer_id: str) -> list[StripeSubscription]:
        """Return the customer's subscriptions in every status, the newest 500; none if they are gone."""
        found: list[StripeSubscription] = []
        async with self._asking("list subscriptions"):
            try:
                page = await self._client.v1.subscriptions.list_async(
                    {"customer": stripe_customer_id, "status": "all", "limit": _PAGE}
                )
            except stripe.InvalidRequestError as error:
                if _has_no_customer(error):
                    return []
                raise
            async for one in page.auto_paging_iter():
                found.append(subscription_of(one))
                if len(found) == _MOST_SUBSCRIPTIONS:
                    break
        return found

    async def promotion_codes(self, code: str, *, only_active: bool) -> list[PromotionCode]:
        """Return the promotion codes that read `code` in any case, the newest hundred of them."""
        params: PromotionCodeListParams = {"code": code, "limit": _PAGE}
        if only_active:
            params["active"] = True
        async with self._asking("list promotion codes"):
            found = await self._client.v1.promotion_codes.list_async(params)
        return [promotion_code_of(one) for one in found.data]

    async def create_session(self, request: SessionRequest) -> Session:
        """Open a Checkout Session, or find the one a lost answer opened.

        Raises:
            Problem: also 400, the promotion code is not for this customer or purchase.
            CustomerGoneError: there is nobody to sell to.
        """
        return await self._with_what_is_current(
            lambda: self._price_id(request.price),
            lambda: self._prices.forget(request.price.lookup_key or ""),
            lambda price_id: self._create_session(request, price_id),
        )

    async def session(self, session_id: str) -> Session:
        """Return the session as it is now."""
        async with self._asking("retrieve checkout session"):
            found = await self._client.v1.checkout.sessions.retrieve_async(session_id)
        return session_of(found)

    async def end_session(self, session_id: str) -> Session:
        """Expire the session if it is still open; either way return it as it then is."""
        async with self._asking("expire checkout session"):
            with contextlib.suppress(stripe.InvalidRequestError):  # it was not open
                return session_of(await self._client.v1.checkout.sessions.expire_async(session_id))
        return await self.session(session_id)

    async def open_portal(self, stripe_customer_id: str, product: str | None, return_url: str) -> str:
        """Return the address of a billing portal for the customer, configured for `product` where one is.

        Raises:
            CustomerGoneError: nothing of theirs is there any more.
        """
        return await self._with_what_is_current(
            lambda: self._configuration(product),
            lambda: self._configurations.forget(""),
            lambda configuration: self._open_portal(stripe_customer_id, configuration, return_url),
        )

    async def _with_what_is_current(
        self,
        find: Callable[[], Awaitable[Found]],
        forget: Callable[[], None],
        use: Callable[[Found], Awaitable[Made]],
    ) -> Made:
        """Use what `find` remembers; if Stripe refuses it, use what there is by now, if that is another."""
        found = await find()
        try:
            return await use(found)
        except Problem as refused:
            if refused.kind is problems.BILLING_UNAVAILABLE:
                raise
            forget()
            if (again := await find()) == found:
                raise
            return await use(again)

    async def _price_id(self, price: Price) -> str:
        """Return the id of the active price that carries the lookup key, unless the catalogue names it."""
        if price.lookup_key is None:
            return price.id or ""
        if (known := self._prices.get(price.lookup_key)) is not None:
            return known
        async with self._asking("list prices"):
            found = await self._client.v1.prices.list_async(
                {"lookup_keys": [price.lookup_key], "active": True, "limit": 1}
            )
        if not found.data:
            self._log.error("Stripe has no active price for a plan on sale", lookup_key=price.lookup_key)
            raise Problem(
                problems.BILLING_UNAVAILABLE,
                "This plan cannot be bought at the moment; we have been told.",
                retry_after=_MAX_RETRY_AFTER,
            )
        self._prices.put(price.lookup_key, found.data[0].id)
        return found.data[0].id

    async def _create_session(self, request: SessionRequest, price_id: str) -> Session:
        # The key names customer and price too: with others it is another request, which Stripe would refuse
        # under the key of the first.
        key = f"checkout-{request.id}-{request.stripe_customer_id}-{price_id}"
        async with self._asking("create checkout session"):
            try:
                made = await self._client.v1.checkout.sessions.create_async(
                    _session_params(request, price_id), {"idempotency_key": key}
                )
            except stripe.InvalidRequestError as error:
                if _has_no_customer(error):
                    raise CustomerGoneError from error
                if request.promotion_code is not None and _is_about_discounts(error):
                    raise Problem(problems.PROMO_CODE, _refusal(error)) from error
                raise
        return session_of(made)

    async def _configuration(self, product: str | None) -> str | None:
        if product is None:
            return None
        known = self._configurations.get("")
        if known is None:
            async with self._asking("list portal configurations"):
                found = await self._client.v1.billing_portal.configurations.list_async(
                    {"active": True, "limit": _PAGE}
                )
            known = {
                one.metadata[PORTAL_PRODUCT]: one.id
                for one in found.data
                if one.metadata is not None and PORTAL_PRODUCT in one.metadata
            }
            self._configurations.put("", known)
        return known.get(product)

    async def _open_portal(self, stripe_customer_id: str, configuration: str | None, return_url: str) -> str:
        params: PortalCreateParams = {"customer": stripe_customer_id, "return_url": return_url}
        if configuration is not None:
            params["configuration"] = configuration
        async with self._asking("create portal session"):
            try:
                made = await self._client.v1.billing_portal.sessions.create_async(params)
            except stripe.InvalidRequestError as error:
                if _has_no_customer(error):
                    raise CustomerGoneError from error
                raise
        return made.url

    @asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                yield
        except TimeoutError as error:
            raise _unavailable(_DEFAULT_RETRY_AFTER) from error
        except (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError) as error:
            self._log.warning("Stripe is unavailable", call=what, status=error.http_status, code=error.code)
            raise _unavailable(_retry_after(error)) from error
        except stripe.StripeError as error:
            self._log.error(
                "Stripe refused a request of ours",
                call=what,
                error=type(error).__name__,
                status=error.http_status,
                code=error.code,
                param=getattr(error, "param", None),
                stripe_request=error.request_id,
            )
            raise Problem(
                problems.BILLING_REFUSED, "Nothing was bought; we have been told, try again later."
            ) from error


def _session_params(request: SessionRequest, price_id: str) -> "SessionCreateParams":
    terms: SessionCreateParamsSubscriptionData = {"metadata": {"berth_checkout": request.id}}
    if request.trial_days > 0:
        terms["trial_period_days"] = request.trial_days
    params: SessionCreateParams = {
        "mode": "subscription",
        "customer": request.stripe_customer_id,
        "client_reference_id": request.customer_id,
        "line_items": [{"price": price_id, "quantity": 1}],
        "subscription_data": terms,
        "metadata": {"berth_checkout": request.id},
        "success_url": request.success_url,
        "cancel_url": request.cancel_url,
        "expires_at": int(request.expires_at.timestamp()),
    }
    if request.promotion_code is None:
        params["allow_promotion_codes"] = True
    else:
        params["discounts"] = [{"promotion_code": request.promotion_code}]
    return params


def _has_no_customer(error: stripe.InvalidRequestError) -> bool:
    """Whether Stripe refuses because it has no such customer, or has none any more."""
    return (error.code, error.param) == ("resource_missing", "customer")


def _is_about_discounts(error: stripe.InvalidRequestError) -> bool:
    """Whether a discount is what Stripe refuses; it does not always name the parameter when one is."""
    param: str | None = error.param
    return param is None or param.startswith("discounts")


def _refusal(error: stripe.StripeError) -> str:
    """Stripe's own sentence, which speaks of the code and the customer only, and what to do."""
    said = (error.user_message or "").strip().rstrip(".")[:300] or "The promotion code cannot be used here"
    return f"{said}. Leave it out, or use another."


def _unavailable(retry_after: int) -> Problem:
    return Problem(
        problems.BILLING_UNAVAILABLE,
        "Nothing was bought and no name is held; try again in a moment.",
        retry_after=retry_after,
    )


def _retry_after(error: stripe.StripeError) -> int:
    headers = {name.lower(): value for name, value in dict(error.headers or {}).items()}
    given = str(headers.get("retry-after", ""))
    return min(max(int(given), 1), _MAX_RETRY_AFTER) if given.isdecimal() else _DEFAULT_RETRY_AFTER
