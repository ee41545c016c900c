"""What can be bought, by the names a customer asks for it. Pure."""

from dataclasses import dataclass

from catalogue.schema import Catalogue, Interval, Plan, Price, Product
from platform_api import problems
from platform_api.problems import Problem


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan as it is sold at one interval; without a price it is free."""

    product: Product
    plan_name: str
    interval: Interval
    price: Price | None

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.product.plans[self.plan_name]


def find_product(catalogue: Catalogue, asked: str) -> Product:
    """Return the product called `asked`.

    Raises:
        Problem: 400, there is none; the detail names those there are.
    """
    product = catalogue.products.get(asked)
    if product is None:
        known = ", ".join(sorted(catalogue.products))
        raise Problem(problems.UNKNOWN_PLAN, f"There is no product '{asked}'. Products: {known}.")
    return product


def find_offer(catalogue: Catalogue, product_name: str, asked: str, interval: Interval) -> Offer:
    """Return the plan called `asked`, by its own name or an alias, as it is sold by the month or year.

    Raises:
        Problem: 400, it is not on sale; the detail names what is.
    """
    product = find_product(catalogue, product_name)
    plan_name = product.plan_name(asked)
    if plan_name is None:
        known = ", ".join(sorted(product.plans))
        raise Problem(problems.UNKNOWN_PLAN, f"{product_name} has no plan '{asked}'. Plans: {known}.")
    plan = product.plans[plan_name]
    if plan.free:
        return Offer(product, plan_name, interval, None)
    on_sale = {name: price for name, price in plan.prices.items() if _is_public(price)}
    if not on_sale:
        raise Problem(
            problems.UNKNOWN_PLAN,
            f"{product_name} {plan_name} is sold by agreement only: ask us for an offer.",
        )
    if interval not in on_sale:
        known = ", ".join(sorted(on_sale))
        raise Problem(
            problems.UNKNOWN_PLAN,
            f"{product_name} {plan_name} is not sold by the {interval}. Intervals: {known}.",
        )
    return Offer(product, plan_name, interval, on_sale[interval])


def _is_public(price: Price) -> bool:
    """Whether anybody may pay it: one that is negotiated has neither an amount nor an id of its own."""
    return price.amount is not None or price.id is not None
