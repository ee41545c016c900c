"""What differs between the catalogue and Stripe, and what would mend it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from catalogue.money import in_figures
from catalogue.schema import Catalogue
from catalogue.stripe_names import BY_AGREEMENT, FROM_CATALOGUE, PREFIX
from scripts.stripe_catalogue.wanted import CheckedPrice, Wanted, WantedPrice, WantedProduct, wanted

MOST_OFFERS = 10
"""Stripe's bound on the products of a portal configuration."""


@dataclass(frozen=True, slots=True)
class ProductNow:
    """A product as Stripe has it."""

    id: str
    name: str
    description: str
    active: bool
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PriceNow:
    """A price as Stripe has it.

    Attributes:
        interval: `month` or `year`, `3 month` and the like; None when it is paid once.
        amount: in hundredths of `currency`; None when it is not a fixed amount.
        origin: what Berth noted when it made it; None for a price it did not make.
    """

    id: str
    product: str
    active: bool
    lookup_key: str | None
    interval: str | None
    amount: int | None
    currency: str
    origin: str | None


@dataclass(frozen=True, slots=True)
class PortalSettings:
    """What customers may do in the billing portal.

    Attributes:
        offers: Stripe product → the prices of it they may switch to; empty when they may not switch at all.
        cancel: when canceling ends a subscription.
        payment_method: whether they may change it.
        invoices: whether they see their bills.
        proration: how a switch is billed.
        updates: what of a subscription they may switch.
    """

    offers: Mapping[str, frozenset[str]]
    cancel: str | None = "at_period_end"
    payment_method: bool = True
    invoices: bool = True
    proration: str = "create_prorations"
    updates: frozenset[str] = frozenset({"price"})


@dataclass(frozen=True, slots=True)
class PortalNow:
    """A portal configuration as Stripe has it, which Berth made for `product` of the catalogue."""

    id: str
    product: str
    active: bool
    settings: PortalSettings


@dataclass(frozen=True, slots=True)
class AtStripe:
    """All that Stripe has of what concerns us."""

    products: Mapping[str, ProductNow] = field(default_factory=dict)
    prices: Mapping[str, PriceNow] = field(default_factory=dict)
    portals: tuple[PortalNow, ...] = ()

    def by_lookup_key(self) -> dict[str, PriceNow]:
        """Return the prices that have a lookup key, of which Stripe gives each to one only."""
        return {price.lookup_key: price for price in self.prices.values() if price.lookup_key}


@dataclass(frozen=True, slots=True)
class CreateProduct:
    """Make it under the id it has in `product`."""

    product: WantedProduct


@dataclass(frozen=True, slots=True)
class UpdateProduct:
    """Give it its name, description and metadata, and let it be sold."""

    product: WantedProduct


@dataclass(frozen=True, slots=True)
class CreatePrice:
    """Make it; it takes the lookup key from `replaces`."""

    price: WantedPrice
    replaces: PriceNow | None = None


@dataclass(frozen=True, slots=True)
class AdoptPrice:
    """Let it be sold, and note that it is the catalogue's."""

    id: str


@dataclass(frozen=True, slots=True)
class ArchivePrice:
    """Sell it no more; who subscribed to it keeps it."""

    id: str


@dataclass(frozen=True, slots=True)
class ArchiveProduct:
    """Sell nothing of it any more."""

    id: str


@dataclass(frozen=True, slots=True)
class SetPortal:
    """Make the portal configuration, or correct it; `offers` names prices by lookup key or id, by plan."""

    product: str
    id: str | None
    offers: tuple[tuple[str, ...], ...]


Change = CreateProduct | UpdateProduct | CreatePrice | AdoptPrice | ArchivePrice | ArchiveProduct | SetPortal


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not at Stripe as the catalogue says.

    Attributes:
        subject: what it is about, such as `mindroom starter month`.
        what: what differs.
        remedy: what is done about it.
        change: how `push` does that; None when a person must.
    """

    subject: str
    what: str
    remedy: str
    change: Change | None = None


def differences(catalogue: Catalogue, now: AtStripe, *, archive: bool = False) -> list[Difference]:
    """Return all that differs, in the order in which it is to be mended.

    Args:
        catalogue: what should be sold.
        now: what Stripe has.
        archive: whether to archive what the catalogue names no more; else it is only told.
    """
    all_wanted = wanted(catalogue)
    found: list[Difference] = []
    for one in all_wanted:
        found += _products(one, now)
    for one in all_wanted:
        found += _prices(one, now)
    for one in all_wanted:
        found += _portal(one, now)
    return [*found, *_left_over(all_wanted, now, archive=archive)]


def _products(one: Wanted, now: AtStripe) -> Iterator[Difference]:
    for product in one.products:
        held = now.products.get(product.id)
        if held is None:
            yield Difference(product.subject, "is not at Stripe", "make the product", CreateProduct(product))
        elif wrong := _wrong(product, held):
            remedy = "correct the product"
            yield Difference(
                product.subject, f"has another {wrong} at Stripe", remedy, UpdateProduct(product)
            )


def _wrong(product: WantedProduct, held: ProductNow) -> str:
    """What of a product differs, in words."""
    same_metadata = product.metadata.items() <= held.metadata.items()
    compared = {
        "name": product.name == held.name,
        "description": product.description == held.description,
        "state (archived)": held.active,
        "metadata": same_metadata,
    }
    return " and ".join(name for name, same in compared.items() if not same)


def _prices(one: Wanted, now: AtStripe) -> Iterator[Difference]:
    holders = now.by_lookup_key()
    for price in one.prices:
        held = holders.get(price.lookup_key)
        if held is None:
            what = f"has no price at Stripe ({price.lookup_key})"
            yield Difference(price.subject, what, f"make it: {_money(price)}", CreatePrice(price))
        elif _terms(held) != _terms(price):
            yield _other_terms(price, held)
        elif not held.active:
            yield Difference(price.subject, "is archived at Stripe", "sell it again", AdoptPrice(held.id))
        elif held.product == price.product and held.origin is None:
            what = f"{held.id} was made by hand"
            yield Difference(price.subject, what, "note that it is the catalogue's", AdoptPrice(held.id))
    for checked in one.checked:
        yield from _check(checked, now.prices.get(checked.id))


def _other_terms(price: WantedPrice, held: PriceNow) -> Difference:
    what = f"costs {_money(price)} here, {_money(held)} at Stripe"
    if held.product != price.product and held.id not in price.former:
        return Difference(
            price.subject,
            f"{what} ({held.id}, a price Berth did not make)",
            f"add 'former: [{held.id}]' to the price in the catalogue, so that who subscribed to it is still"
            " known, and push again",
        )
    remedy = f"make a new price and archive {held.id}; who subscribed keeps it"
    return Difference(price.subject, what, remedy, CreatePrice(price, held))


def _check(checked: CheckedPrice, held: PriceNow | None) -> Iterator[Difference]:
    if held is None:
        remedy = "name a price of this account and mode (test or live), or use a lookup key"
        yield Difference(checked.subject, f"{checked.id} is not at Stripe", remedy)
        return
    if not held.active:
        remedy = "make another price and name that; keep this one under 'former'"
        yield Difference(checked.subject, f"{checked.id} is archived at Stripe", remedy)
    amount = held.amount if checked.amount is None else checked.amount
    if (amount, checked.currency, checked.interval) != _terms(held):
        here = _amount(amount, checked.currency, checked.interval)
        what = f"costs {here} here, {_money(held)} at Stripe ({checked.id})"
        yield Difference(checked.subject, what, "correct the catalogue, or name another price")


def _portal(one: Wanted, now: AtStripe) -> Iterator[Difference]:
    subject = f"{one.product} portal"
    if len(one.offers) > MOST_OFFERS:
        what = f"would offer {len(one.offers)} plans; Stripe's portal takes {MOST_OFFERS}"
        yield Difference(subject, what, "take the public prices off the plans that are not sold any more")
        return
    settings = _portal_settings(one, now)
    portals = [portal for portal in now.portals if portal.product == one.product]
    if not portals:
        what = "has no configuration at Stripe"
        yield Difference(subject, what, "make it", SetPortal(one.product, None, one.offers))
    for portal in portals:
        if not portal.active or portal.settings != settings:
            what = f"{portal.id} lets customers do something else at Stripe"
            yield Difference(subject, what, "correct it", SetPortal(one.product, portal.id, one.offers))


def _portal_settings(one: Wanted, now: AtStripe) -> PortalSettings | None:
    """What the portal should be; None while a price that it offers is missing or about to be replaced."""
    holders = now.by_lookup_key()
    replaced = {
        price.lookup_key
        for price in one.prices
        if (held := holders.get(price.lookup_key)) is not None and _terms(held) != _terms(price)
    }
    offers: dict[str, set[str]] = {}
    for names in one.offers:
        for name in names:
            price = holders.get(name) or now.prices.get(name)
            if price is None or name in replaced:
                return None
            offers.setdefault(price.product, set()).add(price.id)
    return portal_settings(offers)


def portal_settings(offers: Mapping[str, set[str]]) -> PortalSettings:
    """Return what customers may do in the portal when they may switch among `offers`."""
    return PortalSettings({product: frozenset(prices) for product, prices in offers.items()})


def _left_over(all_wanted: list[Wanted], now: AtStripe, *, archive: bool) -> Iterator[Difference]:
    products = {product.id: product for one in all_wanted for product in one.products}
    for held in now.products.values():
        if _is_ours(held) and held.active and held.id not in products:
            what = f"{held.id} is at Stripe, but not in the catalogue"
            yield _unnamed(held.name, what, ArchiveProduct(held.id), archive=archive)
    intervals = {(price.product, price.interval) for one in all_wanted for price in one.prices}
    named = {price.lookup_key for one in all_wanted for price in one.prices}
    named |= {key for one in all_wanted for key in one.negotiated}
    named |= {price.id for one in all_wanted for price in one.checked}
    named |= {id_ for one in all_wanted for price in one.prices for id_ in price.former}
    for price in now.prices.values():
        if not price.active or price.origin == BY_AGREEMENT or {price.id, price.lookup_key} & named:
            continue
        product = now.products.get(price.product)
        if product is None or not _is_ours(product):
            continue
        if price.origin == FROM_CATALOGUE and (price.product, price.interval) in intervals:
            what = f"{price.id} ({_money(price)}) was replaced, but is still sold at Stripe"
            yield Difference(
                product.name, what, "archive it; who subscribed keeps it", ArchivePrice(price.id)
            )
        else:
            what = f"{price.id} ({_money(price)}) is sold at Stripe, but not in the catalogue"
            yield _unnamed(product.name, what, ArchivePrice(price.id), archive=archive)


def _unnamed(subject: str, what: str, change: Change, *, archive: bool) -> Difference:
    if archive:
        return Difference(subject, what, "archive it", change)
    return Difference(subject, what, "put it back into the catalogue, or push with --archive")


def _is_ours(product: ProductNow) -> bool:
    return product.id.startswith(PREFIX) and "berth_product" in product.metadata


def _terms(price: WantedPrice | PriceNow) -> tuple[int | None, str, str | None]:
    return price.amount, price.currency, price.interval


def _money(price: WantedPrice | PriceNow) -> str:
    return _amount(price.amount, price.currency, price.interval)


def _amount(amount: int | None, currency: str, interval: str | None) -> str:
    how_much = "no fixed amount" if amount is None else in_figures(amount, currency)
    return f"{how_much} {currency} " + ("once" if interval is None else f"a {interval}")
