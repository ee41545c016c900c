"""Charges, and how their money goes back: refunds and disputes."""

from typing import Annotated, Any, Literal

from pydantic import Field

from sandbox.stripe_api import objects
from sandbox.stripe_api.clocks import in_time_of
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.money import amount_text
from sandbox.stripe_api.objects import Json
from sandbox.stripe_api.operation import Asked, Change, Moment, Operation, found, listing, retrieval
from sandbox.stripe_api.params import DatedListParams, Metadata, Params, Text
from sandbox.stripe_api.payments import disputed
from sandbox.stripe_api.store import Query, State

Amount = Annotated[int, Field(ge=1, le=99_999_999)]


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
    moment = _own_time(old, state, asked.moment)
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
    if charge["disputed"]:
        raise ApiError(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.", "charge_disputed"
        )
    return charge


def _own_time(charge: Json, state: State, moment: Moment) -> Moment:
    if charge["customer"] is None:
        return moment
    return in_time_of(found(state, "customer", charge["customer"]), state, moment)


def dispute(charge: Json, reason: str, state: State, moment: Moment) -> Change:
    """A paid charge's dispute by its holder.

    Raises:
        ApiError: it cannot be disputed.
    """
    if not charge["paid"] or charge["disputed"]:
        raise ApiError(f"Charge {charge['id']} failed or is disputed already: it cannot be disputed.")
    changed, opened = disputed(charge, reason, _own_time(charge, state, moment))
    decision = Decision(state)
    decision.save(changed, opened)
    decision.tell("charge.dispute.created", opened)
    return decision.change(opened)


def _refunds(asked: Asked[ReturnList]) -> Query:
    return _returns("refund", asked)


def _disputes(asked: Asked[ReturnList]) -> Query:
    return _returns("dispute", asked)


def _returns(kind: str, asked: Asked[ReturnList]) -> Query:
    params = asked.params
    return Query(
        kind,
        label=params.charge,
        since=params.created.first(),
        until=params.created.last(),
        keep=lambda one: params.payment_intent in (None, one["payment_intent"]),
    )


def operations() -> tuple[Operation[Any], ...]:
    """Every call about charges, refunds and disputes."""
    return (
        listing("/v1/charges", ChargeList, _charges),
        retrieval("/v1/charges/{charge}", "charge"),
        Operation("POST", "/v1/refunds", RefundCreate, _refund),
        listing("/v1/refunds", ReturnList, _refunds),
        retrieval("/v1/refunds/{refund}", "refund"),
        listing("/v1/disputes", ReturnList, _disputes),
        retrieval("/v1/disputes/{dispute}", "dispute"),
    )
