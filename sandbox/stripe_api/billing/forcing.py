"""For tests: any status at once, with the fields that go with it. Pure."""

from sandbox.stripe_api.billing import standing
from sandbox.stripe_api.billing.changing import begun_anew, with_trial_until
from sandbox.stripe_api.billing.ending import ended_now
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.objects import INCOMPLETE_SECONDS, Json
from sandbox.stripe_api.operation import Change, Moment
from sandbox.stripe_api.store import State
from sandbox.stripe_api.timetable import DAY, period_end_of

SANDBOX_TRIAL_DAYS = 7


def forced(subscription: Json, status: str, state: State, moment: Moment) -> Change:
    """A subscription that has the status now, and the event Stripe would send."""
    moment = in_time_of(subscription, state, moment)
    decision = Decision(state)
    if status == "canceled" and subscription["status"] != "incomplete":
        return decision.change(ended_now(decision, subscription, moment))
    over = status in standing.OVER
    fields = {**subscription, "status": status, "ended_at": moment.now if over else None}
    if subscription["status"] == "canceled":
        fields |= {"canceled_at": None}
    if status == "incomplete":
        fields |= {"_incomplete_until": moment.now + INCOMPLETE_SECONDS}
    if status == "trialing" and (subscription["trial_end"] or 0) <= moment.now:
        fields = with_trial_until(fields, moment.now + SANDBOX_TRIAL_DAYS * DAY, moment)
    elif not over and period_end_of(subscription) <= moment.now:
        fields = begun_anew(fields, state, moment)
    return decision.change(standing.change(decision, subscription, **fields))
