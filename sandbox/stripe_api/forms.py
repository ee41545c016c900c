"""Stripe's form encoding: `items[0][price]=price_1` is `{"items": {"0": {"price": "price_1"}}}`."""

import re
from collections.abc import Iterable
from typing import Any

from sandbox.stripe_api.errors import ApiError

MOST_FIELDS = 1000
DEEPEST = 8
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SEGMENT = re.compile(r"\[([^\[\]]*)\]")


def decode(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Nested objects out of a form's fields; lists stay objects keyed "0", "1"… until a model says list.

    Raises:
        ApiError: a malformed name, one name used as both value and object, too many or too deep.
    """
    root: dict[str, Any] = {}
    for count, (name, value) in enumerate(pairs):
        if count >= MOST_FIELDS:
            raise _invalid(name, f"a request may have at most {MOST_FIELDS} parameters")
        _place(root, name, value)
    return root


def _place(root: dict[str, Any], name: str, value: str) -> None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise _invalid(name, "write nested parameters as a[b][c]")
    path = [match[1], *_SEGMENT.findall(match[2])]
    if len(path) > DEEPEST:
        raise _invalid(name, f"parameters may nest at most {DEEPEST} deep")
    node = root
    for position, segment in enumerate(path[:-1]):
        key = segment or _list_position(node, path[position + 1 :])
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise _invalid(name, "it is given both as a value and as an object")
    last = path[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise _invalid(name, "it is given both as a value and as an object")
    node[last] = value


def _list_position(node: dict[str, Any], rest: list[str]) -> str:
    """Where `items[][price]` goes: the element being filled, or a new one once that has this field."""
    if not node:
        return "0"
    filled: Any = node.get(str(len(node) - 1))
    for segment in rest:
        if not isinstance(filled, dict) or segment not in filled:
            return str(len(node) - 1)
        filled = filled[segment]
    return str(len(node))


def _invalid(name: str, why: str) -> ApiError:
    return ApiError(f"Invalid parameter {name[:100]}: {why}.", param=name[:100], began=False)
