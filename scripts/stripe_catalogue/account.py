"""A Stripe account: reads what the catalogue is compared with, and carries out what should change.

Every change may be repeated, and may be made by two at once: products have ids of our choosing, a lookup key
is one price's only, and what has neither goes under an idempotency key.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import stripe
from stripe import StripeClient
from stripe.billing_portal import Configuration

from catalogue.schema import Interval
from catalogue.stripe_names import BY_AGREEMENT, FROM_CATALOGUE, PRICE_ORIGIN
from scripts.stripe_catalogue.differences import (
    AdoptPrice,
    ArchivePrice,
    ArchiveProduct,
    AtStripe,
    Change,
    CreatePrice,
    CreateProduct,
    PortalNow,
    PortalSettings,
    PriceNow,
    ProductNow,
    SetPortal,
    UpdateProduct,
    portal_settings,
)
from scripts.stripe_catalogue.wanted import WantedProduct

if TYPE_CHECKING:
    from stripe.params import PriceCreateParams
    from stripe.params.billing_portal import ConfigurationCreateParamsFeatures, ConfigurationUpdateParams

PAGE: Final = 100
MOST_PAGES: Final = 500
SLOW_DOWN: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait when Stripe asks to slow down: the official client does not repeat those calls."""
_PRODUCT_KEY: Final = "berth_product"
_OFFERS: Final = "features.subscription_update.products"

T = TypeVar("T")


S = TypeVar("S", stripe.Product, stripe.Price, Configuration)


class Account:
    """One Stripe account, in the mode (test or live) of the client's key."""

    def __init__(self, client: StripeClient) -> None:
        self._v1 = client.v1

    async def read(self) -> AtStripe:
        """Read all products, prices and portal configurations.

        Raises:
            stripe.StripeError: Stripe did not answer, or refused.
        """
        products = [_product(one) async for one in _all(self._v1.products.list_async)]
        prices = [_price(one) async for one in _all(self._v1.prices.list_async)]
        expand = {"expand": [f"data.{_OFFERS}"]}
        portals = [
            _portal(one)
            async for one in _all(self._v1.billing_portal.configurations.list_async, expand)
            if _PRODUCT_KEY in one.to_dict()["metadata"]
        ]
        return AtStripe({p.id: p for p in products}, {p.id: p for p in prices}, tuple(portals))

    async def apply(self, change: Change) -> None:
        """Carry out one change.

        Raises:
            stripe.StripeError: Stripe did not answer, or refused.
        """
        match change:
            case CreateProduct(product):
                await self._create_product(product)
            case UpdateProduct(product):
                await self._update_product(product)
            case CreatePrice():
                await self._create_price(change)
            case AdoptPrice(id_):
                await self._adopt(id_)
            case ArchivePrice(id_):
                await _patiently(lambda: self._v1.prices.update_async(id_, {"active": False}))
            case ArchiveProduct(id_):
                await _patiently(lambda: self._v1.products.update_async(id_, {"active": False}))
            case SetPortal():
                await self._set_portal(change)

    async def create_agreed_price(
        self, product: str, amount: int, currency: str, interval: Interval, lookup_key: str | None
    ) -> str:
        """Make a price that was agreed upon with one customer, and return its id.

        Args:
            product: the Stripe product of the plan, which `push` made.
            amount: in hundredths of `currency`.
            currency: three small letters.
            interval: how often it is paid.
            lookup_key: taken from the price that had it, which goes on selling the plan.

        Raises:
            stripe.StripeError: Stripe did not answer, or refused.
        """
        params: PriceCreateParams = {
            "product": product,
            "currency": currency,
            "unit_amount": amount,
            "recurring": {"interval": interval},
            "metadata": {PRICE_ORIGIN: BY_AGREEMENT},
        }
        if lookup_key is not None:
            params["lookup_key"] = lookup_key
            params["transfer_lookup_key"] = True
        return (await _patiently(lambda: self._v1.prices.create_async(params))).id

    async def _create_product(self, product: WantedProduct) -> None:
        await _patiently(
            lambda: self._v1.products.create_async(
                {
                    "id": product.id,
                    "name": product.name,
                    "description": product.description,
                    "metadata": dict(product.metadata),
                }
            )
        )

    async def _update_product(self, product: WantedProduct) -> None:
        await _patiently(
            lambda: self._v1.products.update_async(
                product.id,
                {
                    "name": product.name,
                    "description": product.description,
                    "metadata": dict(product.metadata),
                    "active": True,
                },
            )
        )

    async def _create_price(self, change: CreatePrice) -> None:
        price, replaced = change.price, change.replaces
        params: PriceCreateParams = {
            "product": price.product,
            "currency": price.currency,
            "unit_amount": price.amount,
            "recurring": {"interval": price.interval},
            "lookup_key": price.lookup_key,
            "metadata": {PRICE_ORIGIN: FROM_CATALOGUE},
        }
        if replaced is None:
            await _patiently(lambda: self._v1.prices.create_async(params))
            return
        ours = replaced.product == price.product
        if ours and replaced.origin is None:
            await self._adopt(replaced.id)  # before its lookup key goes, or its subscribers would be unknown
        params["transfer_lookup_key"] = True
        key = f"berth-price-{replaced.id}-{price.amount}-{price.currency}-{price.interval}"
        await _patiently(lambda: self._v1.prices.create_async(params, {"idempotency_key": key}))
        if ours:
            await self.apply(ArchivePrice(replaced.id))

    async def _adopt(self, price: str) -> None:
        metadata = {PRICE_ORIGIN: FROM_CATALOGUE}
        await _patiently(lambda: self._v1.prices.update_async(price, {"active": True, "metadata": metadata}))

    async def _set_portal(self, change: SetPortal) -> None:
        offers = await self._offers(change.offers)
        if offers is None:
            return  # a price is missing still: the next look at the account tells
        features = _features(portal_settings(offers))
        if change.id is not None:
            # The library has the features' one shape under two names.
            params = cast("ConfigurationUpdateParams", {"features": features, "active": True})
            configurations, known = self._v1.billing_portal.configurations, change.id
            await _patiently(lambda: configurations.update_async(known, params))
            return
        digest = hashlib.sha256(repr(sorted((p, sorted(ids)) for p, ids in offers.items())).encode())
        key = f"berth-portal-{change.product}-{digest.hexdigest()[:16]}"
        await _patiently(
            lambda: self._v1.billing_portal.configurations.create_async(
                {"features": features, "metadata": {_PRODUCT_KEY: change.product}}, {"idempotency_key": key}
            )
        )

    async def _offers(self, wanted: tuple[tuple[str, ...], ...]) -> dict[str, set[str]] | None:
        """Stripe product → prices; None while one of them is missing."""
        offers: dict[str, set[str]] = {}
        for names in wanted:
            for name in names:
                price = await self._find_price(name)
                if price is None:
                    return None
                offers.setdefault(price.product, set()).add(price.id)
        return offers

    async def _find_price(self, name: str) -> PriceNow | None:
        found = await _patiently(lambda: self._v1.prices.list_async({"lookup_keys": [name], "limit": 1}))
        if found.data:
            return _price(found.data[0])
        if not name.startswith("price_"):
            return None
        return _price(await _patiently(lambda: self._v1.prices.retrieve_async(name)))


async def _all(
    list_: Callable[[Any], Awaitable[stripe.ListObject[S]]], params: dict[str, Any] | None = None
) -> AsyncIterator[S]:
    """Every object of a list, page by page."""
    asked: dict[str, Any] = {"limit": PAGE, **(params or {})}
    for _ in range(MOST_PAGES):
        page = await _patiently(lambda: list_(asked))
        for one in page.data:
            yield one
        if not page.has_more or not page.data:
            return
        asked["starting_after"] = page.data[-1].id
    raise OverflowError(f"Stripe lists more than {MOST_PAGES * PAGE} objects of one kind: raise MOST_PAGES")


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call, and again a little later when Stripe asks to slow down."""
    for wait in SLOW_DOWN:
        try:
            return await call()
        except stripe.RateLimitError:
            await asyncio.sleep(wait)
    return await call()


def _product(one: stripe.Product) -> ProductNow:
    raw = one.to_dict()
    return ProductNow(raw["id"], raw["name"], raw["description"] or "", raw["active"], raw["metadata"])


def _price(one: stripe.Price) -> PriceNow:
    raw = one.to_dict()
    recurring = raw["recurring"] or {"interval": None, "interval_count": 1}
    interval, count = recurring["interval"], recurring["interval_count"]
    return PriceNow(
        id=raw["id"],
        product=raw["product"],
        active=raw["active"],
        lookup_key=raw["lookup_key"],
        interval=interval if count == 1 else f"{count} {interval}",
        amount=raw["unit_amount"],
        currency=raw["currency"],
        origin=raw["metadata"].get(PRICE_ORIGIN),
    )


def _portal(one: Configuration) -> PortalNow:
    raw = one.to_dict()
    features = raw["features"]
    update, cancel = features["subscription_update"], features["subscription_cancel"]
    settings = PortalSettings(
        offers={},
        cancel=cancel["mode"] if cancel["enabled"] else None,
        payment_method=features["payment_method_update"]["enabled"],
        invoices=features["invoice_history"]["enabled"],
    )
    if update["enabled"]:
        settings = replace(
            settings,
            offers={offer["product"]: frozenset(offer["prices"]) for offer in update.get("products") or ()},
            proration=update["proration_behavior"],
            updates=frozenset(update["default_allowed_updates"]),
        )
    return PortalNow(raw["id"], raw["metadata"][_PRODUCT_KEY], raw["active"], settings)


def _features(settings: PortalSettings) -> "ConfigurationCreateParamsFeatures":
    features: ConfigurationCreateParamsFeatures = {
        "payment_method_update": {"enabled": settings.payment_method},
        "invoice_history": {"enabled": settings.invoices},
        "subscription_cancel": {"enabled": True, "mode": settings.cancel or ""},
        "subscription_update": {"enabled": False},
    }
    if settings.offers:
        features["subscription_update"] = {
            "enabled": True,
            "default_allowed_updates": sorted(settings.updates),
            "proration_behavior": settings.proration,
            "products": [
                {"product": product, "prices": sorted(prices)}
                for product, prices in sorted(settings.offers.items())
            ],
        }
    return features
