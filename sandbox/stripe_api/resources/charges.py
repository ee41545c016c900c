"""Charges, and the refunds that give their money back."""

from typing import Any, Literal

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.clocks import in_time_of_customer
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.money import amount_text
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Change, Operation, found, listing, retrieval, update, updated
from sandbox.stripe_api.params import Amount, DatedListParams, Metadata, MetadataChange, Params, Text
from sandbox.stripe_api.store import Query, State, every


class ChargeList(DatedListParams):
    """A page of charges."""

    customer: Text | None = None
    payment_intent: Text | None = None


class RefundCreate(Params):
    """Money to give back: of a charge, or of a payment intent's; all that is left of it by default."""

    charge: Text | None = None
    payment_intent: Text | None = None
    amount: Amount | None = None
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None
    metadata: Metadata = Field(default_factory=dict)


class RefundUpdate(Params):
    """An edit: metadata only."""

    metadata: MetadataChange = Field(default_factory=dict)


class ReturnList(DatedListParams):
    """A page of refunds, or of disputes."""

    charge: Text | None = None
    payment_intent: Text | None = None


def _charges(asked: Asked[ChargeList]) -> Query:
    params = asked.params
    return Query(
        "charge",
        label=params.customer,
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: params.payment_intent in (None, one["payment_intent"]),
    )


def _refund(asked: Asked[RefundCreate]) -> Change:
    params, state = asked.params, asked.state
    old = _to_refund(params, state)
    left = old["amount"] - old["amount_refunded"]
    amount = left if params.amount is None else params.amount
    if amount > left:
        raise ApiError(
            f"Refund amount ({amount_text(amount, old['currency'])}) is greater than unrefunded amount on"
            f" charge ({amount_text(left, old['currency'])}).",
            param="amount",
        )
    moment = in_time_of_customer(old["customer"], state, asked.moment)
    given = {"metadata": params.metadata, "reason": params.reason}
    refund = objects.refund(moment.new_id("re"), moment.now, old, amount, given)
    new = {**old, "amount_refunded": old["amount_refunded"] + amount, "refunded": amount == left}
    decision = Decision(state)
    decision.save(refund, new)
    decision.tell("refund.created", refund)
    decision.tell("charge.refunded", new, old)
    return decision.change(refund)


def _to_refund(params: RefundCreate, state: State) -> Json:
    if (params.charge is None) == (params.payment_intent is None):
        raise ApiError("You must give exactly one of charge and payment_intent.", param="charge")
    if params.charge is not None:
        charge = found(state, "charge", params.charge, "charge")
    else:
        intent = found(state, "payment_intent", params.payment_intent or "", "payment_intent")
        if intent["status"] != "succeeded":
            raise ApiError(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
                param="payment_intent",
            )
        charge = found(state, "charge", intent["latest_charge"])
    if not charge["paid"]:
        raise ApiError(f"Charge {charge['id']} failed: there is nothing to refund.", param="charge")
    if charge["refunded"]:
        raise ApiError(f"Charge {charge['id']} has already been refunded.", "charge_already_refunded")
    if is_charged_back(charge, state):
        raise ApiError(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.", "charge_disputed"
        )
    return charge


def is_charged_back(charge: Json, state: State) -> bool:
    """Whether a charge's money is with its holder's bank: it was disputed, and the dispute was not won."""
    not_won = Query("dispute", label=charge["id"], keep=lambda one: bool(one["status"] != "won"))
    return bool(every(state, not_won, 1))


def _update_refund(asked: Asked[RefundUpdate]) -> Change:
    old = found(asked.state, "refund", asked.ids["refund"])
    return update("refund", old, updated(old, asked.params, ()), asked.state)


def _refunds(asked: Asked[ReturnList]) -> Query:
    return returns("refund", asked)


def returns(kind: str, asked: Asked[ReturnList]) -> Query:
    """The refunds, or disputes, that a list asks for."""
    params = asked.params
    return Query(
        kind,
        label=params.charge,
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: params.payment_intent in (None, one["payment_intent"]),
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about charges and refunds."""
    return (
        listing("/v1/charges", ChargeList, _charges),
        retrieval("/v1/charges/{charge}", "charge"),
        Operation("POST", "/v1/refunds", RefundCreate, _refund),
        listing("/v1/refunds", ReturnList, _refunds),
        retrieval("/v1/refunds/{refund}", "refund"),
        Operation("POST", "/v1/refunds/{refund}", RefundUpdate, _update_refund),
    )
