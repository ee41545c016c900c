"""How a subscription begins. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing import invoicing, standing
from sandbox.stripe_api.billing.discounts import Redemption, counted, redeemed
from sandbox.stripe_api.billing.ending import End, ending_at, moment_of_end
from sandbox.stripe_api.billing.invoicing import Attempt, Made
from sandbox.stripe_api.billing.lines import one_time_line, recurring_line
from sandbox.stripe_api.billing.payments import Collected, Holder
from sandbox.stripe_api.billing.periods import period_end
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json, Period
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.timetable import TRIAL_NOTICE_SECONDS, period_end_of

PaymentBehavior = Literal["allow_incomplete", "default_incomplete", "error_if_incomplete"]
MissingPaymentMethod = Literal["cancel", "create_invoice", "pause"]


@dataclass(frozen=True)
class NewItem:
    """A price and how many of it."""

    price: Json
    quantity: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NewSubscription:
    """What is bought, by whom, paid how.

    Attributes:
        payment_method: the id of its own card; None to pay with the customer's default.
        one_time: what is bought along with it, and billed once, now.
        trial_end: until when it is free, Unix seconds.
        cancel_at: when it is to end; None for never.
        cancel_at_period_end: whether it is to end with its first period.
        more: other fields of the subscription, as they will be.
    """

    customer: Json
    items: Sequence[NewItem]
    payment_method: str | None = None
    one_time: Sequence[NewItem] = ()
    trial_end: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    redemptions: Sequence[Redemption] = ()
    behavior: PaymentBehavior = "allow_incomplete"
    holder: Holder = Holder.PRESENT
    cancel_at: End | None = None
    cancel_at_period_end: bool = False
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Sold:
    """A new subscription and its first invoice, as they are once the payment was tried."""

    subscription: Json
    invoice: Json


def subscribe(decision: Decision, wanted: NewSubscription, moment: Moment) -> Sold:
    """Begin a subscription: trialing when it has a trial, else active once its first invoice is paid.

    Raises:
        ApiError: there is no card to charge, or it declined where that is an error; decide nothing then.
    """
    moment = in_time_of(wanted.customer, decision, moment)
    invoice = first_invoice(decision, wanted, moment)
    subscription = standing.subscription_of(invoice, decision)
    invoice = invoicing.finalized(decision, invoice, moment)
    if invoice["status"] == "open":
        collect(decision, invoice, wanted.behavior, Attempt(wanted.holder), moment)
    return Sold(
        found(decision, "subscription", subscription["id"]), found(decision, "invoice", invoice["id"])
    )


def first_invoice(decision: Decision, wanted: NewSubscription, moment: Moment) -> Json:
    """Begin a subscription in its customer's time; returns the draft of what is due at once."""
    subscription = _new(decision, wanted, moment)
    decision.save(subscription)
    decision.tell("customer.subscription.created", subscription)
    notice_trial_end(decision, subscription, moment)
    trial = wanted.trial_end is not None
    lines = [recurring_line(item, decision, trial=trial) for item in subscription["items"]["data"]]
    current = found(decision, "subscription", subscription["id"])
    once = [one_time_line(item.price, item.quantity, decision, moment.now) for item in wanted.one_time]
    invoicing.bill_later(decision, current, once, moment)
    return invoicing.draft(decision, current, lines, Made("subscription_create"), moment)


def collect(
    decision: Decision, invoice: Json, behavior: PaymentBehavior, attempt: Attempt, moment: Moment
) -> Collected | None:
    """Try to collect an invoice as the caller of the API wants it; None when they do not.

    Raises:
        ApiError: there is no card to charge, or it declined and the caller wants to hear of that.
    """
    if behavior == "default_incomplete":
        return None
    subscription = standing.subscription_of(invoice, decision)
    if (attempt.method or invoicing.method_for(decision, subscription)) is None:
        raise ApiError(
            "This customer has no attached payment source or default payment method. Please consider adding"
            " a default payment method.",
            "resource_missing",
        )
    collected = invoicing.attempted(decision, invoice, attempt, moment)
    if behavior == "error_if_incomplete" and collected.outcome != "paid":
        raise unpaid(collected)
    return collected


def unpaid(collected: Collected) -> ApiError:
    """The answer to a caller who wanted the money now."""
    return collected.error or ApiError(
        "Payment for this subscription requires additional user action before it can be completed"
        " successfully.",
        "subscription_payment_intent_requires_action",
        status=402,
        type="card_error",
        details={"payment_intent": objects.public(collected.intent)},
    )


def _new(decision: Decision, wanted: NewSubscription, moment: Moment) -> Json:
    subscription_id = moment.new_id("sub")
    owner = {"customer": wanted.customer["id"], "subscription": subscription_id}
    discounts = redeemed(wanted.redemptions, owner, moment)
    decision.save(*discounts, *counted(wanted.redemptions))
    given = {
        "customer": wanted.customer["id"],
        "currency": wanted.items[0].price["currency"],
        "items": [new_item(subscription_id, item, wanted.trial_end, moment) for item in wanted.items],
        "status": "incomplete" if wanted.trial_end is None else "trialing",
        "trial_end": wanted.trial_end,
        "default_payment_method": wanted.payment_method,
        "metadata": dict(wanted.metadata),
    }
    made = {
        **objects.subscription(subscription_id, moment.now, given),
        "discounts": [one["id"] for one in discounts],
        "test_clock": wanted.customer["test_clock"],
        **wanted.more,
    }
    if wanted.cancel_at_period_end:
        return ending_at(made, period_end_of(made), moment, at_period_end=True)
    if wanted.cancel_at is not None:
        return ending_at(made, moment_of_end(wanted.cancel_at, made, moment), moment)
    return made


def new_item(subscription_id: str, item: NewItem, trial_end: int | None, moment: Moment) -> Json:
    """An item whose first period begins now."""
    recurring = item.price["recurring"]
    end = trial_end or period_end(moment.now, recurring["interval"], recurring["interval_count"])
    given = {
        "anchor": trial_end or moment.now,
        "subscription": subscription_id,
        "price": item.price["id"],
        "quantity": item.quantity,
        "metadata": dict(item.metadata),
    }
    period = Period(moment.now, end)
    return objects.subscription_item(moment.new_id("si"), moment.now, given, period)


def notice_trial_end(decision: Decision, subscription: Json, moment: Moment) -> None:
    """Tell that a trial will end, once, when that is three days away or less."""
    trial_end = subscription["trial_end"]
    if subscription["status"] != "trialing" or subscription["_noticed_trial_end"] == trial_end:
        return
    if trial_end - TRIAL_NOTICE_SECONDS <= moment.now:
        decision.save({**subscription, "_noticed_trial_end": trial_end})
        decision.tell("customer.subscription.trial_will_end", subscription)
