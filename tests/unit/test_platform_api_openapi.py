from pathlib import Path

import pytest
import yaml

from platform_api.openapi import render

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return render()


@pytest.mark.parametrize("name", ["openapi.json", "openapi.yaml"])
def test_the_committed_document_is_that_of_the_source(rendered: dict[str, str], name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == rendered[name], (
        "run `uv run python -m platform_api.openapi` and commit docs/openapi.*"
    )


def test_both_documents_say_the_same(rendered: dict[str, str]) -> None:
    assert yaml.safe_load(rendered["openapi.json"]) == yaml.safe_load(rendered["openapi.yaml"])


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


def test_every_reference_leads_somewhere_and_errors_are_problems(rendered: dict[str, str]) -> None:
    document = yaml.safe_load(rendered["openapi.json"])
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= known
    for path in document["paths"].values():
        for operation in path.values():
            errors = {s: r for s, r in operation["responses"].items() if not s.startswith("2")}
            assert errors
            for response in errors.values():
                assert list(response["content"]) == ["application/problem+json"]
