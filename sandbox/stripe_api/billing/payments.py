"""Charging a card: what comes of a payment intent, and what Stripe says about it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from sandbox.stripe_api import cards, objects
from sandbox.stripe_api.cards import NOT_AUTHENTICATED, Card, Refusal
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json, public
from sandbox.stripe_api.operation import Draft, Moment

NOT_AUTHENTICATED_SENTENCE = (
    "We are unable to authenticate your payment method. Please choose a different payment method and try"
    " again."
)
Outcome = Literal["paid", "declined", "requires_action"]


class Holder(Enum):
    """Where the card's holder is while it is charged."""

    AT_CHECKOUT = "on the hosted page, and has authenticated there if the card asked for it"
    AUTHENTICATED = "has just authenticated this payment"
    PRESENT = "behind the caller, who can lead them to authenticate"
    AWAY = "away: the card has to pay by itself"


@dataclass(frozen=True)
class Due:
    """Money to collect for an invoice; `amount` is more than 0, in the currency's smallest unit."""

    customer: Json
    amount: int
    currency: str
    description: str
    invoice: str


@dataclass(frozen=True)
class Collected:
    """What came of an attempt.

    Attributes:
        intent: `requires_payment_method` after a decline: `attempt` may try it again.
        charge: None when the bank was not asked.
        error: what an API call that wanted the money now answers; None unless declined.
        saved: all objects to store: the intent, the charge and what else changed.
        events: in their order.
    """

    intent: Json
    charge: Json | None
    outcome: Outcome
    error: ApiError | None
    saved: tuple[Json, ...]
    events: tuple[Draft, ...]


def intent_for(due: Due, moment: Moment) -> Json:
    """The payment intent for what is due, not tried yet; paying it sets its card up for later."""
    given = {
        "amount": due.amount,
        "currency": due.currency,
        "customer": due.customer["id"],
        "description": due.description,
        "invoice": due.invoice,
        "secret": moment.new_id("secret"),
        "setup_future_usage": "off_session",
    }
    return objects.payment_intent(moment.new_id("pi"), moment.now, given)


def attempt(intent: Json, method: Json | None, holder: Holder, moment: Moment) -> Collected:
    """Try a payment intent, also once more after a decline or when its holder has authenticated."""
    if method is None or method.get("_detached"):
        return _without_card(intent)
    card = cards.behaviour(method["card"]["last4"])
    if card.refusal is not None and not (card.attaches and _begins_subscription(intent, holder)):
        return _declined(intent, method, card.refusal, moment)
    if not _wants_authentication(method, holder):
        return _paid(intent, method, holder, moment)
    if holder is Holder.AWAY and intent["_invoice"] is None:
        return _declined(intent, method, NOT_AUTHENTICATED, moment)
    return _waiting(intent, method, moment)


def _begins_subscription(intent: Json, holder: Holder) -> bool:
    """Whether a card that can be kept pays this once, so that it is a renewal that it fails."""
    return holder is Holder.AT_CHECKOUT and intent["_invoice"] is not None


def authentication_failed(intent: Json, method: Json) -> Collected:
    """The holder did not authenticate: the intent wants another card."""
    refusal = Refusal("payment_intent_authentication_failure", None, NOT_AUTHENTICATED_SENTENCE)
    return _failed(intent, method, refusal, None)


def wants_authentication(method: Json) -> bool:
    """Whether a card's holder has to authenticate on the hosted page."""
    return _wants_authentication(method, Holder.PRESENT)


def _wants_authentication(method: Json, holder: Holder) -> bool:
    if holder in (Holder.AT_CHECKOUT, Holder.AUTHENTICATED):
        return False
    match cards.behaviour(method["card"]["last4"]).authentication:
        case "never":
            return False
        case "always":
            return True
        case "until_set_up":
            return holder is Holder.PRESENT or not method["_set_up"]


def _paid(intent: Json, method: Json, holder: Holder, moment: Moment) -> Collected:
    charge = objects.charge(moment.new_id("ch"), moment.now, intent, method, None)
    paid = {
        **intent,
        "amount_received": intent["amount"],
        "last_payment_error": None,
        "latest_charge": charge["id"],
        "next_action": None,
        "payment_method": method["id"],
        "status": "succeeded",
    }
    kept = _kept(method, intent, holder)
    is_new = kept["customer"] != method["customer"]
    events = (
        *((Draft("payment_method.attached", public(kept)),) if is_new else ()),
        Draft("charge.succeeded", charge),
        Draft("payment_intent.succeeded", public(paid)),
    )
    result = Collected(paid, charge, "paid", None, (paid, charge, kept), events)
    reason = cards.behaviour(method["card"]["last4"]).dispute
    return result if reason is None else _disputed(result, charge, reason, moment)


def _kept(method: Json, intent: Json, holder: Holder) -> Json:
    """The card that paid: its customer's when the intent is to let it be used again, and set up for that."""
    usage = intent["setup_future_usage"]
    if holder is Holder.AWAY or usage is None:
        return method
    set_up = method["_set_up"] or usage == "off_session"
    return {**method, "_set_up": set_up, "customer": method["customer"] or intent["customer"]}


def _disputed(result: Collected, charge: Json, reason: str, moment: Moment) -> Collected:
    changed, dispute, told = disputed(charge, reason, moment)
    return replace(
        result, charge=changed, saved=(*result.saved, changed, dispute), events=(*result.events, *told)
    )


def disputed(charge: Json, reason: str, moment: Moment) -> tuple[Json, Json, tuple[Draft, ...]]:
    """A paid charge as it is once its holder disputes it, the dispute, and its events."""
    dispute = objects.dispute(moment.new_id("du"), moment.now, charge, reason)
    told = ("charge.dispute.created", "charge.dispute.funds_withdrawn")
    return {**charge, "disputed": True}, dispute, tuple(Draft(kind, dispute) for kind in told)


def _waiting(intent: Json, method: Json, moment: Moment) -> Collected:
    waiting = {
        **intent,
        "last_payment_error": None,
        "next_action": {
            "redirect_to_url": {
                "return_url": intent["_return_url"],
                "url": f"{moment.base_url}/authenticate/{intent['id']}",
            },
            "type": "redirect_to_url",
        },
        "payment_method": method["id"],
        "status": "requires_action",
    }
    event = Draft("payment_intent.requires_action", public(waiting))
    return Collected(waiting, None, "requires_action", None, (waiting,), (event,))


def _declined(intent: Json, method: Json, refusal: Refusal, moment: Moment) -> Collected:
    charge = objects.charge(moment.new_id("ch"), moment.now, intent, method, refusal)
    return _failed(intent, method, refusal, charge)


def _failed(intent: Json, method: Json, refusal: Refusal, charge: Json | None) -> Collected:
    problem = {
        "charge": charge and charge["id"],
        "code": refusal.code,
        "decline_code": refusal.decline_code,
        "message": refusal.message,
        "payment_method": public(method),
        "type": "invalid_request_error" if charge is None else "card_error",
    }
    failed = {
        **intent,
        "last_payment_error": {name: value for name, value in problem.items() if value is not None},
        "latest_charge": intent["latest_charge"] if charge is None else charge["id"],
        "next_action": None,
        "payment_method": None,
        "status": "requires_payment_method",
    }
    charged = () if charge is None else (charge,)
    events = (
        *(Draft("charge.failed", one) for one in charged),
        Draft("payment_intent.payment_failed", public(failed)),
    )
    error = refused(refusal, method, failed)
    return Collected(failed, charge, "declined", error, (failed, *charged), events)


def refused(refusal: Refusal, method: Json, intent: Json | None = None) -> ApiError:
    """The 402 an API call answers when a bank refuses."""
    details = {"decline_code": refusal.decline_code, "payment_method": public(method)}
    if intent is not None:
        details |= {"charge": intent["latest_charge"], "payment_intent": public(intent)}
    return ApiError(refusal.message, refusal.code, status=402, type="card_error", details=details)


def _without_card(intent: Json) -> Collected:
    sentence = "This customer has no attached payment source or default payment method."
    error = ApiError(sentence, "resource_missing", details={"payment_intent": public(intent)})
    return Collected(intent, None, "declined", error, (intent,), ())


def new_method(card: Card, billing: Mapping[str, str | None], moment: Moment) -> Json:
    """A payment method for a card, of nobody yet; `billing` may hold email and name."""
    shape = objects.card(card.test.number, card.test.brand, card.exp_month, card.exp_year)
    given = {"email": billing.get("email"), "name": billing.get("name"), "customer": None}
    return objects.payment_method(moment.new_id("pm"), moment.now, shape, given)


def attached(method: Json, customer: Json) -> Json:
    """The payment method as the customer's; `payment_method.attached` tells of it.

    Raises:
        ApiError: the bank refuses the card, or another customer has it.
    """
    card = cards.behaviour(method["card"]["last4"])
    if card.refusal is not None and not card.attaches:
        raise refused(card.refusal, method)
    check_kept(method)
    if method["customer"] not in (None, customer["id"]):
        raise ApiError(
            "The payment method you provided has already been attached to a customer.",
            "payment_method_already_attached",
        )
    return {**method, "customer": customer["id"]}


def check_kept(method: Json) -> None:
    """Refuse a payment method that its customer had and gave up.

    Raises:
        ApiError: it is one.
    """
    if method.get("_detached"):
        raise ApiError(
            "This payment method was detached from a customer, and may not be used again: make a new one.",
            param="payment_method",
        )
