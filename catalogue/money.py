"""Amounts of money as Stripe counts them: in the smallest unit of their currency."""

from decimal import Decimal
from typing import Final

_WHOLE: Final = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"}
)
"""https://docs.stripe.com/currencies#zero-decimal"""
_THOUSANDTHS: Final = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
"""https://docs.stripe.com/currencies#three-decimal"""

WITHOUT_HUNDREDTHS: Final = _WHOLE | _THOUSANDTHS


def in_figures(amount: int, currency: str) -> str:
    """Return `29.00` for 2900 `usd`, `2900` for as many `jpy`; the currency in three small letters."""
    places = 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2
    return f"{Decimal(amount).scaleb(-places):.{places}f}"
