"""From the lines of a Stripe subscription to what the catalogue calls it. Pure.

Prices alone decide; metadata is never believed for a plan or an add-on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from catalogue.schema import Catalogue, Interval, PricedAddOn, PricedPlan, Purchase
from provisioner.contract.errors import PermanentError


class Line(Protocol):
    """A line of a subscription."""

    @property
    def price_id(self) -> str:
        """Stripe's id of the price."""
        ...

    @property
    def lookup_key(self) -> str | None:
        """The price's name, the same in test and live mode."""
        ...

    @property
    def made_for(self) -> str | None:
        """The Stripe product of the price, if Berth made it: so a price of the past is known."""
        ...

    @property
    def interval(self) -> str | None:
        """How often it is paid."""
        ...

    @property
    def quantity(self) -> int:
        """How many are bought."""
        ...


@dataclass(frozen=True, slots=True)
class Sale:
    """What is bought, and the price and interval of its plan."""

    purchase: Purchase
    interval: Interval
    price_id: str


class UnknownPriceError(PermanentError):
    """The catalogue does not have a price. `foreign`: it has none of the subscription's prices."""

    def __init__(self, message: str, *, foreign: bool) -> None:
        super().__init__(message)
        self.foreign = foreign


def sale(catalogue: Catalogue, subscription_id: str, lines: Sequence[Line]) -> Sale:
    """Say what `lines` buy: one plan, its quantity multiplying its limits, and any add-ons of its product.

    A line of quantity zero buys nothing.

    Raises:
        UnknownPriceError: a price is not in the catalogue.
        PermanentError: there is not exactly one plan, or an add-on belongs to another product.
    """
    bought = [line for line in lines if line.quantity > 0]
    found = [
        catalogue.sold_by(line.price_id, line.lookup_key, line.made_for, line.interval) for line in bought
    ]
    unknown = [line for line, sold in zip(bought, found, strict=True) if sold is None]
    if unknown:
        raise UnknownPriceError(_unknown(subscription_id, unknown), foreign=len(unknown) == len(bought))
    plans = [(line, sold) for line, sold in zip(bought, found, strict=True) if isinstance(sold, PricedPlan)]
    if len(plans) != 1:
        raise PermanentError(_not_one_plan(subscription_id, [sold for _, sold in plans]))
    ((line, plan),) = plans
    extras = [(line, sold) for line, sold in zip(bought, found, strict=True) if isinstance(sold, PricedAddOn)]
    add_ons = _add_ons(subscription_id, plan, extras)
    purchase = Purchase(plan.product, plan.plan_name, line.quantity, add_ons)
    return Sale(purchase, plan.interval, line.price_id)


def _add_ons(
    subscription_id: str, plan: PricedPlan, extras: Sequence[tuple[Line, PricedAddOn]]
) -> Mapping[str, int]:
    product = plan.product.product
    counts: dict[str, int] = {}
    for line, sold in extras:
        if sold.product.product != product:
            raise PermanentError(
                f"subscription {subscription_id} buys a plan of {product} and the add-on '{sold.add_on_name}'"
                f" of {sold.product.product}: take {line.price_id} out of it at Stripe"
            )
        counts[sold.add_on_name] = counts.get(sold.add_on_name, 0) + line.quantity
    return counts


def _unknown(subscription_id: str, lines: Sequence[Line]) -> str:
    prices = ", ".join(
        f"{line.price_id} (lookup key {line.lookup_key})" if line.lookup_key else line.price_id
        for line in lines
    )
    return (
        f"subscription {subscription_id} has a price that the catalogue does not name, {prices}: add it to"
        " catalogue/<product>.yaml plans.<plan>.prices or add_ons.<add-on>.prices, or to the former of one of"
        f" these, then berth queue retry subscription {subscription_id}"
    )


def _not_one_plan(subscription_id: str, plans: Sequence[PricedPlan]) -> str:
    if not plans:
        return f"subscription {subscription_id} buys no plan: add one of a product's plans to it at Stripe"
    names = ", ".join(f"{plan.product.product} {plan.plan_name}" for plan in plans)
    return f"subscription {subscription_id} has {len(plans)} plans at once: leave it one of {names} at Stripe"
