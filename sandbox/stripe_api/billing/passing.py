"""What the passing of time does, one step at a time. Pure; `timetable` says when."""

from sandbox.stripe_api.billing import invoicing, purchase, standing
from sandbox.stripe_api.billing.ending import expired
from sandbox.stripe_api.billing.invoicing import DRAFT_SECONDS, Attempt, Made
from sandbox.stripe_api.billing.lines import next_period, recurring_line
from sandbox.stripe_api.billing.payments import Holder
from sandbox.stripe_api.billing.subscribing import notice_trial_end
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Change, Draft, Moment, found
from sandbox.stripe_api.store import State
from sandbox.stripe_api.timetable import Milestone, next_milestone


def passed(due: Json, state: State, moment: Moment) -> Change:
    """What happens to an object at the moment `timetable.due_at` names for it."""
    decision = Decision(state)
    match due["object"]:
        case "checkout.session":
            return purchase.expired(due, state)
        case "coupon":
            decision.save({**due, "valid": False})
        case "promotion_code":
            decision.save({**due, "active": False})
        case "invoice":
            _pass_invoice(decision, due, moment)
        case _:
            _pass_subscription(decision, due, moment)
    return decision.change(found(decision, due["object"], due["id"]))


def arrived(clock: Json) -> Change:
    """A test clock that advanced: all that was due has happened."""
    target = clock["status_details"]["advancing"]["target_frozen_time"]
    ready = {**clock, "frozen_time": target, "status": "ready", "status_details": {}}
    return Change(ready, (ready,), (Draft("test_helpers.test_clock.ready", ready),))


def _pass_subscription(decision: Decision, subscription: Json, moment: Moment) -> None:
    milestone = next_milestone(subscription)
    match milestone and milestone[1]:
        case Milestone.EXPIRY:
            expired(decision, subscription, moment)
        case Milestone.END:
            standing.end(decision, subscription, moment, "cancellation_requested")
        case Milestone.TRIAL_NOTICE:
            notice_trial_end(decision, subscription, moment)
        case Milestone.TRIAL_END:
            _end_trial(decision, subscription, moment)
        case Milestone.COLLECTION_RESUMES:
            standing.change(decision, subscription, pause_collection=None)
        case Milestone.RENEWAL:
            renew(decision, subscription, moment)


def _end_trial(decision: Decision, subscription: Json, moment: Moment) -> None:
    behavior = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if behavior == "create_invoice" or invoicing.method_for(decision, subscription) is not None:
        renew(decision, subscription, moment)
    elif behavior == "cancel":
        standing.end(decision, subscription, moment, "cancellation_requested")
    else:
        paused = standing.change(decision, subscription, status="paused")
        decision.tell("customer.subscription.paused", paused)


def renew(decision: Decision, subscription: Json, moment: Moment) -> None:
    """Begin the next period of the items whose present one is over, and bill it."""
    old = subscription["items"]["data"]
    items = [
        next_period(item, decision) if item["current_period_end"] <= moment.now else item for item in old
    ]
    begun = [item for item, former in zip(items, old, strict=True) if item is not former]
    status = "active" if subscription["status"] == "trialing" else subscription["status"]
    renewed = {**subscription, "items": {**subscription["items"], "data": items}, "status": status}
    lines = [recurring_line(item, decision) for item in begun]
    left_alone = status == "unpaid" or _collection(renewed) == "keep_as_draft"
    finalizes_at = None if left_alone else moment.now + DRAFT_SECONDS
    invoicing.draft(decision, renewed, lines, Made("subscription_cycle", finalizes_at), moment)
    decision.tell(
        "customer.subscription.updated", found(decision, "subscription", subscription["id"]), subscription
    )


def _collection(subscription: Json) -> str | None:
    """What happens to invoices instead of being collected."""
    behavior: str | None = (subscription["pause_collection"] or {}).get("behavior")
    return behavior


def _pass_invoice(decision: Decision, invoice: Json, moment: Moment) -> None:
    if invoice["status"] == "draft":
        invoice = invoicing.finalized(decision, invoice, moment)
    if invoice["status"] != "open":
        return
    match _collection(standing.subscription_of(invoice, decision)):
        case "void":
            invoicing.voided(decision, invoice, moment)
        case "mark_uncollectible":
            invoicing.given_up(decision, invoice, moment)
        case _:
            invoicing.attempted(decision, invoice, Attempt(Holder.AWAY, scheduled=True), moment)
