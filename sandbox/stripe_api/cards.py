"""Stripe's published test cards and how each behaves: https://docs.stripe.com/testing."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

MOST_DIGITS = 19


class CardRefusedError(Exception):
    """Why the card did not pay, for the person who typed it."""


@dataclass(frozen=True)
class TestCard:
    """A card: `refusal` is what its bank says, None when it pays."""

    brand: str
    refusal: str | None = None


_CARDS = {
    "4242424242424242": TestCard("visa"),
    "5555555555554444": TestCard("mastercard"),
    "378282246310005": TestCard("amex"),
    "4000000000000002": TestCard("visa", "Your card was declined."),
    "4000000000009995": TestCard("visa", "Your card has insufficient funds. Try a different card."),
}


@dataclass(frozen=True)
class Card:
    """A card that pays."""

    number: str
    brand: str
    exp_month: int
    exp_year: int


def charge(number: str, expiry: str, now: int) -> Card:
    """The card behind what was typed, if it pays.

    Args:
        number: digits, spaces allowed.
        expiry: `MM / YY`; empty for the end of the year after next.
        now: Unix seconds.

    Raises:
        CardRefusedError: it does not.
    """
    digits = "".join(number.split())
    if not digits.isascii() or not digits.isdecimal() or not _checks_out(digits):
        raise CardRefusedError("Your card number is invalid.")
    month, year = _expiry(expiry, now)
    card = _CARDS.get(digits)
    if card is None:
        raise CardRefusedError(
            "Your card was declined: only Stripe's test cards work here. Try 4242 4242 4242 4242."
        )
    if card.refusal is not None:
        raise CardRefusedError(card.refusal)
    return Card(digits, card.brand, month, year)


def _checks_out(digits: str) -> bool:
    """ISO/IEC 7812's check digit."""
    if not 12 <= len(digits) <= MOST_DIGITS:
        return False
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0


def _expiry(expiry: str, now: int) -> tuple[int, int]:
    today = datetime.fromtimestamp(now, UTC)
    typed = "".join(expiry.split())
    if not typed:
        return 12, today.year + 2
    month, _, year = typed.partition("/")
    if re.fullmatch(r"(0?[1-9]|1[0-2])/(\d{2}|\d{4})", typed, re.ASCII) is None:
        raise CardRefusedError("Your card's expiration date is incomplete: write it as MM / YY.")
    full_year = int(year) + (2000 if len(year) == 2 else 0)
    if (full_year, int(month)) < (today.year, today.month):
        raise CardRefusedError("Your card's expiration date is in the past.")
    return int(month), full_year
