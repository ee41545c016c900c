"""What the billing portal's pages show. Pure: of a visit and what is stored, the words of a page."""

from datetime import UTC, datetime

from sandbox.stripe_api.billing.standing import OVER
from sandbox.stripe_api.money import amount_text, interval_text
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import found
from sandbox.stripe_api.pages.portal_acts import RefusedError, Visit, editable
from sandbox.stripe_api.resources.portal import cancellations, plans
from sandbox.stripe_api.store import Query, State, every
from sandbox.stripe_api.timetable import period_end_of

MOST_INVOICES = 24
_STATUSES = {
    "active": "Active",
    "canceled": "Canceled",
    "incomplete": "First payment not complete",
    "incomplete_expired": "Never paid",
    "past_due": "Payment failed",
    "paused": "Paused",
    "trialing": "Trial",
    "unpaid": "Unpaid",
}


def home(visit: Visit, _: str, state: State) -> Json:
    """All the customer has."""
    subscriptions = visit.subscriptions(state)
    live = [one for one in subscriptions if one["status"] not in OVER]
    past = [one for one in subscriptions if one["status"] in OVER]
    return {
        "headline": visit.configuration["business_profile"]["headline"],
        "subscriptions": [_subscription(one, visit, state) for one in live],
        "past": [_subscription(one, visit, state) for one in past],
        "card": _default_card(visit, state),
        "can_change_card": visit.offers("payment_method_update"),
        "can_edit": bool(editable(visit)),
        "invoices": _invoices(visit, state),
        "shows_history": visit.offers("invoice_history"),
    }


def _subscription(subscription: Json, visit: Visit, state: State) -> Json:
    items = [_item(item, state) for item in subscription["items"]["data"]]
    ends = subscription["cancel_at"]
    return {
        "id": subscription["id"],
        "title": items[0]["title"],
        "items": items,
        "status": _STATUSES[subscription["status"]],
        "when": _when(subscription),
        "ending": ends is not None,
        "can_cancel": ends is None and bool(cancellations(visit.configuration)),
        "can_resume": ends is not None and visit.offers("subscription_cancel"),
        "can_switch": bool(plans(visit.configuration, subscription, state)),
    }


def _when(subscription: Json) -> str:
    """What happens next, and when."""
    if subscription["ended_at"]:
        return f"Ended on {_day(subscription['ended_at'])}"
    if subscription["cancel_at"]:
        return f"Ends on {_day(subscription['cancel_at'])}, and will not renew"
    match subscription["status"]:
        case "trialing":
            return f"Free until {_day(subscription['trial_end'])}, when the first payment is due"
        case "active":
            return f"Renews on {_day(period_end_of(subscription))}"
        case "past_due" | "unpaid" | "incomplete":
            return "An invoice is to be paid: see below, and check your card"
        case _:
            return f"The present period ends on {_day(period_end_of(subscription))}"


def _item(item: Json, state: State) -> Json:
    price = found(state, "price", item["price"])
    quantity = item["quantity"]
    return {"title": _title(price, state), "quantity": quantity, "amount": _amount(price, quantity)}


def _title(price: Json, state: State) -> str:
    name: str = found(state, "product", price["product"])["name"]
    return name


def _amount(price: Json, quantity: int = 1) -> str:
    recurring = price["recurring"]
    amount = amount_text(price["unit_amount"] * quantity, price["currency"])
    return f"{amount} {interval_text(recurring['interval'], recurring['interval_count'])}"


def _day(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%-d %B %Y}"


def _default_card(visit: Visit, state: State) -> Json | None:
    method = visit.customer["invoice_settings"]["default_payment_method"]
    for subscription in visit.subscriptions(state):
        if subscription["status"] not in OVER:
            method = subscription["default_payment_method"] or method
            break
    if method is None:
        return None
    card: Json = found(state, "payment_method", method)["card"]
    return card


def _invoices(visit: Visit, state: State) -> list[Json]:
    invoices = every(state, Query("invoice", visit.customer["id"]), MOST_INVOICES)
    return [
        {
            "id": one["id"],
            "number": one["number"],
            "day": _day(one["created"]),
            "amount": amount_text(one["total"], one["currency"]),
            "status": one["status"],
            "can_pay": one["status"] == "open",
        }
        for one in invoices
        if one["status"] != "draft"
    ]


def cancel(visit: Visit, about: str, state: State) -> Json:
    """When a subscription may end."""
    subscription = own_subscription(visit, about, state)
    feature = visit.configuration["features"]["subscription_cancel"]
    reasons = feature["cancellation_reason"]
    return {
        "subscription": _subscription(subscription, visit, state),
        "modes": cancellations(visit.configuration),
        "period_end": _day(period_end_of(subscription)),
        "reasons": reasons["options"] if reasons["enabled"] else [],
    }


def switch(visit: Visit, about: str, state: State) -> Json:
    """The plans a subscription may change to, and what each changes of the amount."""
    subscription = own_subscription(visit, about, state)
    (item, *_) = subscription["items"]["data"]
    now = found(state, "price", item["price"])
    offered = [
        {
            "id": price["id"],
            "title": _title(price, state),
            "amount": _amount(price, item["quantity"]),
            "change": _change(now, price, item["quantity"]),
        }
        for price in plans(visit.configuration, subscription, state)
    ]
    return {"subscription": _subscription(subscription, visit, state), "plans": offered}


def _change(now: Json, then: Json, quantity: int) -> str | None:
    """`$70.00 more` in the same interval; None when the intervals cannot be compared."""
    recurring = then["recurring"]
    if now["recurring"] != recurring:
        return None
    more = (then["unit_amount"] - now["unit_amount"]) * quantity
    interval = interval_text(recurring["interval"], recurring["interval_count"])
    return f"{amount_text(abs(more), then['currency'])} {'more' if more >= 0 else 'less'} {interval}"


def own_subscription(visit: Visit, about: str, state: State) -> Json:
    """The customer's subscription of that id.

    Raises:
        RefusedError: there is none.
    """
    for one in visit.subscriptions(state):
        if one["id"] == about:
            return one
    raise RefusedError("There is no such subscription.")


def card(visit: Visit, _: str, state: State) -> Json:
    """The card that is charged now."""
    return {"card": _default_card(visit, state)}


def details(visit: Visit, _: str, __: State) -> Json:
    """What the customer may edit."""
    return {"fields": [(name, visit.customer[name] or "") for name in editable(visit)]}
