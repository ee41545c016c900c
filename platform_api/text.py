"""What text from outside must be before it is stored or shown."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_REFUSED = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})


def _printable(value: str) -> str:
    if any(unicodedata.category(character) in _REFUSED for character in value):
        raise ValueError("must not contain control characters")
    return value


def _email(value: str) -> str:
    local, at, domain = value.partition("@")
    if not (local and at and domain) or "@" in domain or any(character.isspace() for character in value):
        raise ValueError("must look like name@example.com")
    return value


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    AfterValidator(_printable),
]
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=3, max_length=254),
    AfterValidator(_printable),
    AfterValidator(_email),
]
