"""What differs between the catalogue and Stripe is told in full, and once mended nothing differs."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue.loader import load_catalogue
from catalogue.schema import Catalogue, Interval, Plan, Price, Product
from catalogue.stripe_names import BY_AGREEMENT, FROM_CATALOGUE
from provisioner.contract.inbox import subject_of
from scripts.stripe_catalogue.differences import (
    AdoptPrice,
    ArchivePrice,
    ArchiveProduct,
    AtStripe,
    Change,
    CreatePrice,
    CreateProduct,
    Difference,
    PortalNow,
    PriceNow,
    ProductNow,
    SetPortal,
    UpdateProduct,
    differences,
    portal_settings,
)
from scripts.stripe_catalogue.wanted import WantedPrice, WantedProduct
from scripts.stripe_catalogue.webhook import EVENTS

PLAN = load_catalogue().products["mindroom"].plans["starter"]
PRODUCT = load_catalogue().products["mindroom"]
OURS, THEIRS = "berth_mindroom_starter", "prod_theirs"


def catalogue(**prices: Mapping[Interval, Price]) -> Catalogue:
    """MindRoom with a plan for each of `prices`."""
    plans = {name: PLAN.model_copy(update={"title": name, "prices": one}) for name, one in prices.items()}
    return Catalogue({"mindroom": PRODUCT.model_copy(update={"plans": plans})})


def keyed(cents: int | None = 2900, key: str = "starter_month", *former: str) -> Price:
    amount = None if cents is None else f"{cents // 100}.{cents % 100:02}"
    return Price.model_validate({"lookup_key": key, "amount": amount, "former": list(former)})


STARTER = catalogue(starter={"month": keyed()})
HELD = PriceNow(
    id="price_1",
    product=OURS,
    active=True,
    lookup_key="starter_month",
    interval="month",
    amount=2900,
    currency="usd",
    origin=FROM_CATALOGUE,
)


def mended(sold: Catalogue, now: AtStripe, *, archive: bool = False) -> AtStripe:
    """Stripe after `push`, by a model of what Stripe does."""
    for difference in differences(sold, now, archive=archive):
        if difference.change is not None:
            now = applied(difference.change, now)
    return now


def applied(change: Change, now: AtStripe) -> AtStripe:
    match change:
        case CreateProduct(product) | UpdateProduct(product):
            return replace(now, products={**now.products, product.id: made(product)})
        case ArchiveProduct(id_):
            return replace(now, products={**now.products, id_: replace(now.products[id_], active=False)})
        case CreatePrice(price, replaced):
            if replaced is not None:
                ours = replaced.product == price.product
                now = with_price(now, replace(replaced, lookup_key=None, active=not ours))
            return with_price(now, new_price(price, f"price_new{len(now.prices)}"))
        case AdoptPrice(id_):
            return with_price(now, replace(now.prices[id_], active=True, origin=FROM_CATALOGUE))
        case ArchivePrice(id_):
            return with_price(now, replace(now.prices[id_], active=False))
        case SetPortal(product, id_, offers):
            held = now.by_lookup_key() | dict(now.prices)
            by_product: dict[str, set[str]] = {}
            for name in (name for names in offers for name in names):
                by_product.setdefault(held[name].product, set()).add(held[name].id)
            portal = PortalNow(
                id_ or f"bpc_{product}", product, active=True, settings=portal_settings(by_product)
            )
            others = [one for one in now.portals if one.id != portal.id]
            return replace(now, portals=(*others, portal))


def made(product: WantedProduct) -> ProductNow:
    return ProductNow(product.id, product.name, product.description, active=True, metadata=product.metadata)


def new_price(price: WantedPrice, id_: str) -> PriceNow:
    return PriceNow(
        id=id_,
        product=price.product,
        active=True,
        lookup_key=price.lookup_key,
        interval=price.interval,
        amount=price.amount,
        currency=price.currency,
        origin=FROM_CATALOGUE,
    )


def with_price(now: AtStripe, price: PriceNow) -> AtStripe:
    return replace(now, prices={**now.prices, price.id: price})


WHOLE = mended(STARTER, AtStripe())
PRICE_ID = next(iter(WHOLE.prices))


def holding(**changes: object) -> AtStripe:
    """Stripe as `STARTER` wants it, but for changes to its price."""
    return with_price(WHOLE, replace(WHOLE.prices[PRICE_ID], **changes))  # type: ignore[arg-type]  # a test's


def only(sold: Catalogue, now: AtStripe, *, archive: bool = False) -> Difference:
    (difference,) = differences(sold, now, archive=archive)
    return difference


def test_an_empty_account_gets_all_that_is_sold_today_and_then_nothing_differs() -> None:
    sold = load_catalogue()
    now = mended(sold, AtStripe())
    assert differences(sold, now) == []
    assert sorted(now.products) == [
        "berth_mindroom_enterprise",
        "berth_mindroom_professional",
        "berth_mindroom_starter",
        "berth_paycraft_enterprise",
        "berth_synthstack_maker",
        "berth_synthstack_pro",
        "berth_synthstack_unlimited",
        "berth_voxflow_add-on_extra-agent",
        "berth_voxflow_add-on_tokens-10k",
        "berth_voxflow_enterprise",
        "berth_voxflow_pro",
    ]
    starter = now.products["berth_mindroom_starter"]
    assert (starter.name, starter.description) == (
        "MindRoom Starter",
        "Agents: 3 · Messages a day: 1,000 · Storage in GB: 5 · Notes: 100",
    )
    assert now.products["berth_voxflow_add-on_tokens-10k"].description == "Tokens a month: +10,000"
    amounts = {price.lookup_key: price.amount for price in now.prices.values()}
    assert (len(amounts), amounts["synthstack_unlimited_year"], amounts["voxflow_extra-agent_month"]) == (
        12,
        35991,
        500,
    )
    offers = {portal.product: set(portal.settings.offers) for portal in now.portals}
    assert offers == {
        "mindroom": {"berth_mindroom_starter", "berth_mindroom_professional"},
        "synthstack": {"berth_synthstack_maker", "berth_synthstack_pro", "berth_synthstack_unlimited"},
        "voxflow": {"berth_voxflow_pro", "berth_voxflow_enterprise"},
        "paycraft": set(),
    }


@pytest.mark.parametrize(
    "terms",
    [{"amount": 2500}, {"currency": "eur"}, {"interval": "year"}, {"interval": "3 month"}, {"amount": None}],
)
def test_other_terms_are_a_new_price_never_an_edit(terms: dict[str, object]) -> None:
    now = holding(**terms)
    first, portal = differences(STARTER, now)
    assert isinstance(first.change, CreatePrice)
    assert first.change.replaces == now.prices[PRICE_ID]
    assert isinstance(portal.change, SetPortal)
    after = mended(STARTER, now)
    old = after.prices[PRICE_ID]
    assert (old.active, old.lookup_key, old.amount) == (False, None, now.prices[PRICE_ID].amount)
    assert after.by_lookup_key()["starter_month"].amount == 2900
    assert differences(STARTER, after) == []
    assert STARTER.sold_by(old.id, old.lookup_key, old.product, "month") is not None, "its subscribers stay"


def test_an_archived_price_is_sold_again() -> None:
    assert only(STARTER, holding(active=False)).change == AdoptPrice(PRICE_ID)


def test_a_price_made_by_hand_in_our_product_becomes_the_catalogues() -> None:
    assert only(STARTER, holding(origin=None)).change == AdoptPrice(PRICE_ID)


def test_a_price_of_the_operators_own_product_is_left_as_it_is() -> None:
    now = with_price(WHOLE, replace(HELD, id=PRICE_ID, product=THEIRS, origin=None))
    assert differences(STARTER, mended(STARTER, now)) == []


def test_a_price_of_the_operators_own_product_is_replaced_only_once_it_is_kept_known() -> None:
    theirs = replace(HELD, product=THEIRS, origin=None, amount=2500)
    now = AtStripe(WHOLE.products, {theirs.id: theirs}, WHOLE.portals)
    found = differences(STARTER, now)[0]
    assert found.change is None
    assert "former: [price_1]" in found.remedy
    kept = catalogue(starter={"month": keyed(2900, "starter_month", "price_1")})
    after = mended(kept, now)
    assert after.prices["price_1"] == replace(theirs, lookup_key=None)
    assert differences(kept, after) == []
    assert kept.sold_by("price_1", None) is not None


def test_a_replaced_price_that_is_still_sold_is_archived() -> None:
    left = replace(HELD, id="price_left", lookup_key=None, amount=2500)
    assert only(STARTER, with_price(WHOLE, left)).change == ArchivePrice("price_left")


def test_an_agreed_price_is_nobodys_business() -> None:
    agreed = replace(HELD, id="price_agreed", lookup_key=None, amount=100, origin=BY_AGREEMENT)
    assert differences(STARTER, with_price(WHOLE, agreed)) == []


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (replace(HELD, id="price_x", lookup_key=None, origin=None), "price_x (29.00 usd a month) is sold"),
        (
            replace(HELD, id="price_x", lookup_key="old", interval="year"),
            "price_x (29.00 usd a year) is sold",
        ),
    ],
)
def test_what_the_catalogue_does_not_name_is_told_and_archived_only_when_asked(
    extra: PriceNow, what: str
) -> None:
    now = with_price(WHOLE, extra)
    told = only(STARTER, now)
    assert (told.change, told.what.startswith(what)) == (None, True)
    assert "--archive" in told.remedy
    assert only(STARTER, now, archive=True).change == ArchivePrice("price_x")


def test_a_plan_taken_out_of_the_catalogue_is_told_and_archived_only_when_asked() -> None:
    both = catalogue(starter={"month": keyed()}, pro={"month": keyed(9900, "pro_month")})
    now = mended(both, AtStripe())
    portal, product, price = differences(STARTER, now)
    assert isinstance(portal.change, SetPortal), "nobody may switch to it any more"
    assert (product.change, price.change) == (None, None)
    after = mended(STARTER, now, archive=True)
    assert not after.products["berth_mindroom_pro"].active
    assert [price.active for price in after.prices.values() if price.product == "berth_mindroom_pro"] == [
        False
    ]
    assert differences(STARTER, after) == []
    assert differences(both, mended(both, after)) == [], "and it can come back"


def test_a_product_that_is_none_of_ours_is_left_alone() -> None:
    theirs = ProductNow("berth_mindroom_old", "T-shirt", "", active=True, metadata={})
    shirt = replace(HELD, id="price_x", product=theirs.id, lookup_key="shirt", origin=None)
    now = with_price(replace(WHOLE, products={**WHOLE.products, theirs.id: theirs}), shirt)
    assert differences(STARTER, now) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "X"}, "name"),
        ({"description": ""}, "description"),
        ({"active": False}, "archived"),
        ({"metadata": {"berth_product": "mindroom"}}, "metadata"),
    ],
)
def test_a_product_is_corrected_and_further_metadata_kept(changes: dict[str, object], word: str) -> None:
    right = WHOLE.products[OURS]
    wrong = replace(right, **changes)  # type: ignore[arg-type]  # a test's
    found = only(STARTER, replace(WHOLE, products={OURS: wrong}))
    assert isinstance(found.change, UpdateProduct)
    assert word in found.what
    more = replace(right, metadata={**right.metadata, "team": "a"})
    assert differences(STARTER, replace(WHOLE, products={OURS: more})) == []


def test_a_price_named_by_id_is_only_checked() -> None:
    sold = catalogue(starter={"month": Price.model_validate({"id": "price_1", "amount": "29.00"})})
    (missing, portal) = differences(sold, AtStripe())
    assert (missing.what, missing.change) == ("price_1 is not at Stripe", None)
    assert isinstance(portal.change, SetPortal)
    theirs = replace(HELD, product=THEIRS, lookup_key=None, origin=None)
    right = mended(sold, AtStripe(prices={"price_1": theirs}))
    assert differences(sold, right) == []
    assert right.products == {}, "it lives in the operator's own product"
    wrong = with_price(right, replace(theirs, amount=2500, active=False))
    assert [(one.what, one.change) for one in differences(sold, wrong)] == [
        ("price_1 is archived at Stripe", None),
        ("costs 29.00 usd a month here, 25.00 usd a month at Stripe (price_1)", None),
    ]


def test_a_negotiated_price_is_left_alone_and_offered_to_nobody() -> None:
    sold = catalogue(starter={"month": keyed()}, big={"month": keyed(None, "big_month")})
    now = mended(sold, AtStripe())
    assert differences(sold, now) == []
    agreed = replace(
        HELD, id="price_a", product="berth_mindroom_big", lookup_key="big_month", origin=BY_AGREEMENT
    )
    assert differences(sold, with_price(now, agreed)) == []
    assert list(now.portals[0].settings.offers) == [OURS]


def test_a_portal_that_somebody_changed_is_corrected() -> None:
    portal = WHOLE.portals[0]
    for wrong in (
        replace(portal, active=False),
        replace(portal, settings=replace(portal.settings, cancel="immediately")),
        replace(portal, settings=portal_settings({THEIRS: {"price_x"}})),
    ):
        change = SetPortal("mindroom", portal.id, (("starter_month",),))
        assert only(STARTER, replace(WHOLE, portals=(wrong,))).change == change


def test_more_plans_than_a_portal_takes_are_told() -> None:
    plans: dict[str, Mapping[Interval, Price]] = {f"p{n}": {"month": keyed(100, f"p{n}")} for n in range(11)}
    sold = catalogue(**plans)
    assert [one.change for one in differences(sold, mended(sold, AtStripe()))] == [None]


PRICES = st.fixed_dictionaries(
    {}, optional={"month": st.integers(50, 52), "year": st.one_of(st.none(), st.integers(50, 52))}
)
CATALOGUES = st.dictionaries(st.sampled_from(["a", "b", "c"]), PRICES, max_size=3)


@given(st.lists(CATALOGUES, min_size=1, max_size=4), st.data())
def test_whatever_was_sold_before_a_push_cut_off_anywhere_is_completed_and_nobodys_price_forgotten(
    history: list[dict[str, dict[Interval, int | None]]], data: st.DataObject
) -> None:
    now = AtStripe()
    for amounts in history:
        prices: dict[str, Mapping[Interval, Price]] = {
            name: {every: keyed(cents, f"{name}_{every}") for every, cents in one.items()}
            for name, one in amounts.items()
        }
        sold = catalogue(**prices)
        todo = [one.change for one in differences(sold, now, archive=True) if one.change is not None]
        for change in todo[: data.draw(st.integers(0, len(todo)))]:
            now = applied(change, now)
    now = mended(sold, now, archive=True)
    assert differences(sold, now, archive=True) == []
    for price in now.prices.values():
        still_sold = price.product.removeprefix("berth_mindroom_") in sold.products["mindroom"].plans
        known = sold.sold_by(price.id, price.lookup_key, price.product, price.interval)
        assert (known is not None) == still_sold
        assert price.active == (
            known is not None and price.lookup_key in lookup_keys(sold.products["mindroom"])
        )


def lookup_keys(product: Product) -> set[str | None]:
    plans: list[Plan] = list(product.plans.values())
    return {price.lookup_key for plan in plans for price in plan.prices.values()}


def test_every_event_we_ask_for_makes_berth_look_at_something() -> None:
    seen = {"id": "cs_1", "subscription": "sub_1", "charge": "ch_1"}
    for type_ in EVENTS:
        ids = {"customer": "sub_1", "charge": "ch_1"}.get(type_.partition(".")[0], "in_1")
        assert subject_of(type_, seen | {"id": ids}) is not None, type_
