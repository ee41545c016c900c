"""What a checkout session sells, what of it is due now, and what comes of paying it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing import payments
from sandbox.stripe_api.billing.discounts import (
    DiscountChoice,
    Order,
    Position,
    Redemption,
    counted,
    each_off,
    position,
    redemptions,
    typed_code,
)
from sandbox.stripe_api.billing.payments import Holder
from sandbox.stripe_api.billing.subscribing import NewItem, NewSubscription, subscribe
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Change, Moment, found
from sandbox.stripe_api.store import State
from sandbox.stripe_api.timetable import DAY


@dataclass(frozen=True)
class Buyer:
    """Who pays, as typed on the page; ignored when the session already knows its customer."""

    email: str | None
    name: str | None


def trial_end(session: Json, now: int) -> int | None:
    """When the trial of what is bought now will end, Unix seconds; None without one."""
    terms = session["_subscription_data"]
    if terms["trial_end"] is not None:
        return int(terms["trial_end"])
    days = terms["trial_period_days"]
    return None if days is None else now + int(days) * DAY


def order_of(session: Json, state: State) -> Order:
    """What coupons are redeemed for: everything sold, whether it is due now or after a trial."""
    return Order(session["customer"], session["currency"], _sold(session, state))


def _sold(session: Json, state: State) -> list[Position]:
    return [
        position(found(state, "price", item["price"]), item["quantity"]) for item in session["line_items"]
    ]


def priced(session: Json, given: Sequence[Redemption], state: State) -> Json:
    """The session with these coupons, and its amounts: what recurs costs nothing now if it has a trial."""
    free = trial_end(session, 0) is not None
    items = session["line_items"]
    sold = [
        one._replace(amount=0) if free and found(state, "price", item["price"])["recurring"] else one
        for item, one in zip(items, _sold(session, state), strict=True)
    ]
    due = [one.amount for one in sold]
    left = due
    for off in each_off([one.coupon for one in given], sold):
        left = [amount - taken for amount, taken in zip(left, off, strict=True)]
    return {
        **session,
        "amount_subtotal": sum(due),
        "amount_total": sum(left),
        "discounts": [_named(one) for one in given],
        "line_items": [
            {**item, "amount_discount": whole - rest, "amount_subtotal": whole, "amount_total": rest}
            for item, whole, rest in zip(items, due, left, strict=True)
        ],
        "total_details": {"amount_discount": sum(due) - sum(left), "amount_shipping": 0, "amount_tax": 0},
    }


def _named(given: Redemption) -> Json:
    if given.promotion_code is not None:
        return {"coupon": None, "promotion_code": given.promotion_code["id"]}
    return {"coupon": given.coupon["id"], "promotion_code": None}


def coupons_of(session: Json, state: State, now: int) -> tuple[Redemption, ...]:
    """The coupons a session is to redeem.

    Raises:
        ApiError: one of them can no longer be redeemed.
    """
    choices = [DiscountChoice.model_validate(one) for one in session["discounts"]]
    return redemptions(choices, order_of(session, state), state, now)


def with_code(session: Json, code: str, state: State, now: int) -> Json:
    """The session with the coupon of a code that a person typed, instead of any other.

    Raises:
        ApiError: the sentence for the person.
    """
    given = typed_code(code, order_of(session, state), state, now)
    return priced(session, (given,), state)


def needs_card(session: Json) -> bool:
    """Whether the buyer has to give a card though nothing may be due now."""
    if session["amount_total"] > 0:
        return True
    return bool(session["mode"] == "subscription" and session["payment_method_collection"] == "always")


def complete(session: Json, method: Json | None, buyer: Buyer, state: State, moment: Moment) -> Change:
    """An open session's payment by a holder who has authenticated if the card asked for it.

    A refusal of the change says why the card did not pay; the session then stays open.

    Raises:
        ApiError: nothing of it happened: the card did not pay, or a coupon is used up.
    """
    decision = Decision(state)
    given = coupons_of(session, decision, moment.now)
    customer = _customer(session, buyer, decision, moment)
    email = (customer or buyer_details(session, buyer))["email"]
    name = buyer.name or (customer or {}).get("name")
    if method is not None:
        method = {**method, "billing_details": {**method["billing_details"], "email": email, "name": name}}
        decision.save(method)
    session = {
        **session,
        "customer": None if customer is None else customer["id"],
        "customer_details": objects.customer_details(email, name),
    }
    if session["mode"] == "payment":
        return _charged(session, method, given, decision, moment)
    return _subscribed(session, method, given, decision, moment)


def buyer_details(session: Json, buyer: Buyer) -> Json:
    """The e-mail address and name of a buyer who is no customer yet."""
    return {"email": session["customer_email"] or buyer.email, "name": buyer.name}


def _customer(session: Json, buyer: Buyer, decision: Decision, moment: Moment) -> Json | None:
    """Who buys: the session's customer, or a new one unless nothing needs one."""
    if session["customer"] is not None:
        return found(decision, "customer", session["customer"])
    if session["mode"] == "payment" and session["customer_creation"] != "always":
        return None
    given = buyer_details(session, buyer)
    new = objects.customer(moment.new_id("cus"), moment.now, given)
    decision.save(new)
    decision.tell("customer.created", new)
    return new


def _subscribed(
    session: Json, method: Json | None, given: Sequence[Redemption], decision: Decision, moment: Moment
) -> Change:
    customer = found(decision, "customer", session["customer"])
    if method is not None:
        _keep(method, customer, decision)
    terms = session["_subscription_data"]
    items = [
        NewItem(found(decision, "price", item["price"]), item["quantity"]) for item in session["line_items"]
    ]
    sold = subscribe(
        decision,
        NewSubscription(
            customer=customer,
            items=[item for item in items if item.price["recurring"]],
            one_time=[item for item in items if not item.price["recurring"]],
            payment_method=None if method is None else method["id"],
            trial_end=trial_end(session, moment.now),
            metadata=terms["metadata"],
            redemptions=given,
            behavior="error_if_incomplete",
            holder=Holder.AT_CHECKOUT,
            more={name: terms[name] for name in ("description", "trial_settings") if terms[name] is not None},
        ),
        moment,
    )
    paid = "paid" if sold.invoice["amount_paid"] else "no_payment_required"
    return _completed(
        {
            **session,
            "invoice": sold.invoice["id"],
            "payment_status": paid,
            "subscription": sold.subscription["id"],
        },
        decision,
    )


def _keep(method: Json, customer: Json, decision: Decision) -> None:
    """The card becomes the customer's, and may be charged while they are away."""
    kept = payments.attached({**method, "_set_up": True}, customer)
    decision.save(kept)
    decision.tell("payment_method.attached", kept)


def _charged(
    session: Json, method: Json | None, given: Sequence[Redemption], decision: Decision, moment: Moment
) -> Change:
    if session["amount_total"] > 0:
        intent = _intent(session, decision, moment)
        tried = payments.attempt(intent, method, Holder.AT_CHECKOUT, moment)
        decision.take(tried)
        session = {**session, "payment_intent": intent["id"]}
        if tried.outcome != "paid":
            decision.save(session)
            return decision.change(session, tried.error)
    decision.save(*counted(given))
    paid = "paid" if session["amount_total"] else "no_payment_required"
    return _completed({**session, "payment_status": paid}, decision)


def _intent(session: Json, decision: Decision, moment: Moment) -> Json:
    """The session's payment intent: the one that was declined before, or a new one."""
    amount, customer = session["amount_total"], session["customer"]
    if session["payment_intent"] is not None:
        former = found(decision, "payment_intent", session["payment_intent"])
        return {**former, "amount": amount, "customer": customer}
    terms = {**session["_payment_intent_data"], "amount": amount, "customer": customer}
    more = {"currency": session["currency"], "secret": moment.new_id("secret")}
    intent = objects.payment_intent(moment.new_id("pi"), moment.now, {**terms, **more})
    decision.tell("payment_intent.created", intent)
    return intent


def _completed(session: Json, decision: Decision) -> Change:
    done = {**session, "status": "complete", "url": None}
    decision.save(done)
    decision.tell("checkout.session.completed", done)
    return decision.change(done)


def expired(session: Json, state: State) -> Change:
    """An open session's end without payment."""
    over = {**session, "status": "expired", "url": None}
    decision = Decision(state)
    decision.save(over)
    decision.tell("checkout.session.expired", over)
    return decision.change(over)
