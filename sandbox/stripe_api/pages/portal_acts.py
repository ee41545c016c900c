"""What a customer does in the billing portal. Pure: each act is some of the API's own calls.

They happen together or not at all, and decide nothing about billing that the API would not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.stripe_api.api import operations
from sandbox.stripe_api.billing import payments
from sandbox.stripe_api.billing.standing import OVER
from sandbox.stripe_api.cards import Card, CardRefusedError, typed
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Moment, Operation
from sandbox.stripe_api.params import parse
from sandbox.stripe_api.resources.portal import cancellations, plans
from sandbox.stripe_api.store import Query, State, every
from sandbox.stripe_api.timetable import period_end_of

MOST_SUBSCRIPTIONS = 100
DETAILS = ("email", "name", "phone")
"""What customers may edit of themselves, as far as the stand-in keeps it."""
_SUBSCRIPTION = "/v1/subscriptions/{subscription}"
_CALLS: Mapping[tuple[str, str], Operation[Any]] = {(one.method, one.path): one for one in operations()}

Form = Mapping[str, str]


class RefusedError(Exception):
    """What was asked cannot be done: one sentence for the customer."""


class AuthenticationWantedError(Exception):
    """The card's bank asks its holder to authenticate first."""


@dataclass(frozen=True)
class Visit:
    """A customer in the portal."""

    session: Json
    configuration: Json
    customer: Json

    @property
    def home(self) -> str:
        """The path of the first page."""
        return f"/p/session/{self.session['_secret']}"

    def offers(self, feature: str) -> bool:
        """Whether the configuration has a feature switched on."""
        on: bool = self.configuration["features"][feature]["enabled"]
        return on

    def subscriptions(self, state: State) -> list[Json]:
        """The customer's, the newest first."""
        return list(every(state, Query("subscription", self.customer["id"]), MOST_SUBSCRIPTIONS))


class Act:
    """Calls of the API made on the customer's behalf.

    Attributes:
        decision: what they came to so far.
        unpaid: why a payment failed that one of them tried; the rest of it happened all the same.
    """

    def __init__(self, visit: Visit, state: State, moment: Moment) -> None:
        self.visit = visit
        self.moment = moment
        self.decision = Decision(state)
        self.unpaid: str | None = None

    def call(self, method: str, path: str, ids: Mapping[str, str], fields: Mapping[str, object]) -> None:
        """Make one call; `fields` are nested and still text, as a form's.

        Raises:
            ApiError: as the API would answer.
        """
        operation = _CALLS[method, path]
        change = operation.run(Asked(ids, parse(operation.params, fields), self.decision, self.moment))
        self.decision.take(change)
        if change.refusal is not None:
            self.unpaid = change.refusal.message

    def own(self, kind: str, object_id: str) -> Json:
        """The customer's object of that id.

        Raises:
            RefusedError: there is none, or it is another's.
        """
        candidate = self.decision.find(object_id)
        if candidate is None or candidate["object"] != kind:
            raise RefusedError(f"There is no such {kind}.")
        if candidate["customer"] != self.visit.customer["id"]:
            raise RefusedError(f"There is no such {kind}.")
        return candidate


def cancel(act: Act, subscription_id: str, form: Form) -> None:
    """Let a subscription end, now or when what is paid for is used up."""
    subscription = act.own("subscription", subscription_id)
    when = form.get("when", "")
    if when not in cancellations(act.visit.configuration):
        raise RefusedError("Choose when the subscription is to end.")
    feature = act.visit.configuration["features"]["subscription_cancel"]
    reasons = feature["cancellation_reason"]
    details: dict[str, str] = {}
    if reasons["enabled"] and form.get("feedback") in reasons["options"]:
        details["feedback"] = form["feedback"]
    if reasons["enabled"] and form.get("comment"):
        details["comment"] = form["comment"]
    fields: dict[str, object] = {"cancellation_details": details} if details else {}
    if when == "at_period_end":
        # Of a subscription with flexible billing the portal sets `cancel_at`, not `cancel_at_period_end`:
        # https://docs.stripe.com/billing/subscriptions/billing-mode/compare
        fields["cancel_at"] = str(period_end_of(subscription))
        act.call("POST", _SUBSCRIPTION, {"subscription": subscription_id}, fields)
        return
    if feature["proration_behavior"] == "create_prorations":
        fields["prorate"] = "true"
    act.call("DELETE", _SUBSCRIPTION, {"subscription": subscription_id}, fields)


def resume(act: Act, subscription_id: str, _: Form) -> None:
    """Take a cancellation back before it comes to pass."""
    subscription = act.own("subscription", subscription_id)
    if not act.visit.offers("subscription_cancel"):
        raise RefusedError("This subscription cannot be changed here.")
    fields = {"cancel_at_period_end": "false"} if subscription["cancel_at_period_end"] else {"cancel_at": ""}
    act.call("POST", _SUBSCRIPTION, {"subscription": subscription_id}, fields)


def switch(act: Act, subscription_id: str, form: Form) -> None:
    """Change the plan to one that the configuration names."""
    subscription = act.own("subscription", subscription_id)
    offered = plans(act.visit.configuration, subscription, act.decision)
    if form.get("price") not in [price["id"] for price in offered]:
        raise RefusedError("Choose one of the plans.")
    feature = act.visit.configuration["features"]["subscription_update"]
    (item,) = subscription["items"]["data"]
    fields: dict[str, object] = {
        "items": {"0": {"id": item["id"], "price": form["price"]}},
        "proration_behavior": feature["proration_behavior"],
    }
    if feature["billing_cycle_anchor"]:
        fields["billing_cycle_anchor"] = feature["billing_cycle_anchor"]
    if subscription["status"] == "trialing" and feature["trial_update_behavior"] == "end_trial":
        fields["trial_end"] = "now"
    act.call("POST", _SUBSCRIPTION, {"subscription": subscription_id}, fields)


def change_card(act: Act, _: str, form: Form) -> None:
    """Keep a card and charge it from now on, for every subscription.

    Raises:
        AuthenticationWantedError: the form does not say yet whether its holder authenticated.
    """
    if not act.visit.offers("payment_method_update"):
        raise RefusedError("The card cannot be changed here.")
    customer = act.visit.customer
    card = _authenticated(form, act.moment.now)
    new = payments.new_method(card, {"email": customer["email"], "name": form.get("name")}, act.moment)
    method = {**payments.attached(new, customer), "_set_up": True}
    act.decision.save(method)
    act.decision.tell("payment_method.attached", method)
    settings = {"invoice_settings": {"default_payment_method": method["id"]}}
    act.call("POST", "/v1/customers/{customer}", {"customer": customer["id"]}, settings)
    for subscription in act.visit.subscriptions(act.decision):
        if subscription["status"] not in OVER:
            default = {"default_payment_method": method["id"]}
            act.call("POST", _SUBSCRIPTION, {"subscription": subscription["id"]}, default)


def _authenticated(form: Form, now: int) -> Card:
    try:
        card = typed(form.get("card_number", ""), form.get("expiry", ""), now)
    except CardRefusedError as error:
        raise RefusedError(str(error)) from error
    if card.test.authentication != "never" and form.get("authenticated") != "yes":
        if form.get("authenticated") == "no":
            raise RefusedError("We could not authenticate your card. Choose another one and try again.")
        raise AuthenticationWantedError
    return card


def change_details(act: Act, _: str, form: Form) -> None:
    """Edit what the configuration lets a customer edit."""
    allowed = editable(act.visit)
    if not allowed:
        raise RefusedError("Your details cannot be changed here.")
    if "email" in allowed and "@" not in form.get("email", ""):
        raise RefusedError("Your email address is incomplete.")
    fields = {name: form.get(name, "") for name in allowed}
    act.call("POST", "/v1/customers/{customer}", {"customer": act.visit.customer["id"]}, fields)


def editable(visit: Visit) -> list[str]:
    """What of themselves the customer may edit."""
    feature = visit.configuration["features"]["customer_update"]
    return [name for name in DETAILS if feature["enabled"] and name in feature["allowed_updates"]]


def pay(act: Act, invoice_id: str, _: Form) -> None:
    """Pay an open invoice with the card that is charged anyway."""
    act.own("invoice", invoice_id)
    act.call("POST", "/v1/invoices/{invoice}/pay", {"invoice": invoice_id}, {})


Deed = Callable[[Act, str, Form], None]
"""An act; the text is the id of what it is about, empty for the customer."""
