"""What the catalogue wants at Stripe. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from catalogue.schema import UNLIMITED, AddOn, Catalogue, Interval, Plan, Price, Product
from catalogue.stripe_names import add_on_at_stripe, plan_at_stripe


@dataclass(frozen=True, slots=True)
class WantedPrice:
    """A price that the catalogue names by lookup key and amount.

    Attributes:
        product: the id of the Stripe product it should belong to.
        amount: in hundredths of `currency`.
        former: prices that may give their lookup key away to it, though Berth did not make them.
    """

    subject: str
    product: str
    lookup_key: str
    interval: Interval
    amount: int
    currency: str
    former: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckedPrice:
    """A price that the catalogue names by id: whoever made it keeps it right; `amount` None: any will do."""

    subject: str
    id: str
    interval: Interval
    amount: int | None
    currency: str


@dataclass(frozen=True, slots=True)
class WantedProduct:
    """A plan or an add-on as a Stripe product of Berth's making; `id` is ours to choose."""

    subject: str
    id: str
    name: str
    description: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that one product of the catalogue wants at Stripe.

    Attributes:
        offers: lookup keys or ids of the prices among which a customer may switch in the portal, by plan.
        negotiated: lookup keys whose amount the catalogue leaves open.
    """

    product: str
    products: tuple[WantedProduct, ...]
    prices: tuple[WantedPrice, ...]
    checked: tuple[CheckedPrice, ...]
    offers: tuple[tuple[str, ...], ...]
    negotiated: frozenset[str]


def wanted(catalogue: Catalogue) -> list[Wanted]:
    """Return what each product wants; a free plan wants nothing, for it is had without Stripe."""
    return [_of_product(product) for product in catalogue.products.values()]


def wanted_plan(product: Product, name: str) -> WantedProduct:
    """Return what a plan should be at Stripe."""
    plan = product.plans[name]
    limits = (
        f"{product.meters[meter].title}: {UNLIMITED if limit is None else f'{limit:,}'}"
        for meter, limit in plan.limits.items()
    )
    return WantedProduct(
        f"{product.product} {name}",
        plan_at_stripe(product.product, name),
        f"{product.title} {plan.title}",
        " · ".join(limits),
        {"berth_product": product.product, "berth_plan": name},
    )


def _wanted_add_on(product: Product, name: str) -> WantedProduct:
    add_on = product.add_ons[name]
    grants = (f"{product.meters[meter].title}: +{count:,}" for meter, count in add_on.grants.items())
    return WantedProduct(
        f"{product.product} {name}",
        add_on_at_stripe(product.product, name),
        f"{product.title} {add_on.title}",
        " · ".join(grants),
        {"berth_product": product.product, "berth_add_on": name},
    )


def _of_product(product: Product) -> Wanted:
    paid = {name: plan for name, plan in product.plans.items() if not plan.free}
    sold: list[tuple[WantedProduct, Plan | AddOn]] = [
        *((wanted_plan(product, name), plan) for name, plan in paid.items()),
        *((_wanted_add_on(product, name), add_on) for name, add_on in product.add_ons.items()),
    ]
    offers = (tuple(_offered(plan)) for plan in paid.values())
    prices = [price for _, one in sold for price in one.prices.values()]
    return Wanted(
        product.product,
        tuple(at_stripe for at_stripe, one in sold if _has_product_of_ours(one)),
        tuple(price for at_stripe, one in sold for price in _prices(at_stripe, one)),
        tuple(price for at_stripe, one in sold for price in _checked(at_stripe, one)),
        tuple(offer for offer in offers if offer),
        frozenset(price.lookup_key for price in prices if price.lookup_key and price.cents is None),
    )


def _has_product_of_ours(sold: Plan | AddOn) -> bool:
    """Whose every price is named by id lives in a product of the operator's own."""
    return not sold.prices or any(price.lookup_key for price in sold.prices.values())


def _prices(at_stripe: WantedProduct, sold: Plan | AddOn) -> Iterator[WantedPrice]:
    for interval, price in sold.prices.items():
        if price.lookup_key is not None and price.cents is not None:
            yield WantedPrice(
                f"{at_stripe.subject} {interval}",
                at_stripe.id,
                price.lookup_key,
                interval,
                price.cents,
                price.currency,
                price.former,
            )


def _checked(at_stripe: WantedProduct, sold: Plan | AddOn) -> Iterator[CheckedPrice]:
    for interval, price in sold.prices.items():
        if price.id is not None:
            subject = f"{at_stripe.subject} {interval}"
            yield CheckedPrice(subject, price.id, interval, price.cents, price.currency)


def _offered(plan: Plan) -> Iterator[str]:
    """What anybody may switch to: not a price made for somebody else."""
    for price in plan.prices.values():
        if _is_public(price):
            yield price.id or price.lookup_key or ""


def _is_public(price: Price) -> bool:
    return price.id is not None or price.cents is not None
