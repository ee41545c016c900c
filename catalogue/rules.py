"""What must hold between several keys of a product, or between products; told on the plain values.

Not on the models, so that these problems are found even while other keys are wrong.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalogue.document import Document
from catalogue.problems import KeyPath, Problem, nearest


def check_product(document: Document) -> Iterator[Problem]:
    """Yield what is wrong between the keys of one product."""
    yield from _source(document)
    yield from _meters(document)
    yield from _grants(document)
    yield from _free(document)
    yield from _aliases(document)
    yield from _names(document)
    yield from _replicas(document)


def check_together(documents: Sequence[Document]) -> Iterator[Problem]:
    """Yield every product name and price that stands in more than one place; a price sells one thing."""
    places: dict[tuple[str, str], list[tuple[Document, KeyPath]]] = defaultdict(list)
    for document in documents:
        for kind, name, path in _unique_names(document):
            places[kind, name].append((document, path))
    for (kind, name), found in places.items():
        (first, first_path), *others = found
        for document, path in others:
            place = f"{first.file} line {first.line(first_path)}"
            yield document.problem(path, f"{kind} '{name}' stands in {place} too", "give each its own")


def _source(document: Document) -> Iterator[Problem]:
    data = document.data
    if ("image" in data) == ("chart" in data):
        what = "has both image and chart" if "image" in data else "has neither image nor chart"
        yield document.problem(("chart",) if "chart" in data else (), what, "give exactly one of them")
    name = data.get("product")
    stem = document.file.removesuffix(".yaml")
    if isinstance(name, str) and name != stem:
        yield document.problem(
            ("product",), f"'{name}' stands in {document.file}", f"name the file {name}.yaml"
        )


def _meters(document: Document) -> Iterator[Problem]:
    meters = _mapping(document.data, "meters")
    for variable, meter in _mapping(document.data, "entitlement", "environment").items():
        if meter not in meters:
            path = ("entitlement", "environment", variable)
            yield document.problem(path, f"'{meter}' is no meter", nearest(str(meter), meters))
    for plan in _mapping(document.data, "plans"):
        yield from _limits(document, plan, meters)


def _limits(document: Document, plan: str, meters: Mapping[str, Any]) -> Iterator[Problem]:
    path = ("plans", plan, "limits")
    limits = _mapping(document.data, *path)
    for meter in limits:
        if meter not in meters:
            yield document.problem((*path, meter), "is no meter of this product", nearest(meter, meters))
    for meter in meters:
        if meter not in limits:
            remedy = f"write '{meter}: 10' or '{meter}: unlimited'"
            yield document.problem(path, f"says nothing about '{meter}'", remedy)


def _grants(document: Document) -> Iterator[Problem]:
    meters = _mapping(document.data, "meters")
    for add_on in _mapping(document.data, "add_ons"):
        path = ("add_ons", add_on, "grants")
        for meter in _mapping(document.data, *path):
            if meter not in meters:
                yield document.problem((*path, meter), "is no meter of this product", nearest(meter, meters))


def _free(document: Document) -> Iterator[Problem]:
    for name, plan in _mapping(document.data, "plans").items():
        if not isinstance(plan, Mapping) or plan.get("free") is not True:
            continue
        if plan.get("prices"):
            what = "a free plan has no price"
            yield document.problem(("plans", name, "prices"), what, "remove it, or 'free: true'")
        if plan.get("trial_days"):
            what = "a free plan has no trial"
            yield document.problem(("plans", name, "trial_days"), what, "remove it, or 'free: true'")


def _aliases(document: Document) -> Iterator[Problem]:
    plans = _mapping(document.data, "plans")
    meant: dict[str, str] = {}
    for name, plan in plans.items():
        aliases = plan.get("aliases") if isinstance(plan, Mapping) else None
        for index, alias in enumerate(aliases if isinstance(aliases, list) else ()):
            path = ("plans", name, "aliases", index)
            if not isinstance(alias, str):
                continue
            if alias in plans:
                yield document.problem(path, f"'{alias}' is a plan's own name", "remove or rename it")
            elif alias in meant:
                what = f"'{alias}' is an alias of '{meant[alias]}' already"
                yield document.problem(path, what, "remove one of the two")
            meant.setdefault(alias, name)


def _names(document: Document) -> Iterator[Problem]:
    secrets = document.data.get("secrets")
    names = secrets if isinstance(secrets, list) else []
    environment = _mapping(document.data, "entitlement", "environment")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        if name in names[:index]:
            yield document.problem(("secrets", index), f"'{name}' stands twice", "remove one")
        if name in environment:
            yield document.problem(
                ("secrets", index), f"'{name}' is in entitlement.environment too", "rename one of them"
            )


def _replicas(document: Document) -> Iterator[Problem]:
    if not document.data.get("data_path"):
        return
    for plan in _mapping(document.data, "plans"):
        replicas = _mapping(document.data, "plans", plan, "size").get("replicas")
        if isinstance(replicas, int) and replicas > 1:
            yield document.problem(
                ("plans", plan, "size", "replicas"),
                f"{replicas} replicas cannot share the volume at data_path",
                "write 1, or data_path: ''",
            )


def _unique_names(document: Document) -> Iterator[tuple[str, str, KeyPath]]:
    name = document.data.get("product")
    if isinstance(name, str):
        yield "product", name, ("product",)
    for sold in ("plans", "add_ons"):
        for name in _mapping(document.data, sold):
            prices = (sold, name, "prices")
            for interval, price in _mapping(document.data, *prices).items():
                yield from _price_names(price, (*prices, interval))


def _price_names(price: object, path: KeyPath) -> Iterator[tuple[str, str, KeyPath]]:
    if not isinstance(price, Mapping):
        return
    for kind in ("id", "lookup_key"):
        if isinstance(value := price.get(kind), str):
            yield f"price {kind}", value, (*path, kind)
    former = price.get("former")
    for index, value in enumerate(former if isinstance(former, list) else ()):
        if isinstance(value, str):
            yield "price id", value, (*path, "former", index)


def _mapping(data: object, *path: str) -> Mapping[str, Any]:
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}
