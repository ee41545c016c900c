"""Every mistake a person can make in a catalogue is told with its file, line, key and remedy."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalogue.document import LARGEST_BYTES, LARGEST_NODES, read_document
from catalogue.loader import CatalogueError, load_catalogue
from catalogue.problems import Problem
from catalogue.schema import Catalogue, Interval, Priced, PricedPlan, Product, Purchase, json_schema

SHOP = """\
product: shop
title: A shop
image: registry.example/shop:1.2
port: 8080
data_path: /data
entitlement:
  environment:
    MAX_ITEMS: items
secrets: [SESSION_KEY]
meters:
  items: {title: Items}
plans:
  small:
    title: Small
    prices:
      month: {id: price_1, amount: "9.50"}
      year: {lookup_key: shop_small_year}
    limits: {items: 10}
    size:
      cpu: {request: 50m, limit: 500m}
      memory: 128Mi
      storage: 1Gi
  free:
    title: Free
    aliases: [gratis]
    limits: {items: null}
    size: {cpu: {request: 50m, limit: 1}, memory: 64Mi, storage: 1Gi, replicas: 1}
add_ons:
  crate:
    title: A crate
    prices:
      month: {lookup_key: shop_crate, amount: "2.00", former: [price_0]}
    grants: {items: 5}
"""


def problems(folder: Path, text: str | bytes = SHOP, name: str = "shop.yaml") -> list[Problem]:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(folder)
    return list(caught.value.problems)


def only(folder: Path, text: str | bytes) -> Problem:
    (problem,) = problems(folder, text)
    return problem


def load(folder: Path, text: str = SHOP) -> Catalogue:
    (folder / "shop.yaml").write_text(text)
    return load_catalogue(folder)


def edited(old: str, new: str) -> str:
    assert SHOP.count(old) == 1, f"{old!r} must stand once in the example"
    return SHOP.replace(old, new)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_a_product_is_read_as_it_is_written(tmp_path: Path) -> None:
    shop = load(tmp_path).products["shop"]
    small, free = shop.plans["small"], shop.plans["free"]
    assert (shop.image, shop.chart, shop.port, shop.data_path) == (
        "registry.example/shop:1.2",
        None,
        8080,
        "/data",
    )
    assert shop.secrets == ("SESSION_KEY",)
    assert (small.size.cpu_request, small.size.cpu_limit, small.size.replicas) == (50, 500, 1)
    assert (small.size.memory, small.size.storage) == (128 * 2**20, 2**30)
    assert (small.prices["month"].cents, small.prices["month"].currency) == (950, "usd")
    assert small.prices["year"].cents is None
    assert (small.trial_days, free.prices, free.limits) == (3, {}, {"items": None})
    assert (small.grace_days, small.retention_days, small.free) == (7, 30, False)
    assert (shop.probe.path, shop.probe.timeout, shop.backup) == ("/healthz", 2, None)


def test_add_ons_and_quantity_raise_what_is_limited(tmp_path: Path) -> None:
    shop = load(tmp_path).products["shop"]
    assert Purchase(shop, "small").environment == {"MAX_ITEMS": "10"}
    assert Purchase(shop, "small", quantity=2, add_ons={"crate": 3}).limits == {"items": 35}
    assert Purchase(shop, "free", quantity=2, add_ons={"crate": 3}).environment == {"MAX_ITEMS": "unlimited"}


def test_a_plan_is_found_by_its_name_or_an_alias(tmp_path: Path) -> None:
    shop = load(tmp_path).products["shop"]
    assert [shop.plan_name(asked) for asked in ("free", "gratis", "Free", "")] == ["free", "free", None, None]


@pytest.mark.parametrize(
    ("price", "sells"),
    [
        (("price_1", None), "shop small month"),
        (("price_x", "shop_small_year"), "shop small year"),
        (("price_1", "shop_small_year", "berth_shop_free", "year"), "shop small month"),
        (("price_x", "shop_small_year", "berth_shop_free", "month"), "shop small year"),
        (("price_x", "shop_crate"), "shop crate month"),
        (("price_0", None), "shop crate month"),
        (("price_x", "other"), None),
        (("price_x", None), None),
        (("price_x", None, "berth_shop_free", "year"), "shop free year"),
        (("plan_x", "other", "berth_shop_add-on_crate", "month"), "shop crate month"),
        (("price_x", None, "berth_shop_small", "week"), None),
        (("price_x", None, "berth_shop_small", None), None),
        (("price_x", None, "berth_shop_crate", "month"), None),
        (("price_x", None, "berth_other_small", "month"), None),
        (("price_x", None, "prod_x", "month"), None),
    ],
)
def test_a_price_is_found_by_id_else_lookup_key_else_by_what_berth_made_it_for(
    tmp_path: Path, price: tuple[str, ...], sells: str | None
) -> None:
    found = load(tmp_path).sold_by(*price)
    assert sells == (found and described(found))


def described(priced: Priced) -> str:
    name = priced.plan_name if isinstance(priced, PricedPlan) else priced.add_on_name
    return f"{priced.product.product} {name} {priced.interval}"


def test_the_products_are_sold_as_they_are_sold_today() -> None:
    catalogue = load_catalogue()
    assert {name: limits_and_prices(product) for name, product in catalogue.products.items()} == {
        "mindroom": {
            "free": ([1, 100, 1, 10], {}),
            "starter": ([3, 1_000, 5, 100], {"month": 2900}),
            "professional": ([10, 10_000, 50, 1_000], {"month": 9900}),
            "enterprise": ([None, None, None, None], {"month": None}),
        },
        "synthstack": {
            "free": ([10, 10], {}),
            "maker": ([30, 50], {"month": 1299, "year": 11691}),
            "pro": ([100, 200], {"month": 2499, "year": 22491}),
            "unlimited": ([500, 500], {"month": 3999, "year": 35991}),
        },
        "voxflow": {
            "free": ([2, 1_000], {}),
            "pro": ([10, 10_000], {"month": 2900}),
            "enterprise": ([100, 100_000], {"month": 29900}),
        },
        "paycraft": {"enterprise": ([1], {})},
    }
    free = {name: free_plans(product) for name, product in catalogue.products.items()}
    assert free == {"mindroom": ["free"], "synthstack": ["free"], "voxflow": ["free"], "paycraft": []}
    synthstack, voxflow = catalogue.products["synthstack"], catalogue.products["voxflow"]
    assert (synthstack.plan_name("agency"), synthstack.plans["unlimited"].title) == ("unlimited", "Agency")
    assert {name: (dict(one.grants), one.prices["month"].cents) for name, one in voxflow.add_ons.items()} == {
        "extra-agent": ({"agents": 1}, 500),
        "tokens-10k": ({"tokens_per_month": 10_000}, 1000),
    }
    with_add_ons = Purchase(voxflow, "pro", add_ons={"extra-agent": 2, "tokens-10k": 1})
    assert with_add_ons.limits == {"agents": 12, "tokens_per_month": 20_000}
    for priced in catalogue.priced():
        assert priced.price.lookup_key == described(priced).replace(" ", "_")


def limits_and_prices(product: Product) -> dict[str, tuple[list[int | None], dict[Interval, int | None]]]:
    return {
        name: (list(plan.limits.values()), {every: price.cents for every, price in plan.prices.items()})
        for name, plan in product.plans.items()
    }


def free_plans(product: Product) -> list[str]:
    return [name for name, plan in product.plans.items() if plan.free]


MISTAKES = [
    ("port: 8080", "prot: 8080", "prot", "is an unknown key", "did you mean 'port'?"),
    (
        "    title: Small",
        "    tilte: Small",
        "plans.small.tilte",
        "is an unknown key",
        "did you mean 'title'?",
    ),
    ("storage: 1Gi\n", "storge: 1Gi\n", "plans.small.size.storge", "is an unknown key", "'storage'"),
    ('amount: "9.50"', 'amuont: "9.50"', "plans.small.prices.month.amuont", "unknown key", "'amount'"),
    ("      month: {id", "      monthly: {id", "plans.small.prices.monthly", "is an unknown key", "'month'"),
    ("{items: 10}", "{itmes: 10, items: 1}", "plans.small.limits.itmes", "is no meter", "'items'"),
    ("{items: 10}", "{}", "plans.small.limits", "says nothing about 'items'", "unlimited"),
    (
        "{items: 10}",
        "{items: -1}",
        "plans.small.limits.items",
        "-1 will not do",
        "greater than or equal to 0",
    ),
    ("{items: 10}", "{items: lots}", "plans.small.limits.items", "'lots' is no limit", "unlimited"),
    (
        "MAX_ITEMS: items",
        "MAX_ITEMS: itms",
        "entitlement.environment.MAX_ITEMS",
        "'itms' is no meter",
        "'items'",
    ),
    (
        "MAX_ITEMS: items",
        "max-items: items",
        "entitlement.environment.max-items",
        "environment variable",
        "A-Z",
    ),
    ("[SESSION_KEY]", "[MAX_ITEMS]", "secrets[0]", "is in entitlement.environment too", "rename"),
    ("[SESSION_KEY]", "[KEY, KEY]", "secrets[1]", "stands twice", "remove one"),
    ("[SESSION_KEY]", "SESSION_KEY", "secrets", "is not a list", "[one, two]"),
    ("[SESSION_KEY]", "[session key]", "secrets[0]", "environment variable's name", "A-Z"),
    ("image: registry.example/shop:1.2", "chart: Shop_", "chart", "is not a DNS label", "a-z"),
    ("registry.example/shop:1.2", "registry.example/shop", "image", "with its tag or digest", "app:1.2"),
    ("port: 8080", "port: 80800", "port", "80800 will not do", "less than or equal to 65535"),
    ("port: 8080", 'port: "8080"', "port", "is not a whole number", "without quotes"),
    ("port: 8080", "port: 8080.5", "port", "is not a whole number", "write"),
    ("port: 8080", "port: 010", "port", "'010' means something else in YAML", "quotes"),
    ("port: 8080", "port: 12:30", "port", "means something else in YAML", "quotes"),
    ("port: 8080", "port: !!python/name:os.system x", "port", "has the tag", "plain value"),
    ("title: A shop", "title: no", "title", "'no' means something else in YAML", "quotes"),
    ("title: A shop", "title: 12", "title", "is not text", "put it in quotes"),
    ("title: A shop", "title: {a: b}", "title", "is not text", "quotes"),
    ("title: A shop", "title:", "title", "is not text", "quotes"),
    ("data_path: /data", "data_path: /data/../etc:x", "data_path", "is not an absolute path", "''"),
    ("  small:", "  Small Plan:", "plans.Small Plan", "is not a DNS label", "a-z, 0-9 and -"),
    (
        "limit: 500m",
        "limit: 20m",
        "plans.small.size.cpu",
        "requests 50m, more than the limit of 20m",
        "raise",
    ),
    ("memory: 128Mi", "memory: 128m", "plans.small.size.memory", "is less than it looks", "256Mi"),
    ("memory: 128Mi", "memory: 128MB", "plans.small.size.memory", "is no size quantity", "256Mi"),
    ("storage: 1Gi\n", "storage: 0\n", "plans.small.size.storage", "nothing is too little", "more than 0"),
    ("replicas: 1", "replicas: 2", "plans.free.size.replicas", "cannot share the volume", "data_path: ''"),
    ("replicas: 1", "replicas: 0", "plans.free.size.replicas", "0 will not do", "greater than or equal to 1"),
    ("{id: price_1,", "{id: prod_1,", "plans.small.prices.month.id", "not a Stripe price's id", "price_"),
    ("{id: price_1,", "{id: price_1, lookup_key: a,", "plans.small.prices.month", "has both", "exactly one"),
    ("{id: price_1,", "{", "plans.small.prices.month", "has neither id nor lookup_key", "exactly one"),
    ('"9.50"', "9.50", "plans.small.prices.month.amount", "9.5 is no amount", "in quotes"),
    ('"9.50"', '"9.5"', "plans.small.prices.month.amount", "'9.5' is no amount", "two decimal places"),
    ('"9.50"', '"-9.50"', "plans.small.prices.month.amount", "is no amount", "two decimal places"),
    ('"9.50"', '"9.50", currency: USD', "plans.small.prices.month.currency", "not a currency", "usd"),
    (
        "  free:\n    title: Free",
        "  free:\n    title: Free\n    trial_days: 731",
        "plans.free.trial_days",
        "731",
        "730",
    ),
    ("shop\ntitle", "store\ntitle", "product", "'store' stands in shop.yaml", "name the file store.yaml"),
    (
        '"9.50"',
        '"9.50", currency: jpy',
        "plans.small.prices.month.currency",
        "not counted in hundredths",
        "usd",
    ),
    ("{title: Items}", "Items", "meters.items", "is not a mapping", "key: value"),
    ("add_ons:", "addons:", "addons", "is an unknown key", "did you mean 'add_ons'?"),
    ("    grants:", "    grant:", "add_ons.crate.grant", "is an unknown key", "'grants'"),
    ("{items: 5}", "{itmes: 5}", "add_ons.crate.grants.itmes", "is no meter", "'items'"),
    ("{items: 5}", "{items: 0}", "add_ons.crate.grants.items", "0 will not do", "greater than or equal to 1"),
    ("{items: 5}", "{}", "add_ons.crate.grants", "is empty", "at least one"),
    ("    aliases:", "    alias:", "plans.free.alias", "is an unknown key", "'aliases'"),
    ("    aliases:", "    grace_day: 1\n    aliases:", "plans.free.grace_day", "unknown key", "'grace_days'"),
    (
        "    aliases:",
        "    retention: 1\n    aliases:",
        "plans.free.retention",
        "unknown key",
        "retention_days",
    ),
    ("    aliases:", "    fre: true\n    aliases:", "plans.free.fre", "is an unknown key", "'free'"),
    ("    aliases:", "    free: yes\n    aliases:", "plans.free.free", "means something else", "quotes"),
    (
        "    aliases:",
        "    free: true\n    trial_days: 3\n    aliases:",
        "plans.free.trial_days",
        "a free plan has no trial",
        "remove it",
    ),
    (
        "    title: Small\n",
        "    title: Small\n    free: true\n",
        "plans.small.prices",
        "a free plan has no price",
        "or 'free: true'",
    ),
    ("[gratis]", "[small]", "plans.free.aliases[0]", "'small' is a plan's own name", "rename"),
    ("[gratis]", "[free]", "plans.free.aliases[0]", "'free' is a plan's own name", "remove"),
    ("[gratis]", "[a, a]", "plans.free.aliases[1]", "is an alias of 'free' already", "one of the two"),
    ("[gratis]", "[Gratis]", "plans.free.aliases[0]", "is not a DNS label", "a-z, 0-9 and -"),
    ("[price_0]", "[plan_0]", "add_ons.crate.prices.month.former[0]", "not a Stripe price's id", "price_"),
    (
        "[price_0]",
        "[price_1]",
        "add_ons.crate.prices.month.former[0]",
        "price id 'price_1' stands in shop.yaml line 16 too",
        "each its own",
    ),
    (
        "lookup_key: shop_crate",
        "lookup_key: shop_small_year",
        "add_ons.crate.prices.month.lookup_key",
        "price lookup_key 'shop_small_year' stands in shop.yaml line 17 too",
        "each its own",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake[2]}: {mistake[3]}")
def test_a_mistake_is_told_at_its_line_with_its_remedy(
    tmp_path: Path, mistake: tuple[str, str, str, str, str]
) -> None:
    old, new, key, what, remedy = mistake
    text = edited(old, new)
    found = [problem for problem in problems(tmp_path, text) if problem.key == key]
    assert len(found) == 1, "exactly one problem stands at that key"
    assert what in found[0].what
    assert remedy in found[0].remedy
    last_word = key.rpartition(".")[2].partition("[")[0]
    assert last_word in text.splitlines()[found[0].line - 1]
    assert abs(found[0].line - line_of(SHOP, old)) <= 2


def test_a_missing_key_is_told_at_its_parent(tmp_path: Path) -> None:
    problem = only(tmp_path, edited("      memory: 128Mi\n", ""))
    line = line_of(SHOP, "    size:\n")
    assert str(problem) == f"shop.yaml:{line}: plans.small.size.memory: is missing: add 'memory: …'"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (edited("image: registry.example/shop:1.2\n", ""), "has neither image nor chart"),
        (edited("title: A shop\n", "title: A shop\nchart: shop\n"), "has both image and chart"),
    ],
)
def test_exactly_one_of_image_and_chart(tmp_path: Path, text: str, what: str) -> None:
    assert only(tmp_path, text).what == what


def test_a_chart_alone_will_do(tmp_path: Path) -> None:
    assert (
        load(tmp_path, edited("image: registry.example/shop:1.2", "chart: shop")).products["shop"].chart
        == "shop"
    )


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    text = edited("port: 8080", "port: x").replace("128Mi", "much").replace("{items: 10}", "{itmes: 10}")
    (tmp_path / "other.yaml").write_text("product: other\nprot: 1\n")
    found = problems(tmp_path, text)
    assert {(p.file, p.key) for p in found} >= {
        ("shop.yaml", "port"),
        ("shop.yaml", "plans.small.size.memory"),
        ("shop.yaml", "plans.small.limits.itmes"),
        ("shop.yaml", "plans.small.limits"),
        ("other.yaml", "prot"),
        ("other.yaml", "plans"),
    }
    assert found == sorted(found)


def test_a_price_that_sells_two_things_is_refused(tmp_path: Path) -> None:
    other = SHOP.replace("product: shop", "product: other").replace("shop_", "other_").replace("_0", "_2")
    (tmp_path / "other.yaml").write_text(other)
    problem = only(tmp_path, SHOP)
    assert problem.key == "plans.small.prices.month.id"
    assert problem.what == "price id 'price_1' stands in other.yaml line 16 too"


def test_a_lookup_key_twice_in_one_file_is_refused(tmp_path: Path) -> None:
    problem = only(tmp_path, edited('{id: price_1, amount: "9.50"}', "{lookup_key: shop_small_year}"))
    assert problem.what == "price lookup_key 'shop_small_year' stands in shop.yaml line 16 too"
    assert problem.line == 17


def test_two_files_with_one_product_are_refused(tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_text(SHOP.replace("price_", "price_2").replace("shop_", "b_"))
    found = problems(tmp_path)
    assert "product 'shop' stands in copy.yaml line 1 too" in {problem.what for problem in found}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "is empty"),
        ("# nothing\n", 1, "is empty"),
        ("- a\n- b\n", 1, "is not a mapping of keys to values"),
        ("just text", 1, "is not a mapping of keys to values"),
        (b"product: shop\ntitle: \xff\n", 2, "is not UTF-8"),
        ("product: shop\ntitle: \x00\n", 2, "holds a control character (U+0000)"),
        (edited("    MAX_ITEMS", "\tMAX_ITEMS"), 8, "a tab indents this line"),
        ("product: [shop\ntitle: x\n", 2, "is no YAML"),
        (SHOP + "---\n" + SHOP, SHOP.count("\n") + 1, "begins a second YAML document"),
        ("? [a, b]\n: c\n", 1, "a key is not plain text"),
        (edited("meters:", "extra: *anchor\nmeters:"), 10, "uses a YAML alias"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", 2, "uses a YAML alias"),
        ("a: " + "[" * 5000, 1, "is nested over 20 levels deep"),
        ("a: [" + "1," * (LARGEST_NODES + 1) + "]", 1, f"holds over {LARGEST_NODES} values"),
        ("#" * (LARGEST_BYTES + 1), 1, "is larger than 1024 KiB"),
    ],
)
def test_a_file_that_is_no_product_is_told_so(
    tmp_path: Path, text: str | bytes, line: int, what: str
) -> None:
    found = [problem for problem in problems(tmp_path, text) if what in problem.what]
    assert [problem.line for problem in found] == [line]
    assert found[0].remedy


def test_a_key_that_stands_twice_is_refused_naming_both_lines(tmp_path: Path) -> None:
    problem = only(tmp_path, edited("data_path: /data\n", "data_path: /data\nport: 80\n"))
    assert str(problem) == "shop.yaml:6: port: stands twice, first on line 4: remove or rename one of the two"


def test_a_byte_order_mark_and_windows_line_ends_will_do(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes(b"\xef\xbb\xbf" + SHOP.replace("\n", "\r\n").encode())
    assert load_catalogue(tmp_path).products["shop"].title == "A shop"


def test_a_file_that_would_be_overlooked_is_told(tmp_path: Path) -> None:
    (tmp_path / "shop.yml").write_text(SHOP)
    with pytest.raises(CatalogueError, match=r"shop\.yml:1: would be overlooked: rename it to shop\.yaml"):
        load_catalogue(tmp_path)


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_products_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(CatalogueError, match=r"holds no product|cannot be read"):
        load_catalogue(tmp_path / name)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").mkdir()
    with pytest.raises(CatalogueError, match=r"shop\.yaml:1: cannot be read \(Is a directory\)"):
        load_catalogue(tmp_path)


def test_editors_schema_accepts_what_the_loader_accepts() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    ours = [file.read_text() for file in (Path(__file__).parents[2] / "catalogue").glob("*.yaml")]
    assert len(ours) == 4
    for text in (SHOP, *ours):
        assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []
    for old, new in (
        ("port: 8080", "prot: 8080"),
        ("image: registry.example/shop:1.2\n", ""),
        ("{id: price_1,", "{"),
    ):
        assert list(validator.iter_errors(yaml.safe_load(edited(old, new)))), new
    assert json.dumps(schema)


@given(st.data())
def test_no_edit_makes_the_loader_fail_in_any_other_way(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = SHOP.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    noise = st.text(alphabet="abz019:-[]{}#&*!|>'\"% \t\n.~<=,é\x85", max_size=12)
    cut = data.draw(st.integers(0, len(lines[number])))
    lines[number] = (
        lines[number][:cut] + data.draw(noise) + lines[number][cut + data.draw(st.integers(0, 4)) :]
    )
    text = "\n".join(lines)
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "shop.yaml").write_text(text, encoding="utf-8")
    found: tuple[Problem, ...] = ()
    try:
        load_catalogue(folder)
    except CatalogueError as error:
        found = error.problems
    last = len(text.splitlines()) + 1
    assert [problem for problem in found if not (1 <= problem.line <= last and problem.remedy)] == []


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    document = read_document(file)
    assert document.line(("plans", "small", "size", "memory")) == line_of(SHOP, "memory: 128Mi")
    assert document.line(("secrets", 0)) == line_of(SHOP, "secrets:")
    assert document.line(("plans", "small", "nowhere", "at all")) == line_of(SHOP, "  small:")
