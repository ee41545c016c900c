"""Payment intents: made, confirmed, canceled; paid once their card's holder has authenticated."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.billing.invoicing import intent_failed, intent_paid
from sandbox.stripe_api.billing.payments import Collected, Holder, attempt, authentication_failed, check_kept
from sandbox.stripe_api.clocks import in_time_of_customer
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Change, Moment, Operation, found, listing, retrieval, updated
from sandbox.stripe_api.params import (
    Amount,
    ClearableText,
    DatedListParams,
    Flag,
    FormList,
    Metadata,
    MetadataChange,
    Nested,
    Params,
    Text,
    Url,
    unset,
)
from sandbox.stripe_api.present import shown
from sandbox.stripe_api.resources.payment_methods import method_of
from sandbox.stripe_api.resources.products import Currency
from sandbox.stripe_api.store import Query, State

_OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")


class _Automatic(Nested):
    enabled: Flag
    allow_redirects: Literal["always", "never"] = "always"


class IntentCreate(Params):
    """A new payment intent; tried at once with `confirm`."""

    amount: Amount
    currency: Currency
    customer: Text | None = None
    payment_method: Text | None = None
    confirm: Flag = False
    off_session: Flag = False
    automatic_payment_methods: _Automatic | None = None
    payment_method_types: FormList[Literal["card"]] = Field(default_factory=list)
    description: ClearableText = None
    receipt_email: ClearableText = None
    return_url: Url | None = None
    setup_future_usage: Literal["off_session", "on_session"] | None = None
    metadata: Metadata = Field(default_factory=dict)


class IntentUpdate(Params):
    """An edit of an intent that is not over."""

    amount: Amount | None = None
    payment_method: Text | None = None
    description: ClearableText = None
    receipt_email: ClearableText = None
    setup_future_usage: Annotated[Literal["off_session", "on_session"] | None, BeforeValidator(unset)] = None
    metadata: MetadataChange = Field(default_factory=dict)


class IntentConfirm(Params):
    """A try."""

    payment_method: Text | None = None
    off_session: Flag = False
    return_url: Url | None = None


class IntentCancel(Params):
    """An end without payment."""

    cancellation_reason: Literal["abandoned", "duplicate", "fraudulent", "requested_by_customer"] | None = (
        None
    )


class IntentList(DatedListParams):
    """A page of payment intents."""

    customer: Text | None = None


def _create(asked: Asked[IntentCreate]) -> Change:
    params, state, moment = asked.params, asked.state, asked.moment
    decision = Decision(state)
    if params.customer is not None:
        found(state, "customer", params.customer, "customer")
        moment = in_time_of_customer(params.customer, state, moment)
    given = {**params.model_dump(), "secret": moment.new_id("secret"), "payment_method": None}
    intent = objects.payment_intent(moment.new_id("pi"), moment.now, given)
    if params.automatic_payment_methods is not None:
        intent["automatic_payment_methods"] = params.automatic_payment_methods.model_dump()
    if params.payment_method is not None:
        intent = _with_method(intent, params.payment_method, decision, moment)
    decision.save(intent)
    decision.tell("payment_intent.created", intent)
    if not params.confirm:
        return decision.change(intent)
    return _tried(intent, decision, moment, off_session=params.off_session)


def _with_method(intent: Json, method_id: str, decision: Decision, moment: Moment) -> Json:
    method = method_of(method_id, decision, moment, "payment_method")
    check_kept(method)
    if method["customer"] not in (None, intent["customer"]):
        raise ApiError("The payment method belongs to another customer.", param="payment_method")
    decision.save(method)
    return {**intent, "payment_method": method["id"], "status": "requires_confirmation"}


def _update(asked: Asked[IntentUpdate]) -> Change:
    params, state = asked.params, asked.state
    old = found(state, "payment_intent", asked.ids["intent"])
    _check_open(old, state, "update")
    if params.amount is not None and old["_invoice"] is not None:
        raise ApiError(f"The amount of this PaymentIntent is that of {old['_invoice']}.", param="amount")
    decision = Decision(state)
    new = updated(old, params, ("description", "receipt_email", "setup_future_usage"))
    new["amount"] = params.amount or old["amount"]
    if params.payment_method is not None:
        new = _with_method(
            new, params.payment_method, decision, in_time_of_customer(old["customer"], state, asked.moment)
        )
    decision.save(new)
    return decision.change(new)


def _confirm(asked: Asked[IntentConfirm]) -> Change:
    params, state = asked.params, asked.state
    intent = found(state, "payment_intent", asked.ids["intent"])
    _check_open(intent, state, "confirm")
    decision = Decision(state)
    moment = in_time_of_customer(intent["customer"], state, asked.moment)
    if params.return_url is not None:
        intent["_return_url"] = params.return_url
    if intent["status"] == "requires_action" and params.payment_method in (None, intent["payment_method"]):
        decision.save(intent)
        return decision.change(intent)  # it waits for its holder, and that has been told
    if params.payment_method is not None:
        intent = _with_method(intent, params.payment_method, decision, moment)
    return _tried(intent, decision, moment, off_session=params.off_session)


def _check_open(intent: Json, state: State, verb: str) -> None:
    if intent["status"] in _OPEN:
        return
    raise ApiError(
        f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}.",
        "payment_intent_unexpected_state",
        details={"payment_intent": shown(intent, state)},
    )


def _tried(intent: Json, decision: Decision, moment: Moment, *, off_session: bool) -> Change:
    if intent["payment_method"] is None:
        raise ApiError(
            "You cannot confirm this PaymentIntent because it's missing a payment method: give it one with"
            " payment_method.",
            "payment_intent_unexpected_state",
            details={"payment_intent": shown(intent, decision)},
        )
    method = found(decision, "payment_method", intent["payment_method"])
    holder = Holder.AWAY if off_session else Holder.PRESENT
    return settled(attempt(intent, method, holder, moment), decision, moment)


def authenticated(intent: Json, state: State, moment: Moment, *, passed: bool) -> Change:
    """What becomes of an intent that `requires_action` once its holder has authenticated, or has not."""
    moment = in_time_of_customer(intent["customer"], state, moment)
    method = found(state, "payment_method", intent["payment_method"])
    tried = (
        attempt(intent, method, Holder.AUTHENTICATED, moment)
        if passed
        else authentication_failed(intent, method)
    )
    return settled(tried, Decision(state), moment)


def settled(tried: Collected, decision: Decision, moment: Moment) -> Change:
    """The attempt, and what it does to the invoice it was for."""
    decision.take(tried)
    if tried.outcome == "paid":
        intent_paid(decision, tried.intent, moment)
    else:
        intent_failed(decision, tried, moment)
    return decision.change(tried.intent, tried.error)


def _cancel(asked: Asked[IntentCancel]) -> Change:
    state = asked.state
    intent = found(state, "payment_intent", asked.ids["intent"])
    _check_open(intent, state, "cancel")
    if intent["_invoice"] is not None:
        raise ApiError(f"This PaymentIntent is of an invoice: void {intent['_invoice']} instead.")
    canceled = {
        **intent,
        "canceled_at": in_time_of_customer(intent["customer"], state, asked.moment).now,
        "cancellation_reason": asked.params.cancellation_reason,
        "next_action": None,
        "status": "canceled",
    }
    decision = Decision(state)
    decision.save(canceled)
    decision.tell("payment_intent.canceled", canceled)
    return decision.change(canceled)


def _intents(asked: Asked[IntentList]) -> Query:
    created = asked.params.created
    return Query("payment_intent", label=asked.params.customer, since=created.first(), until=created.last())


def operations() -> tuple[Operation[Any], ...]:
    """Every call about payment intents."""
    path = "/v1/payment_intents/{intent}"
    return (
        Operation("POST", "/v1/payment_intents", IntentCreate, _create),
        listing("/v1/payment_intents", IntentList, _intents),
        retrieval(path, "payment_intent"),
        Operation("POST", path, IntentUpdate, _update),
        Operation("POST", f"{path}/confirm", IntentConfirm, _confirm),
        Operation("POST", f"{path}/cancel", IntentCancel, _cancel),
    )
