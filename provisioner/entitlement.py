"""What a subscription entitles its instance to. Pure: no I/O, no clock."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol


class Owed(StrEnum):
    """What becomes of the instance. Only DELETE ever costs data."""

    RUN = "run"
    SUSPEND = "suspend"
    DELETE = "delete"
    NOTHING_YET = "nothing_yet"
    NOTHING = "nothing"
    UNKNOWN = "unknown"


class Terms(Protocol):
    """What a plan promises, in days; `catalogue.schema.Plan` does."""

    @property
    def grace_days(self) -> int:
        """How long it runs on after a payment failed."""
        ...

    @property
    def retention_days(self) -> int:
        """How long its data is kept after the end."""
        ...


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """What decides; all but the review is Stripe's word.

    Attributes:
        status: https://docs.stripe.com/api/subscriptions/object#subscription_object-status.
        past_due_since: since when bills go unpaid, if it is past due.
        ended_at: when it ended, if it did.
        under_review: whether a person must look first, for a dispute or a refund; nothing is deleted before.
    """

    status: str
    past_due_since: datetime | None = None
    ended_at: datetime | None = None
    under_review: bool = False


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The decision.

    Attributes:
        owed: what becomes of the instance.
        reason: why, for people.
        again_at: when time alone changes the answer; None: only an event does.
        delete_at: when the data's retention ends; None: it has not begun to count.
    """

    owed: Owed
    reason: str
    again_at: datetime | None = None
    delete_at: datetime | None = None


_BY_STATUS = {
    "trialing": Entitlement(Owed.RUN, "the trial runs"),
    "active": Entitlement(Owed.RUN, "the subscription is active"),
    "unpaid": Entitlement(Owed.SUSPEND, "the subscription is unpaid"),
    "paused": Entitlement(Owed.SUSPEND, "the subscription is paused"),
    "incomplete": Entitlement(Owed.NOTHING_YET, "the first payment is not complete"),
    "incomplete_expired": Entitlement(Owed.NOTHING, "the first payment was never completed"),
}


def entitlement(subscription: SubscriptionFacts, plan: Terms, now: datetime) -> Entitlement:
    """Decide what `subscription` entitles to at `now`, for every status Stripe has and any it may get.

    A subscription that is to be cancelled at the period's end stays `active`, and runs, until then.
    """
    match subscription.status:
        case "past_due":
            return _past_due(subscription, plan, now)
        case "canceled":
            return _canceled(subscription, plan, now)
        case status:
            unknown = Entitlement(Owed.UNKNOWN, f"Stripe's status '{status}' is not known to Berth")
            return _BY_STATUS.get(status, unknown)


def entitlement_without_plan(status: str) -> Entitlement:
    """Decide what a status alone entitles to, where a plan's terms are not known: it never costs data."""
    if status == "canceled":
        return Entitlement(Owed.SUSPEND, "the subscription ended")
    return _BY_STATUS.get(status, Entitlement(Owed.UNKNOWN, f"what '{status}' entitles to depends on a plan"))


def _past_due(subscription: SubscriptionFacts, plan: Terms, now: datetime) -> Entitlement:
    if subscription.past_due_since is None:
        return Entitlement(Owed.RUN, "a payment failed")
    grace_end = subscription.past_due_since + timedelta(days=plan.grace_days)
    if now < grace_end:
        return Entitlement(Owed.RUN, f"a payment failed; it runs on until {date(grace_end)}", grace_end)
    return Entitlement(Owed.SUSPEND, "a payment failed and the grace period is over")


def _canceled(subscription: SubscriptionFacts, plan: Terms, now: datetime) -> Entitlement:
    if subscription.under_review:
        return Entitlement(Owed.SUSPEND, "the subscription ended and is under review")
    if subscription.ended_at is None:
        return Entitlement(Owed.SUSPEND, "the subscription ended")
    delete_at = subscription.ended_at + timedelta(days=plan.retention_days)
    if now < delete_at:
        return Entitlement(Owed.SUSPEND, "the subscription ended", delete_at, delete_at)
    over = (
        f"the subscription ended on {date(subscription.ended_at)}; its data was kept until {date(delete_at)}"
    )
    return Entitlement(Owed.DELETE, over, delete_at=delete_at)


def date(moment: datetime) -> str:
    """A day for people, such as `21 November 2026`, in UTC."""
    return f"{moment.astimezone(UTC):%-d %B %Y}"
