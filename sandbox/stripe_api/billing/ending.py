"""How a subscription ends before its time. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sandbox.stripe_api.billing import invoicing, standing
from sandbox.stripe_api.billing.invoicing import Attempt, Made
from sandbox.stripe_api.billing.lines import prorations
from sandbox.stripe_api.billing.payments import Holder
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json, list_of
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.store import Query, every

MOST_OWNED = 1000
End = int | Literal["max_period_end", "min_period_end"]


@dataclass(frozen=True)
class Farewell:
    """How somebody wants a subscription to end.

    Attributes:
        prorate: whether what is left of its periods is given back.
        invoice_now: whether what waits for an invoice is billed at last.
        details: what the customer said about it.
    """

    prorate: bool = False
    invoice_now: bool = False
    details: Mapping[str, str] = field(default_factory=dict)


def moment_of_end(wanted: End | None, subscription: Json, moment: Moment) -> int | None:
    """When a subscription is to end, Unix seconds; None for never.

    Raises:
        ApiError: that is over.
    """
    ends: list[int] = [item["current_period_end"] for item in subscription["items"]["data"]]
    match wanted:
        case "min_period_end":
            return min(ends)
        case "max_period_end":
            return max(ends)
        case int() if wanted <= moment.now:
            raise ApiError("cancel_at must be in the future.", param="cancel_at")
    return wanted


def ending_at(subscription: Json, ends: int | None, moment: Moment, *, at_period_end: bool = False) -> Json:
    """A subscription that will end then, or, with None, that will not."""
    reason = None if ends is None else "cancellation_requested"
    return {
        **subscription,
        "cancel_at": ends,
        "cancel_at_period_end": at_period_end,
        "canceled_at": None if ends is None else moment.now,
        "cancellation_details": {**subscription["cancellation_details"], "reason": reason},
    }


def ended_now(
    decision: Decision, subscription: Json, moment: Moment, farewell: Farewell | None = None
) -> Json:
    """End a subscription that is not over, because somebody asked for it."""
    wanted = farewell or Farewell()
    if subscription["status"] == "incomplete":
        return expired(decision, subscription, moment)
    if wanted.prorate and subscription["status"] != "trialing":
        emptied = {**subscription, "items": list_of([], subscription["items"]["url"])}
        left = prorations(subscription, emptied, decision, moment.now)
        invoicing.bill_later(decision, subscription, left, moment)
    if wanted.invoice_now and invoicing.waiting_items(decision, subscription):
        _bill(decision, subscription, moment)
    current = found(decision, "subscription", subscription["id"])
    said = {"cancellation_details": {**current["cancellation_details"], **wanted.details}}
    at_once = {"cancel_at": None, "cancel_at_period_end": False}
    return standing.end(decision, {**current, **said, **at_once}, moment, "cancellation_requested")


def expired(decision: Decision, subscription: Json, moment: Moment) -> Json:
    """End a subscription whose first payment was not made: its invoice is void."""
    for invoice in standing.invoices_of(subscription, decision):
        if invoice["status"] == "open":
            invoicing.voided(decision, invoice, moment)
    left = found(decision, "subscription", subscription["id"])
    if left["status"] != "incomplete":
        return left
    return standing.change(decision, left, status="incomplete_expired", ended_at=moment.now)


def customer_deleted(decision: Decision, customer: Json, moment: Moment) -> None:
    """Forget a customer: their subscriptions end, their cards are gone."""
    for subscription in every(decision, Query("subscription", label=customer["id"]), MOST_OWNED):
        if subscription["status"] not in standing.OVER:
            ended_now(decision, subscription, moment)
    for method in every(decision, Query("payment_method", label=customer["id"]), MOST_OWNED):
        decision.save({**method, "customer": None})
    last = found(decision, "customer", customer["id"])
    decision.tell("customer.deleted", last)
    decision.save({"id": last["id"], "object": "customer", "_created": last["created"], "deleted": True})


def _bill(decision: Decision, subscription: Json, moment: Moment) -> None:
    invoice = invoicing.draft(decision, subscription, [], Made("subscription_update"), moment)
    invoice = invoicing.finalized(decision, invoice, moment)
    if invoice["status"] == "open":
        invoicing.attempted(decision, invoice, Attempt(Holder.AWAY), moment)
