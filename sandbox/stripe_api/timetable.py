"""When time will next do something to an object. Pure.

What it does then is in `billing.passing`.
"""

from enum import IntEnum

from sandbox.stripe_api.objects import Json

DAY = 86400
TRIAL_NOTICE_SECONDS = 3 * DAY
"""How long before a trial's end it is announced."""


class Milestone(IntEnum):
    """What time does to a subscription; of several at one moment, the first of these."""

    EXPIRY = 0
    END = 1
    TRIAL_NOTICE = 2
    TRIAL_END = 3
    COLLECTION_RESUMES = 4
    RENEWAL = 5


def next_milestone(subscription: Json) -> tuple[int, Milestone] | None:
    """What time does to a subscription next, and when, in Unix seconds; None when nothing."""
    return min(_milestones(subscription), default=None)


def _milestones(subscription: Json) -> list[tuple[int, Milestone]]:
    status, ends = subscription["status"], subscription["cancel_at"]
    if status == "incomplete":
        return [(subscription["_incomplete_until"], Milestone.EXPIRY)]
    if status in ("canceled", "incomplete_expired"):
        return []
    found = [] if ends is None else [(int(ends), Milestone.END)]
    if status == "paused":
        return found
    if status == "trialing":
        trial_end = subscription["trial_end"]
        if subscription["_noticed_trial_end"] != trial_end:
            found.append((trial_end - TRIAL_NOTICE_SECONDS, Milestone.TRIAL_NOTICE))
        return [*found, (trial_end, Milestone.TRIAL_END)]
    resumes = (subscription["pause_collection"] or {}).get("resumes_at")
    if resumes is not None:
        found.append((resumes, Milestone.COLLECTION_RESUMES))
    return [*found, (period_end_of(subscription), Milestone.RENEWAL)]


def period_end_of(subscription: Json) -> int:
    """When the first of a subscription's items is due again."""
    ends: list[int] = [item["current_period_end"] for item in subscription["items"]["data"]]
    return min(ends)


def due_at(found: Json) -> int | None:
    """When time will do something to an object, Unix seconds; None for never."""
    due: int | None = None
    match found["object"]:
        case "checkout.session":
            due = found["expires_at"] if found["status"] == "open" else None
        case "coupon" if found["valid"]:
            due = found["redeem_by"]
        case "promotion_code" if found["active"]:
            due = found["expires_at"]
        case "subscription":
            milestone = next_milestone(found)
            due = None if milestone is None else milestone[0]
        case "invoice" if found["status"] == "draft":
            due = found["automatically_finalizes_at"]
        case "invoice" if found["status"] == "open":
            due = found["next_payment_attempt"]
    return due


def clock_of(found: Json) -> str | None:
    """The test clock an object lives by; None for the sandbox's own time."""
    clock: str | None = found.get("test_clock")
    return clock
