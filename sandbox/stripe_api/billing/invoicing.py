"""An invoice's way from draft to paid, void or given up. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing import payments, standing
from sandbox.stripe_api.billing.discounts import Cut, Position, cuts, lasting
from sandbox.stripe_api.billing.dunning import settings_in
from sandbox.stripe_api.billing.lines import discounts_of
from sandbox.stripe_api.billing.payments import Collected, Due, Holder
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Bill, BillingReason, BillLine, Json, Period, list_of
from sandbox.stripe_api.operation import Moment, found
from sandbox.stripe_api.store import Query, every

DRAFT_SECONDS = 3600
"""How long an invoice that time made can still be changed before it is collected."""
MOST_WAITING = 1000


@dataclass(frozen=True)
class Attempt:
    """How an invoice is tried.

    Attributes:
        holder: where the card's holder is.
        scheduled: whether the retry schedule asks for it, and counts it, rather than a person.
        method: the card to try; None for the one its subscription or customer has.
    """

    holder: Holder
    scheduled: bool = False
    method: Json | None = None


@dataclass(frozen=True)
class Made:
    """How an invoice comes to be.

    Attributes:
        finalizes_at: when time finalizes it, Unix seconds.
    """

    reason: BillingReason
    finalizes_at: int | None = None

    @property
    def is_left_alone(self) -> bool:
        """Whether it stays a draft until somebody acts."""
        return self.reason == "subscription_cycle" and self.finalizes_at is None


def draft(
    decision: Decision, subscription: Json, lines: Sequence[BillLine], made: Made, moment: Moment
) -> Json:
    """Make a draft of these lines and of what waited for it; it becomes its subscription's latest invoice."""
    customer = found(decision, "customer", subscription["customer"])
    waiting = waiting_items(decision, subscription)
    all_lines = [*map(objects.waiting_line, waiting), *lines]
    since = min((line.period.start for line in all_lines), default=moment.now)
    bill = Bill(customer, subscription, made.reason, Period(min(since, moment.now), moment.now))
    invoice_id = moment.new_id("in")
    billed = [objects.invoice_line(moment.new_id("il"), invoice_id, line, subscription) for line in all_lines]
    drawn = objects.invoice(invoice_id, moment.now, bill, billed)
    discounts = discounts_of(subscription, decision)
    taken = cuts(discounts, [_position(line) for line in billed], decision, moment.now)
    drawn = _due({**_discounted(drawn, taken), "starting_balance": customer["balance"]})
    drawn |= {"auto_advance": not made.is_left_alone, "automatically_finalizes_at": made.finalizes_at}
    decision.save(drawn, *({**item, "invoice": invoice_id} for item in waiting))
    used = any(cut.total for cut in taken)
    remaining = lasting(discounts, decision, moment.now) if used else discounts
    left = [one["id"] for one in remaining]
    decision.save({**subscription, "discounts": left, "latest_invoice": invoice_id})
    decision.tell("invoice.created", drawn)
    return drawn


def bill_later(decision: Decision, subscription: Json, lines: Sequence[BillLine], moment: Moment) -> None:
    """Let lines wait for a subscription's next invoice."""
    for line in lines:
        item = objects.invoice_item(moment.new_id("ii"), moment.now, line, subscription)
        decision.save(item)
        decision.tell("invoiceitem.created", item)


def waiting_items(decision: Decision, subscription: Json) -> list[Json]:
    """The prorations that wait for a subscription's next invoice, oldest first."""
    wanted = Query(
        "invoiceitem",
        label=subscription["customer"],
        keep=lambda one: (
            one["invoice"] is None
            and one["parent"]["subscription_details"]["subscription"] == subscription["id"]
        ),
    )
    return list(every(decision, wanted, MOST_WAITING))[::-1]


def _position(line: Json) -> Position:
    """What of a line a discount may take a part of; prorations already are after discounts."""
    product: str = line["pricing"]["price_details"]["product"]
    return Position(product, line["amount"] if line["discountable"] else 0)


def _discounted(invoice: Json, made: Sequence[Cut]) -> Json:
    lines = [
        {**line, "discount_amounts": [_cut(one.discount, one.amounts[position]) for one in made]}
        for position, line in enumerate(invoice["lines"]["data"])
    ]
    subtotal = sum(line["amount"] for line in lines)
    total = subtotal - sum(one.total for one in made)
    return {
        **invoice,
        "discounts": [one.discount for one in made],
        "lines": list_of(lines, invoice["lines"]["url"]),
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": total,
        "total_discount_amounts": [_cut(one.discount, one.total) for one in made],
        "total_excluding_tax": total,
    }


def _cut(discount: str, amount: int) -> Json:
    return {"amount": amount, "discount": discount}


def _due(invoice: Json) -> Json:
    """What is to be paid of an invoice, once the customer's credit is used."""
    due = max(invoice["total"] + min(invoice["starting_balance"], 0), 0)
    return {**invoice, "amount_due": due, "amount_remaining": due}


def finalized(decision: Decision, invoice: Json, moment: Moment) -> Json:
    """Fix a draft; one that asks for nothing is paid thereby."""
    customer = found(decision, "customer", invoice["customer"])
    opened = _due({**invoice, "starting_balance": customer["balance"]})
    opened |= {
        "automatically_finalizes_at": None,
        "effective_at": moment.now,
        "ending_balance": _balance_after(opened),
        "hosted_invoice_url": f"{moment.base_url}/invoice/{invoice['id']}",
        "number": f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}",
        "status": "open",
        "status_transitions": {**invoice["status_transitions"], "finalized_at": moment.now},
    }
    owner = {
        **customer,
        "balance": opened["ending_balance"],
        "currency": invoice["currency"],
        "next_invoice_sequence": customer["next_invoice_sequence"] + 1,
    }
    decision.save(opened, owner)
    decision.tell("invoice.finalized", opened)
    if owner["balance"] != customer["balance"]:
        decision.tell("customer.updated", owner, customer)
    if opened["amount_due"] == 0:
        return settled(decision, opened, moment)
    _ask_for_payment(decision, opened, moment)
    return opened


def _balance_after(invoice: Json) -> int:
    """The customer's balance, less than zero for a credit, once it paid its part of an invoice."""
    total, before = invoice["total"], invoice["starting_balance"]
    paid_by_credit = total - invoice["amount_due"]
    balance: int = before + paid_by_credit
    return balance


def _ask_for_payment(decision: Decision, invoice: Json, moment: Moment) -> None:
    """Make the payment intent that is to pay an invoice."""
    due = Due(
        customer=found(decision, "customer", invoice["customer"]),
        amount=invoice["amount_due"],
        currency=invoice["currency"],
        description="Subscription creation" if _is_first(invoice) else "Subscription update",
        invoice=invoice["id"],
    )
    intent = payments.intent_for(due, moment)
    payment = objects.invoice_payment(moment.new_id("inpay"), moment.now, invoice, intent["id"])
    decision.save(intent, payment)
    decision.tell("payment_intent.created", intent)


def _is_first(invoice: Json) -> bool:
    return bool(invoice["billing_reason"] == "subscription_create")


def open_payment(invoice: Json, decision: Decision) -> Json | None:
    """The invoice payment that is to pay an invoice."""
    wanted = Query("invoice_payment", label=invoice["id"], keep=lambda one: bool(one["status"] == "open"))
    return next(iter(every(decision, wanted, 1)), None)


def method_for(decision: Decision, subscription: Json) -> Json | None:
    """The card a subscription is paid with: its own, else its customer's default."""
    customer = found(decision, "customer", subscription["customer"])
    named = (subscription["default_payment_method"], customer["invoice_settings"]["default_payment_method"])
    methods = (decision.find(one) for one in named if one is not None)
    return next((one for one in methods if one is not None and one["customer"] == customer["id"]), None)


def attempted(decision: Decision, invoice: Json, attempt: Attempt, moment: Moment) -> Collected:
    """Try to collect an open invoice once."""
    subscription = standing.subscription_of(invoice, decision)
    payment = open_payment(invoice, decision)
    if payment is None:
        raise ApiError(f"{invoice['id']} has no payment", status=500, type="api_error")
    intent = found(decision, "payment_intent", payment["payment"]["payment_intent"])
    method = attempt.method or method_for(decision, subscription)
    collected = payments.attempt(intent, method, attempt.holder, moment)
    decision.take(collected)
    if collected.outcome == "paid":
        intent_paid(decision, collected.intent, moment, scheduled=attempt.scheduled)
    else:
        _failed(decision, invoice, collected, attempt, moment)
    return collected


def _failed(
    decision: Decision, invoice: Json, collected: Collected, attempt: Attempt, moment: Moment
) -> None:
    counted = attempt.scheduled or invoice["attempt_count"] == 0
    failed = {**invoice, "attempted": True, "attempt_count": invoice["attempt_count"] + counted}
    if counted and _is_retried(invoice, decision):
        failed["next_payment_attempt"] = settings_in(decision).next_attempt(
            failed["attempt_count"], moment.now
        )
    decision.save(failed)
    decision.tell("invoice.updated", failed, invoice)
    decision.tell("invoice.payment_failed", failed)
    if collected.outcome == "requires_action":
        decision.tell("invoice.payment_action_required", failed)
    if _is_retried(invoice, decision):
        standing.payment_failed(decision, failed, moment)


def _is_retried(invoice: Json, decision: Decision) -> bool:
    """Whether an invoice is tried again by itself: not the first one, nor one nobody collects any more."""
    subscription = standing.subscription_of(invoice, decision)
    return bool(invoice["auto_advance"]) and subscription["status"] in ("active", "past_due", "trialing")


def intent_paid(decision: Decision, intent: Json, moment: Moment, *, scheduled: bool = False) -> None:
    """A payment intent succeeded: the invoice it is for, if any, is paid, and its subscription revived."""
    invoice = None if intent["_invoice"] is None else decision.find(intent["_invoice"])
    if invoice is None or invoice["status"] not in ("open", "uncollectible"):
        return
    subscription = standing.subscription_of(invoice, decision)
    if subscription["payment_settings"]["save_default_payment_method"] == "on_subscription":
        decision.save({**subscription, "default_payment_method": intent["payment_method"]})
    counted = scheduled or invoice["attempt_count"] == 0
    settled(decision, {**invoice, "attempt_count": invoice["attempt_count"] + counted}, moment)


def intent_failed(decision: Decision, collected: Collected, moment: Moment) -> None:
    """A payment intent was tried outside of its invoice's schedule, and did not succeed."""
    named = collected.intent["_invoice"]
    invoice = None if named is None else decision.find(named)
    if invoice is not None and invoice["status"] == "open":
        _failed(decision, invoice, collected, Attempt(Holder.PRESENT), moment)


def settled(decision: Decision, invoice: Json, moment: Moment, *, out_of_band: bool = False) -> Json:
    """An invoice is paid: by its payment intent, by credit, or by means Stripe does not see."""
    due = 0 if out_of_band else invoice["amount_due"]
    paid = {
        **invoice,
        "amount_paid": invoice["amount_due"],
        "amount_paid_off_stripe": invoice["amount_due"] - due,
        "amount_remaining": 0,
        "attempted": True,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "paid",
        "status_transitions": {**invoice["status_transitions"], "paid_at": moment.now},
    }
    decision.save(paid)
    if out_of_band:
        _stop_payment(decision, invoice, moment)
    else:
        _payment_made(decision, invoice, moment)
    decision.tell("invoice.paid", paid)
    decision.tell("invoice.payment_succeeded", paid)
    standing.invoice_closed(decision, paid, moment)
    return paid


def _payment_made(decision: Decision, invoice: Json, moment: Moment) -> None:
    payment = open_payment(invoice, decision)
    if payment is None:
        return
    made = {
        **payment,
        "amount_paid": payment["amount_requested"],
        "status": "paid",
        "status_transitions": {**payment["status_transitions"], "paid_at": moment.now},
    }
    decision.save(made)
    decision.tell("invoice_payment.paid", made)


def _stop_payment(decision: Decision, invoice: Json, moment: Moment) -> None:
    """The payment intent of an invoice is no longer wanted."""
    payment = open_payment(invoice, decision)
    if payment is None:
        return
    times = {**payment["status_transitions"], "canceled_at": moment.now}
    decision.save({**payment, "status": "canceled", "status_transitions": times})
    intent = found(decision, "payment_intent", payment["payment"]["payment_intent"])
    canceled = {
        **intent,
        "canceled_at": moment.now,
        "cancellation_reason": "void_invoice",
        "next_action": None,
        "status": "canceled",
    }
    decision.save(canceled)
    decision.tell("payment_intent.canceled", canceled)


def voided(decision: Decision, invoice: Json, moment: Moment) -> Json:
    """Nobody owes this invoice."""
    void = {
        **invoice,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "void",
        "status_transitions": {**invoice["status_transitions"], "voided_at": moment.now},
    }
    decision.save(void)
    _stop_payment(decision, invoice, moment)
    decision.tell("invoice.voided", void)
    standing.invoice_closed(decision, void, moment)
    return void


def given_up(decision: Decision, invoice: Json, moment: Moment) -> Json:
    """Nobody will pay this invoice, though it is owed."""
    times = {**invoice["status_transitions"], "marked_uncollectible_at": moment.now}
    written_off = {
        **invoice,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "uncollectible",
        "status_transitions": times,
    }
    decision.save(written_off)
    decision.tell("invoice.marked_uncollectible", written_off)
    standing.invoice_closed(decision, written_off, moment)
    return written_off
