"""What all of Stripe's objects have in common."""

from collections.abc import Sequence
from typing import Any

API_VERSION = "2026-10-28.endive"

Json = dict[str, Any]


def public(found: Json) -> Json:
    """A stored object without what is ours alone: the fields whose names begin with an underscore."""
    return {name: value for name, value in found.items() if not name.startswith("_")}


def list_of(data: Sequence[Json], url: str, *, has_more: bool = False) -> Json:
    """Stripe's list object."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}
