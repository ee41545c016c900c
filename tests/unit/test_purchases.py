from dataclasses import dataclass
from typing import Any

import pytest

from catalogue.schema import Catalogue, Product, Purchase
from provisioner.contract.errors import PermanentError
from provisioner.purchases import Sale, UnknownPriceError, sale


@dataclass(frozen=True)
class Line:
    price_id: str
    lookup_key: str | None = None
    quantity: int = 1
    made_for: str | None = None
    interval: str | None = "month"


def price(name: str) -> dict[str, Any]:
    return {"month": {"lookup_key": f"{name}_month"}, "year": {"id": f"price_{name}_year"}}


def product(name: str) -> Product:
    size = {"cpu": {"request": "50m", "limit": "500m"}, "memory": "128Mi", "storage": "1Gi"}
    plans = {
        plan: {"title": plan, "prices": price(f"{name}_{plan}"), "limits": {"agents": 2}, "size": size}
        for plan in ("small", "large")
    }
    add_ons = {"agent": {"title": "Agent", "prices": price(f"{name}_agent"), "grants": {"agents": 1}}}
    return Product.model_validate(
        {
            "product": name,
            "title": name,
            "image": "berth.local/sample:1",
            "port": 8080,
            "meters": {"agents": {"title": "Agents"}},
            "plans": plans,
            "add_ons": add_ons,
        }
    )


SHOP, OTHER = product("shop"), product("other")
CATALOGUE = Catalogue({"shop": SHOP, "other": OTHER})
SMALL = Line("price_1", "shop_small_month")
AGENTS = Line("price_2", "shop_agent_month", 3)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([SMALL], Sale(Purchase(SHOP, "small"), "month", "price_1")),
        ([Line("price_shop_large_year")], Sale(Purchase(SHOP, "large"), "year", "price_shop_large_year")),
        ([AGENTS, SMALL], Sale(Purchase(SHOP, "small", 1, {"agent": 3}), "month", "price_1")),
        (
            [Line("price_1", "shop_small_month", 4), AGENTS, Line("price_shop_agent_year")],
            Sale(Purchase(SHOP, "small", 4, {"agent": 4}), "month", "price_1"),
        ),
        (
            [SMALL, Line("price_9", "shop_large_month", 0), Line("price_8", None, 0)],
            Sale(Purchase(SHOP, "small"), "month", "price_1"),
        ),
    ],
    ids=["plan", "by id, a year", "with add-ons", "several times, add-ons of two prices", "none of a line"],
)
def test_lines_become_one_plan_and_its_add_ons(lines: list[Line], expected: Sale) -> None:
    assert sale(CATALOGUE, "sub_1", lines) == expected


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            [SMALL, Line("price_3", "shop_large_month")],
            "has 2 plans at once: leave it one of shop small, shop",
        ),
        ([SMALL, Line("price_3", "other_small_month")], "has 2 plans at once"),
        ([SMALL, Line("price_shop_small_year")], "has 2 plans at once"),
        ([AGENTS], "sub_1 buys no plan: add one"),
        ([Line("price_1", "shop_small_month", 0)], "buys no plan"),
        ([SMALL, Line("price_5", "other_agent_month")], "'agent' of other: take price_5 out of it"),
    ],
)
def test_what_makes_no_purchase_is_refused_with_the_remedy(lines: list[Line], says: str) -> None:
    with pytest.raises(PermanentError, match=says) as raised:
        sale(CATALOGUE, "sub_1", lines)
    assert not isinstance(raised.value, UnknownPriceError)


@pytest.mark.parametrize(
    ("lines", "foreign"), [([Line("price_x")], True), ([SMALL, Line("price_x", "key_x")], False)]
)
def test_an_unknown_price_is_named_and_whether_any_is_known(lines: list[Line], foreign: bool) -> None:
    with pytest.raises(UnknownPriceError, match=r"price_x.*add it to catalogue/.*queue retry") as raised:
        sale(CATALOGUE, "sub_1", lines)
    assert raised.value.foreign is foreign
    assert "price_1" not in str(raised.value)
