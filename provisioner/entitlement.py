"""What a subscription entitles its instance to. Pure: no I/O, no clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

GRACE = timedelta(days=7)


class Owed(StrEnum):
    """What becomes of the instance; data is never deleted by any of these."""

    RUN = "run"
    SUSPEND = "suspend"
    NOTHING_YET = "nothing_yet"
    NOTHING = "nothing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """What decides. `status` is Stripe's word; `status_since` when we first saw the subscription in it."""

    status: str
    status_since: datetime


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The decision, its reason for people, and when it must be made again (None: at the next event)."""

    owed: Owed
    reason: str
    again_at: datetime | None = None


_BY_STATUS = {
    "trialing": Entitlement(Owed.RUN, "the trial runs"),
    "active": Entitlement(Owed.RUN, "the subscription is paid"),
    "unpaid": Entitlement(Owed.SUSPEND, "the subscription is unpaid"),
    "paused": Entitlement(Owed.SUSPEND, "the trial ended without a payment method"),
    "canceled": Entitlement(Owed.SUSPEND, "the subscription was cancelled"),
    "incomplete": Entitlement(Owed.NOTHING_YET, "the first payment is not complete"),
    "incomplete_expired": Entitlement(Owed.NOTHING, "the first payment was never completed"),
}


def entitlement(subscription: SubscriptionFacts, now: datetime, grace: timedelta = GRACE) -> Entitlement:
    """Decide what `subscription` entitles to at `now`, for every status Stripe has and any it may get.

    Statuses: https://docs.stripe.com/api/subscriptions/object#subscription_object-status. A subscription that
    is to be cancelled at the period's end stays `active` until then, so it runs until then.
    """
    if subscription.status == "past_due":
        return _past_due(subscription.status_since + grace, now)
    unknown = Entitlement(Owed.UNKNOWN, f"Stripe's status '{subscription.status}' is not known to Berth")
    return _BY_STATUS.get(subscription.status, unknown)


def _past_due(grace_end: datetime, now: datetime) -> Entitlement:
    if now < grace_end:
        return Entitlement(Owed.RUN, f"a payment failed; it runs on until {grace_end:%Y-%m-%d}", grace_end)
    return Entitlement(Owed.SUSPEND, "a payment failed and the grace period is over")
