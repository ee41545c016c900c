"""What the fate of an invoice does to its subscription. Pure."""

from typing import Literal

from sandbox.stripe_api.billing.dunning import settings_in
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.store import Query, every

MOST_INVOICES = 10_000
OVER = ("canceled", "incomplete_expired")
Reason = Literal["cancellation_requested", "payment_failed"]


def subscription_of(invoice: Json, decision: Decision) -> Json:
    """The subscription an invoice bills."""
    return found(decision, "subscription", invoice["parent"]["subscription_details"]["subscription"])


def invoices_of(subscription: Json, decision: Decision) -> list[Json]:
    """A subscription's invoices."""
    wanted = Query(
        "invoice",
        label=subscription["customer"],
        keep=lambda one: one["parent"]["subscription_details"]["subscription"] == subscription["id"],
    )
    return list(every(decision, wanted, MOST_INVOICES))


def change(decision: Decision, subscription: Json, **fields: object) -> Json:
    """Change a subscription, and tell of it."""
    changed = {**subscription, **fields}
    decision.save(changed)
    decision.tell("customer.subscription.updated", changed, subscription)
    return changed


def invoice_closed(decision: Decision, invoice: Json, moment: Moment) -> None:
    """An invoice is paid, void or given up: its subscription is in good standing again, if that was all."""
    subscription = subscription_of(invoice, decision)
    match subscription["status"]:
        case "incomplete" if invoice["status"] == "void":
            change(decision, subscription, status="incomplete_expired", ended_at=moment.now)
        case "incomplete" if invoice["status"] == "paid":
            change(decision, subscription, status="active")
        case "past_due" | "unpaid" if _is_latest(invoice, subscription, decision):
            change(decision, subscription, status="active")
        case "paused" if subscription["_resumption"] == invoice["id"] and invoice["status"] != "void":
            resumed = change(decision, subscription, status="active", _resumption=None)
            decision.tell("customer.subscription.resumed", resumed)


def _is_latest(invoice: Json, subscription: Json, decision: Decision) -> bool:
    """Whether an invoice is the last that was to be paid, which is what past_due and unpaid are about."""
    finalized = [one for one in invoices_of(subscription, decision) if one["status"] != "draft"]
    latest = max(finalized, key=lambda one: (one["created"], one["status_transitions"]["finalized_at"]))
    return bool(latest["id"] == invoice["id"])


def payment_failed(decision: Decision, invoice: Json, moment: Moment) -> None:
    """An invoice could not be collected: its subscription is past due, and more when no retry is left."""
    subscription = subscription_of(invoice, decision)
    if subscription["status"] == "active":
        subscription = change(decision, subscription, status="past_due")
    if subscription["status"] != "past_due" or invoice["next_payment_attempt"] is not None:
        return
    match settings_in(decision).after_retries:
        case "cancel":
            end(decision, subscription, moment, "payment_failed")
        case "unpaid":
            change(decision, subscription, status="unpaid")
        case "past_due":
            pass


def end(decision: Decision, subscription: Json, moment: Moment, reason: Reason, **fields: object) -> Json:
    """End a subscription now; what is still owed is no longer collected by itself."""
    ended = {
        **subscription,
        "status": "canceled",
        "canceled_at": subscription["canceled_at"] or moment.now,
        "cancellation_details": {**subscription["cancellation_details"], "reason": reason},
        "ended_at": moment.now,
        **fields,
    }
    decision.save(ended)
    decision.tell("customer.subscription.deleted", ended)
    for invoice in invoices_of(subscription, decision):
        if invoice["status"] in ("draft", "open") and invoice["auto_advance"]:
            left = {
                **invoice,
                "auto_advance": False,
                "automatically_finalizes_at": None,
                "next_payment_attempt": None,
            }
            decision.save(left)
            decision.tell("invoice.updated", left, invoice)
    return ended
