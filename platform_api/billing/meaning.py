"""What a subscription's status means for its customer, in a sentence. Pure."""

from collections.abc import Callable, Mapping
from datetime import datetime

from platform_api.billing.queries import Subscription


def meaning(held: Subscription, suspended_on: datetime | None) -> str:
    """Say what `held` means; `suspended_on` is when a payment that failed suspends the instance, if known."""
    if held.source == "free" and held.status == "active":
        return "It is free and runs until you end it."
    if held.status == "past_due" and held.phase == "suspended":
        return _BY_STATUS["unpaid"](held)
    if held.status == "past_due":
        when = f" on {_day(suspended_on)}" if suspended_on else ""
        return f"The last payment failed: pay in the billing portal, or the instance is suspended{when}."
    if held.status in _BY_STATUS:
        return _BY_STATUS[held.status](held)
    return f"Stripe calls it '{held.status}', which we do not know yet: nothing changes meanwhile."


def _until(beginning: str, held: Subscription, end: datetime | None) -> str:
    if end is None:
        return f"{beginning}."
    after = "ends" if held.cancel_at_period_end else "is renewed"
    return f"{beginning} until {_day(end)} and then {after}."


def _canceled(held: Subscription) -> str:
    if held.phase in {None, "deleting", "deleted"}:
        return "It has ended: subscribe again to begin anew."
    kept = f", and its data kept until {_day(held.delete_at)}" if held.delete_at else ""
    return f"It has ended and its instance is suspended{kept}: subscribe again to get it back."


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


_BY_STATUS: Mapping[str, Callable[[Subscription], str]] = {
    "trialing": lambda held: _until("The trial runs", held, held.trial_end or held.current_period_end),
    "active": lambda held: _until("It is paid for", held, held.current_period_end),
    "unpaid": lambda _: (
        "Payments failed and the instance is suspended: pay in the billing portal and it comes back."
    ),
    "paused": lambda _: (
        "It is paused and its instance suspended: add a way to pay in the billing portal and ask us to go on."
    ),
    "canceled": _canceled,
    "incomplete": lambda _: "The first payment is not complete: confirm it with your bank, or start again.",
    "incomplete_expired": lambda _: "The first payment was never completed, so nothing was bought.",
}
