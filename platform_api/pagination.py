"""Keyset pages: a cursor is the place of the last thing seen, so pages stay right while things are added."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Query

from platform_api import problems
from platform_api.problems import FieldError, Problem

MAX_LIMIT = 100

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most this many")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")]

_ID = re.compile(r"[a-z0-9]{1,64}")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list ordered by time, then id."""

    at: datetime
    id: str


def encode(position: Position) -> str:
    """Return `position` as an opaque cursor."""
    return base64.urlsafe_b64encode(f"{position.at.isoformat()} {position.id}".encode()).decode()


def decode(cursor: str | None) -> Position | None:
    """Return the position that `encode` made `cursor` from.

    Raises:
        Problem: 422, it is no cursor of ours.
    """
    if cursor is None:
        return None
    try:
        at, _, found = base64.urlsafe_b64decode(cursor.encode("ascii")).decode("ascii").partition(" ")
        position = Position(datetime.fromisoformat(at), found)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    if position.at.tzinfo is None or not _ID.fullmatch(found):
        raise _invalid()
    return position


def _invalid() -> Problem:
    wrong = FieldError(pointer="query/cursor", detail="is not a cursor that a page gave")
    return Problem(problems.INVALID, "Start again without a cursor.", errors=[wrong])
