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
    for plan in _mapping(document.data, "plans"):
        prices = _mapping(document.data, "plans", plan, "prices")
        for interval, price in prices.items():
            for kind in ("id", "lookup_key"):
                value = price.get(kind) if isinstance(price, Mapping) else None
                if isinstance(value, str):
                    yield f"price {kind}", value, ("plans", plan, "prices", interval, kind)


def _mapping(data: object, *path: str) -> Mapping[str, Any]:
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}
