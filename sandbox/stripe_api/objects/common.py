"""What all of Stripe's objects have in common."""

from collections.abc import Sequence
from typing import Any

API_VERSION = "2026-10-28.endive"

Json = dict[str, Any]


def list_of(data: Sequence[Json], url: str, *, has_more: bool = False) -> Json:
    """Stripe's list object."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}
