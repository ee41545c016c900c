"""Kubernetes quantities: how this project writes them, and when two of them are the same amount."""

import re
from decimal import Decimal
from typing import Final

_BINARY: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(?:([KMGTPE]i)|([eE][+-]?\d+)|([numkMGTPE]?))")


def cpu(millicores: int) -> str:
    """Write `millicores` as Kubernetes writes it back: whole cores without a suffix."""
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def size(count: int) -> str:
    """Write `count` bytes as Kubernetes writes it back: in the largest binary unit that divides it."""
    unit = next((name for name, factor in reversed(_BINARY.items()) if count and count % factor == 0), "")
    return f"{count // _BINARY.get(unit, 1)}{unit}"


def amount(text: str | float) -> Decimal | None:
    """Return the number a quantity stands for, or None when `text` is not a quantity.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match[1].count(".") > 1 or not any(letter.isdigit() for letter in match[1]):
        return None
    number, binary, exponent, suffix = match.groups()
    if binary:
        return Decimal(number) * _BINARY[binary]
    if exponent:
        return Decimal(number + exponent)
    return Decimal(number).scaleb(_DECIMAL[suffix])
