"""Stripe's published test cards and how each behaves: https://docs.stripe.com/testing."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

MOST_DIGITS = 19

Authentication = Literal["never", "until_set_up", "always"]


class CardRefusedError(Exception):
    """Why the card cannot be used, for the person who typed it; `code` is Stripe's."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Refusal:
    """What a bank says instead of paying, in Stripe's codes, and the sentence for the person."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True)
class TestCard:
    """A card's behaviour.

    Attributes:
        refusal: what every charge meets; None when it pays.
        attaches: whether a customer may keep it in spite of its refusal.
        authentication: when its holder has to say it is them; a card that is set up is not asked again
            while its holder is away.
        dispute: the reason its holder gives for disputing every charge.
    """

    number: str
    brand: str = "visa"
    refusal: Refusal | None = None
    attaches: bool = False
    authentication: Authentication = "never"
    dispute: str | None = None


_DECLINED = Refusal("card_declined", "generic_decline", "Your card was declined.")
_NO_FUNDS = Refusal("card_declined", "insufficient_funds", "Your card has insufficient funds.")
_EXPIRED = Refusal("expired_card", "expired_card", "Your card has expired.")
_WRONG_CVC = Refusal("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect.")
_ERROR = Refusal(
    "processing_error",
    "processing_error",
    "An error occurred while processing your card. Try again in a little bit.",
)
NOT_AUTHENTICATED = Refusal(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)

_CARDS = {
    card.number: card
    for card in (
        TestCard("4242424242424242"),
        TestCard("5555555555554444", "mastercard"),
        TestCard("378282246310005", "amex"),
        TestCard("4000000000000002", refusal=_DECLINED),
        TestCard("4000000000009995", refusal=_NO_FUNDS),
        TestCard("4000000000000069", refusal=_EXPIRED),
        TestCard("4000000000000127", refusal=_WRONG_CVC),
        TestCard("4000000000000119", refusal=_ERROR),
        TestCard("4000000000000341", refusal=_DECLINED, attaches=True),
        TestCard("4000002500003155", authentication="until_set_up"),
        TestCard("4000002760003184", authentication="always"),
        TestCard("4000000000003220", authentication="always"),
        TestCard("4000000000000259", dispute="fraudulent"),
        TestCard("4000000000002685", dispute="product_not_received"),
    )
}

CARDS = tuple(_CARDS.values())
"""Every card there is."""

_BY_LAST4 = {card.number[-4:]: card for card in _CARDS.values()}

_NAMES = {
    "visa": "4242424242424242",
    "mastercard": "5555555555554444",
    "amex": "378282246310005",
    "chargeDeclined": "4000000000000002",
    "visa_chargeDeclined": "4000000000000002",
    "chargeDeclinedInsufficientFunds": "4000000000009995",
    "visa_chargeDeclinedInsufficientFunds": "4000000000009995",
    "chargeDeclinedExpiredCard": "4000000000000069",
    "chargeDeclinedIncorrectCvc": "4000000000000127",
    "chargeDeclinedProcessingError": "4000000000000119",
    "chargeCustomerFail": "4000000000000341",
    "authenticationRequiredOnSetup": "4000002500003155",
    "authenticationRequired": "4000002760003184",
    "threeDSecure2Required": "4000000000003220",
    "createDispute": "4000000000000259",
    "createDisputeProductNotReceived": "4000000000002685",
}
"""What Stripe calls them after `pm_card_` and `tok_`."""


@dataclass(frozen=True)
class Card:
    """A test card with the date somebody gave it."""

    test: TestCard
    exp_month: int
    exp_year: int


def typed(number: str, expiry: str, now: int) -> Card:
    """The card behind what was typed.

    Args:
        number: digits, spaces allowed.
        expiry: `MM / YY`; empty for the end of the year after next.
        now: Unix seconds.

    Raises:
        CardRefusedError: it makes no sense, or is none of Stripe's test cards.
    """
    digits = "".join(number.split())
    if not digits.isascii() or not digits.isdecimal() or not _checks_out(digits):
        raise CardRefusedError("Your card number is invalid.", "incorrect_number")
    month, year = _expiry(expiry, now)
    known = _CARDS.get(digits)
    if known is None:
        raise CardRefusedError(
            "Your card was declined: only Stripe's test cards work here. Try 4242 4242 4242 4242.",
            "card_declined",
        )
    return Card(known, month, year)


def named(token: str, now: int) -> Card | None:
    """The card of one of Stripe's test names, `pm_card_visa` or `tok_visa`; None for any other id."""
    number = _NAMES.get(token.removeprefix("pm_card_").removeprefix("tok_"))
    if number is None or not token.startswith(("pm_card_", "tok_")):
        return None
    return typed(number, "", now)


def behaviour(last4: str) -> TestCard:
    """How the test card behaves that ends in these digits; all of them end differently."""
    return _BY_LAST4[last4]


def _checks_out(digits: str) -> bool:
    """ISO/IEC 7812's check digit."""
    if not 12 <= len(digits) <= MOST_DIGITS:
        return False
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0


def _expiry(expiry: str, now: int) -> tuple[int, int]:
    today = datetime.fromtimestamp(now, UTC)
    written = "".join(expiry.split())
    if not written:
        return 12, today.year + 2
    month, _, year = written.partition("/")
    if re.fullmatch(r"(0?[1-9]|1[0-2])/(\d{2}|\d{4})", written, re.ASCII) is None:
        raise CardRefusedError(
            "Your card's expiration date is incomplete: write it as MM / YY.", "invalid_expiry_month"
        )
    full_year = int(year) + (2000 if len(year) == 2 else 0)
    if (full_year, int(month)) < (today.year, today.month):
        raise CardRefusedError("Your card's expiration date is in the past.", "invalid_expiry_year")
    return int(month), full_year
