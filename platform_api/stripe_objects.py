"""Stripe's objects as this service sees them: the few fields it acts upon."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import stripe

from catalogue.stripe_names import PRICE_ORIGIN


class _Named(Protocol):
    id: str


@dataclass(frozen=True, slots=True)
class Session:
    """A Checkout Session; status is `open`, `complete` or `expired`."""

    id: str
    status: str | None
    url: str | None
    subscription: str | None


@dataclass(frozen=True, slots=True)
class SoldPrice:
    """The price of a subscription's item; `made_for` is its Stripe product, if Berth made the price."""

    id: str
    lookup_key: str | None
    made_for: str | None
    interval: str | None


@dataclass(frozen=True, slots=True)
class StripeSubscription:
    """A subscription in any status."""

    id: str
    status: str
    prices: tuple[SoldPrice, ...]


@dataclass(frozen=True, slots=True)
class PromotionCode:
    """A code that lowers a price, maybe for one customer only."""

    id: str
    code: str
    active: bool
    customer: str | None
    expires_at: datetime | None
    used_up: bool


def session_of(found: stripe.checkout.Session) -> Session:
    """Return `found` in our words."""
    return Session(found.id, found.status, found.url, _id(found.subscription))


def subscription_of(found: stripe.Subscription) -> StripeSubscription:
    """Return `found` in our words."""
    prices = tuple(_price(item.price) for item in found.items.data)
    return StripeSubscription(found.id, found.status, prices)


def promotion_code_of(found: stripe.PromotionCode) -> PromotionCode:
    """Return `found` in our words."""
    most = found.max_redemptions
    return PromotionCode(
        id=found.id,
        code=found.code,
        active=found.active,
        customer=_id(found.customer),
        expires_at=None if found.expires_at is None else datetime.fromtimestamp(found.expires_at, UTC),
        used_up=most is not None and found.times_redeemed >= most,
    )


def _price(found: stripe.Price) -> SoldPrice:
    return SoldPrice(
        id=found.id,
        lookup_key=found.lookup_key,
        made_for=_id(found.product) if PRICE_ORIGIN in (found.metadata or {}) else None,
        interval=found.recurring.interval if found.recurring else None,
    )


def _id(found: str | _Named | None) -> str | None:
    """Return the id of what Stripe names by its id or, where it was asked to, shows whole."""
    return found if found is None or isinstance(found, str) else found.id
