"""Amounts as people read them."""

from decimal import Decimal

_WITHOUT_CENTS = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf".split())  # noqa: SIM905  # reads better
"""https://docs.stripe.com/currencies#zero-decimal"""
_SIGNS = {"eur": "€", "gbp": "£", "usd": "$"}


def amount_text(amount: int, currency: str) -> str:
    """`$29.00`, `CHF 29.00` or `JPY 2900` for an amount in the currency's smallest unit."""
    number = f"{amount:,}" if currency in _WITHOUT_CENTS else f"{Decimal(amount) / 100:,.2f}"
    sign = _SIGNS.get(currency)
    return f"{sign}{number}" if sign else f"{currency.upper()} {number}"


def interval_text(interval: str, count: int) -> str:
    """`per month` or `every 3 months`."""
    return f"per {interval}" if count == 1 else f"every {count} {interval}s"
