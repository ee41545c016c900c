"""An invoice that is not there yet, as it would be if nothing else happened. Pure."""

from dataclasses import replace

from sandbox.stripe_api.billing import invoicing
from sandbox.stripe_api.billing.passing import renew
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.timetable import period_end_of


def renews_at(subscription: Json) -> int | None:
    """When a subscription is billed next, Unix seconds; None for never."""
    if subscription["status"] not in ("active", "past_due", "trialing", "unpaid"):
        return None
    ends, at = subscription["cancel_at"], period_end_of(subscription)
    return at if ends is None or at < ends else None


def upcoming(decision: Decision, subscription: Json, moment: Moment) -> Json:
    """The draft of a subscription's next invoice.

    Raises:
        ApiError: there will be none.
    """
    at = renews_at(subscription)
    if at is None:
        raise no_upcoming(subscription["customer"])
    renew(decision, subscription, replace(moment, now=at))
    renewed = found(decision, "subscription", subscription["id"])
    return found(decision, "invoice", renewed["latest_invoice"])


def no_upcoming(customer: str) -> ApiError:
    """The answer when nothing will be billed."""
    return ApiError(f"No upcoming invoices for customer: {customer}", "invoice_upcoming_none", status=404)


def previewed(draft: Json) -> Json:
    """A draft as a preview shows it: what will become of it is still open."""
    preview_id = f"upcoming_{draft['id']}"
    lines = draft["lines"]
    due = draft["automatically_finalizes_at"] or draft["created"] + invoicing.DRAFT_SECONDS
    return {
        **draft,
        "id": preview_id,
        "automatically_finalizes_at": None,
        "billing_reason": "upcoming",
        "lines": {
            **lines,
            "data": [{**line, "invoice": preview_id} for line in lines["data"]],
            "url": f"/v1/invoices/{preview_id}/lines",
        },
        "next_payment_attempt": due,
        "webhooks_delivered_at": None,
    }
