"""Kubernetes quantities as whole numbers: millicores and bytes.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

from catalogue.problems import RefusedError

LARGEST: Final = 2**63 - 1
"""Kubernetes keeps quantities in 64 bits."""

_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_QUANTITY: Final = re.compile(
    r"(?P<number>\d{1,20}(?:\.\d{0,12})?|\.\d{1,12})"
    r"(?:(?P<binary>[KMGTPE]i)|[eE](?P<exponent>[+-]?\d{1,2})|(?P<decimal>[numkMGTPE]?))",
    re.ASCII,
)

_CPU_REMEDY: Final = "write cores ('2', '0.5') or thousandths of one ('500m')"
_BYTES_REMEDY: Final = "write bytes with a unit, such as '256Mi' or '10Gi'"


def parse_millicores(quantity: str | float) -> int:
    """Return a CPU quantity in thousandths of a core: '250m' is 250, '0.5' is 500.

    Raises:
        RefusedError: it is no quantity, negative, too large, or finer than a thousandth.
    """
    millicores = _parse(quantity, "CPU", _CPU_REMEDY) * 1000
    if millicores != millicores.to_integral_value():
        raise RefusedError(
            f"'{quantity}' is finer than a thousandth of a core", "write whole thousandths: '1m'"
        )
    return _bounded(millicores, quantity, _CPU_REMEDY)


def parse_bytes(quantity: str | float) -> int:
    """Return a memory or storage quantity in bytes, rounded up as Kubernetes does: '1Ki' is 1024.

    Raises:
        RefusedError: it is no quantity, negative, too large, or in thousandths ('256m' for 256Mi).
    """
    text = str(quantity)
    if text[-1:] in {"n", "u", "m"}:
        raise RefusedError(f"'{quantity}' is less than it looks: '{text[-1]}' divides", _BYTES_REMEDY)
    return _bounded(_parse(quantity, "size", _BYTES_REMEDY), quantity, _BYTES_REMEDY)


def _parse(quantity: str | float, noun: str, remedy: str) -> Decimal:
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | float):
        raise RefusedError(f"{quantity!r} is no {noun}", remedy)
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise RefusedError(f"'{str(quantity)[:40]}' is no {noun} quantity", remedy)
    number = Decimal(match["number"])
    if match["binary"]:
        return number * (1 << 10 * _BINARY[match["binary"]])
    return number.scaleb(int(match["exponent"] or 0) or _DECIMAL[match["decimal"] or ""])


def _bounded(value: Decimal, quantity: str | float, remedy: str) -> int:
    whole = int(value.to_integral_value(ROUND_CEILING))
    if whole > LARGEST:
        raise RefusedError(f"'{quantity}' is more than Kubernetes can count", remedy)
    return whole
