"""Loads the catalogue, or tells everything that is wrong with it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from catalogue.document import Document, read_document
from catalogue.problems import CatalogueError, KeyPath, Problem, RefusedError, nearest
from catalogue.rules import check_product, check_together
from catalogue.schema import Catalogue, Product, json_schema

__all__ = ["CatalogueError", "load_catalogue"]

MOST_FILES: Final = 200
_FOLDER: Final = Path(__file__).parent
_REMEDIES: Final = {
    "string_type": ("is not text", "put it in quotes"),
    "int_type": ("is not a whole number", "write one without quotes"),
    "int_from_float": ("is not a whole number", "write it without a fraction"),
    "bool_type": ("is not true or false", "write one of them"),
    "mapping_type": ("is not a mapping", "write 'key: value' lines below it, indented"),
    "dict_type": ("is not a mapping", "write 'key: value' lines below it, indented"),
    "model_type": ("is not a mapping", "write 'key: value' lines below it, indented"),
    "model_attributes_type": ("is not a mapping", "write 'key: value' lines below it, indented"),
    "tuple_type": ("is not a list", "write it as [one, two]"),
    "list_type": ("is not a list", "write it as [one, two]"),
    "too_short": ("is empty", "write at least one into it"),
}


def load_catalogue(folder: Path | None = None) -> Catalogue:
    """Load every `*.yaml` of `folder`; None means the catalogue that comes with Berth.

    Raises:
        CatalogueError: anything is wrong with any file; `problems` has all of it, by file and line.
    """
    folder = folder or _FOLDER
    documents = [read_document(file) for file in _files(folder)]
    problems: list[Problem] = []
    products: dict[str, Product] = {}
    for document in documents:
        product, found = _check(document)
        problems += found
        if product is not None:
            products[product.product] = product
    problems += check_together(documents)
    if problems:
        raise CatalogueError(sorted(problems))
    return Catalogue(products)


def _files(folder: Path) -> list[Path]:
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise CatalogueError(
            [Problem(str(folder), 1, "", f"cannot be read ({error.strerror})", "name the catalogue's folder")]
        ) from error
    files = [path for path in entries if path.suffix == ".yaml"]
    problems = [
        Problem(path.name, 1, "", "would be overlooked", f"rename it to {path.stem}.yaml")
        for path in entries
        if path.suffix.lower() in {".yml", ".yaml"} and path not in files
    ]
    if not files and not problems:
        problems = [Problem(str(folder), 1, "", "holds no product", "add <product>.yaml")]
    if len(files) > MOST_FILES:
        problems = [Problem(str(folder), 1, "", f"holds over {MOST_FILES} products", "name another folder")]
    if problems:
        raise CatalogueError(problems)
    return files


def _check(document: Document) -> tuple[Product | None, list[Problem]]:
    problems = list(document.problems)
    if not document.data:
        return None, problems
    told = {problem.key for problem in problems}
    product = None
    try:
        product = Product.model_validate(document.data)
    except ValidationError as error:
        schema = json_schema()
        found = (_problem(document, details, schema) for details in error.errors(include_url=False))
        # A value that is no plain YAML fails the model too; the first reason is the one to correct.
        problems += (problem for problem in found if problem.key not in told)
    problems += check_product(document)
    return (product if not problems else None), problems


def _problem(document: Document, details: ErrorDetails, schema: Mapping[str, Any]) -> Problem:
    path = tuple(part for part in details["loc"] if part != "[key]")
    what, remedy = _words(details, path, schema)
    return document.problem(path, what, remedy)


def _words(details: ErrorDetails, path: KeyPath, schema: Mapping[str, Any]) -> tuple[str, str]:
    kind = details["type"]
    refusal = details.get("ctx", {}).get("error")
    if isinstance(refusal, RefusedError):
        return refusal.what, refusal.remedy
    if kind == "extra_forbidden":
        return "is an unknown key", nearest(str(path[-1]), _keys_at(schema, path[:-1]))
    if kind == "missing":
        return "is missing", f"add '{path[-1]}: …'"
    if kind == "literal_error":
        return "is an unknown key", nearest(str(path[-1]), ("month", "year"))
    if kind in _REMEDIES:
        return _REMEDIES[kind]
    message = details["msg"].removeprefix("Input should be ").removeprefix("Value should ")
    return f"{details['input']!r:.80} will not do", f"write what is {message}"


def _keys_at(schema: Mapping[str, Any], path: KeyPath) -> Iterator[str]:
    """The keys that the JSON Schema knows at `path`."""
    node: Mapping[str, Any] = schema
    for part in path:
        properties = node.get("properties", {})
        # Keys of a free choice: pydantic writes patternProperties where the key has a pattern.
        others = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
        node = _resolve(schema, properties.get(part) or others[0] or {})
    yield from node.get("properties", {})


def _resolve(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    for choice in [node, *node.get("anyOf", ()), *node.get("allOf", ())]:
        if "$ref" in choice:
            found: Mapping[str, Any] = schema["$defs"][choice["$ref"].rpartition("/")[2]]
            return found
    return node
