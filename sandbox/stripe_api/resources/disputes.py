"""Disputes: opened by a card's holder, answered or given up by whoever sold."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from sandbox.stripe_api.billing.payments import disputed
from sandbox.stripe_api.clocks import in_time_of_customer
from sandbox.stripe_api.decision import Decision
from sandbox.stripe_api.errors import ApiError
from sandbox.stripe_api.objects import EVIDENCE, Json
from sandbox.stripe_api.operation import (
    Asked,
    Change,
    Moment,
    Operation,
    found,
    listing,
    merged_metadata,
    retrieval,
)
from sandbox.stripe_api.params import ClearableText, Flag, MetadataChange, Params
from sandbox.stripe_api.resources.charges import ReturnList, returns
from sandbox.stripe_api.store import Query, State

_PATH = "/v1/disputes/{dispute}"
_VERDICTS = {"winning_evidence": "won", "losing_evidence": "lost"}
"""What a test writes as `uncategorized_text` to decide: https://docs.stripe.com/testing#disputes."""


def _known(evidence: dict[str, str | None]) -> dict[str, str | None]:
    for name in evidence:
        if name not in EVIDENCE:
            raise PydanticCustomError("evidence", "There is no evidence called {name}", {"name": name})
    return evidence


class DisputeUpdate(Params):
    """Evidence, kept and, unless `submit` says otherwise, sent to the bank."""

    evidence: Annotated[dict[str, ClearableText], AfterValidator(_known)] = Field(default_factory=dict)
    submit: Flag = True
    metadata: MetadataChange = Field(default_factory=dict)


def dispute(charge: Json, reason: str, state: State, moment: Moment) -> Change:
    """A paid charge's dispute by its holder.

    Raises:
        ApiError: it cannot be disputed.
    """
    if not charge["paid"] or charge["disputed"]:
        raise ApiError(f"Charge {charge['id']} failed or is disputed already: it cannot be disputed.")
    changed, opened, told = disputed(charge, reason, in_time_of_customer(charge["customer"], state, moment))
    return Change(opened, (changed, opened), told)


def _update(asked: Asked[DisputeUpdate]) -> Change:
    params = asked.params
    old = _open(asked)
    evidence = {**old["evidence"], **params.evidence}
    details = {**old["evidence_details"], "has_evidence": any(evidence[name] for name in EVIDENCE)}
    status = old["status"]
    if params.submit and "evidence" in params.model_fields_set:
        details["submission_count"] += 1
        status = _VERDICTS.get(evidence["uncategorized_text"] or "", "under_review")
    metadata = merged_metadata(old["metadata"], params.metadata)
    new = {**old, "evidence": evidence, "evidence_details": details, "metadata": metadata, "status": status}
    return _changed(old, new, asked.state)


def _close(asked: Asked[Params]) -> Change:
    """Give up."""
    old = _open(asked)
    return _changed(old, {**old, "status": "lost"}, asked.state)


def _open(asked: Asked[Any]) -> Json:
    one = found(asked.state, "dispute", asked.ids["dispute"])
    if one["status"] in _VERDICTS.values():
        raise ApiError(f"This dispute is closed: it was {one['status']}.")
    return one


def _changed(old: Json, new: Json, state: State) -> Change:
    decision = Decision(state)
    if new != old:
        decision.save(new)
        decision.tell("charge.dispute.updated", new, old)
    if new["status"] == "won":
        decision.tell("charge.dispute.funds_reinstated", new)
    if new["status"] in _VERDICTS.values():
        decision.tell("charge.dispute.closed", new)
    return decision.change(new)


def _disputes(asked: Asked[ReturnList]) -> Query:
    return returns("dispute", asked)


def operations() -> tuple[Operation[Any], ...]:
    """Every call about disputes."""
    return (
        listing("/v1/disputes", ReturnList, _disputes),
        retrieval(_PATH, "dispute"),
        Operation("POST", _PATH, DisputeUpdate, _update),
        Operation("POST", f"{_PATH}/close", Params, _close),
    )
