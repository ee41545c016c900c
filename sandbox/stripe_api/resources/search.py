"""Searches, in Stripe's query language: https://docs.stripe.com/search#search-query-language.

What was just made is found at once here; at Stripe it takes up to a minute.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Change, Operation, found
from sandbox.stripe_api.params import LARGEST_PAGE, Params, Text
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.store import Page, Query

MOST_CLAUSES = 10
SHORTEST_SUBSTRING = 3
_FIELDS: Mapping[str, tuple[str, str]] = {
    "charges": ("charge", "amount created currency customer disputed refunded status"),
    "customers": ("customer", "created email name phone"),
    "invoices": ("invoice", "created currency customer number status subscription total"),
    "payment_intents": ("payment_intent", "amount created currency customer status"),
    "prices": ("price", "active currency lookup_key product type"),
    "products": ("product", "active description name shippable url"),
    "subscriptions": ("subscription", "canceled_at created status"),
}
"""By path, the kind that is searched and the fields it may be searched by, beside `metadata`."""
_CLAUSE = re.compile(
    r"""\s*(?P<negated>-?)(?P<field>[a-z_]+)(?:\[(?P<mark>["'])(?P<key>.*?)(?P=mark)\])?"""
    r"""\s*(?P<operator>:|~|>=|<=|>|<)\s*"""
    r"""(?:(?P<quote>["'])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)|(?P<number>-?\d+)|(?P<null>null))\s*"""
    r"""(?:(?P<joint>AND|OR|and|or)\b)?"""
)
_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    ":": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
Matcher = Callable[[Json], bool]


class SearchParams(Params):
    """A page of what matches a query."""

    query: Text
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 10
    page: Text | None = None


def matcher(query: str, fields: frozenset[str]) -> Matcher:
    """Whether an object matches a query.

    Raises:
        ApiError: the query makes no sense, or asks about a field that cannot be searched by.
    """
    parts = list(_CLAUSE.finditer(query))
    if "".join(part[0] for part in parts) != query or len(parts) > MOST_CLAUSES or parts[-1]["joint"]:
        raise _unreadable(query)
    joints = {(part["joint"] or "AND").upper() for part in parts[:-1]}
    if len(joints) > 1:
        raise ApiError("A query may combine its clauses with AND or with OR, not with both.", param="query")
    clauses = [_clause(part, fields) for part in parts]
    combine = any if "OR" in joints else all
    return lambda one: combine(clause(one) for clause in clauses)


def _unreadable(query: str) -> ApiError:
    return ApiError(
        f"We were unable to parse your search query: {query[:200]}. Write it as field:'value', with up to"
        f" {MOST_CLAUSES} clauses.",
        param="query",
    )


def _clause(found: re.Match[str], fields: frozenset[str]) -> Matcher:
    field, key = found["field"], found["key"]
    if field not in fields or (field == "metadata") != (key is not None):
        raise ApiError(f"Field `{field}` is an unsupported search field for this resource.", param="query")
    compared = _comparison(found)
    negated = bool(found["negated"])

    def matches(one: Json) -> bool:
        value = one["metadata"].get(key) if field == "metadata" else _value(one, field)
        return bool(compared(value)) is not negated

    return matches


def _value(one: Json, field: str) -> object:
    if (one["object"], field) == ("invoice", "subscription"):
        return one["parent"]["subscription_details"]["subscription"]
    return one[field]


def _comparison(found: re.Match[str]) -> Callable[[object], bool]:
    sign = found["operator"]
    if found["null"] is not None and sign == ":":
        return lambda value: value is None
    if found["number"] is not None and sign in _COMPARISONS:
        number, compare = int(found["number"]), _COMPARISONS[sign]
        return lambda value: isinstance(value, int) and compare(value, number)
    text = re.sub(r"\\(.)", r"\1", found["text"] or "").lower()
    if found["text"] is not None and sign == ":":
        return lambda value: value is not None and str(value).lower() == text
    if sign == "~" and len(text) >= SHORTEST_SUBSTRING:
        return lambda value: isinstance(value, str) and text in value.lower()
    raise _unreadable(found[0])


def _search(name: str, kind: str, fields: frozenset[str]) -> Operation[SearchParams]:
    path = f"/v1/{name}/search"

    def run(asked: Asked[SearchParams]) -> Change:
        matches = matcher(asked.params.query, fields)
        query = Query(kind, keep=lambda one: not one.get("deleted") and matches(one))
        if asked.params.page is not None:
            found(asked.state, kind, asked.params.page, "page")
        objects, more = asked.state.page(query, Page(asked.params.limit, asked.params.page))
        answer = {
            "object": "search_result",
            "data": [shown(one, asked.state) for one in objects],
            "has_more": more,
            "next_page": objects[-1]["id"] if more else None,
            "url": path,
        }
        return Change(answer)

    return Operation("GET", path, SearchParams, run)


def operations() -> tuple[Operation[Any], ...]:
    """Every search."""
    return tuple(
        _search(name, kind, frozenset([*fields.split(), "metadata"]))
        for name, (kind, fields) in _FIELDS.items()
    )
