"""What an event says, once it is known to be Stripe's. Pure but for the clock in the signature's check."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import stripe
from pydantic import (
    AwareDatetime,
    BaseModel,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from platform_api import problems
from platform_api.problems import Problem

TOLERANCE = 300  # seconds a signature stays good: Stripe's own default
_SUBSCRIPTION_ID = re.compile(r"sub_[A-Za-z0-9_]{1,250}")
_SESSION_ID = re.compile(r"cs_[A-Za-z0-9_]{1,250}")
_MAX_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class Event:
    """A verified event: `subscription` is whose state may have changed, `expired_session` what has ended."""

    id: str
    type: str
    created: datetime
    subscription: str | None
    expired_session: str | None
    payload: str


class _Envelope(BaseModel):
    id: Annotated[str, StringConstraints(pattern=r"^evt_[A-Za-z0-9_]{1,250}$")]
    type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.]{1,120}$")]
    created: AwareDatetime
    data: dict[str, Any] = {}

    @field_validator("created")
    @classmethod
    def _has_a_year_that_databases_know(cls, value: datetime) -> datetime:
        if not 2000 <= value.year <= 9000:
            raise ValueError("must be a time of ours")
        return value.astimezone(UTC)


_ENVELOPE = TypeAdapter(_Envelope)


def verify(body: bytes, signature: str | None, secrets: tuple[str, ...]) -> str:
    """Return the body's text if one of `secrets` signed it within the last five minutes.

    Raises:
        Problem: 400.
    """
    if signature is None:
        raise Problem(problems.BAD_EVENT, "Sign the request: it has no Stripe-Signature header.")
    # The library's comparison raises on anything but ASCII.
    if signature.count(",") > _MAX_SIGNATURES or not signature.isascii():
        raise Problem(problems.BAD_EVENT, "The Stripe-Signature header is not what Stripe sends.")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Problem(problems.BAD_EVENT, "Send UTF-8.") from None
    if not any(_is_signed_with(secret, text, signature) for secret in secrets):
        raise Problem(
            problems.BAD_EVENT,
            "The signature is not ours or older than five minutes: "
            "compare the endpoint's signing secret and the clocks.",
        )
    return text


def _is_signed_with(secret: str, text: str, signature: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(text, signature, secret, TOLERANCE)
    except stripe.SignatureVerificationError:
        return False
    return True


def parse(text: str) -> Event:
    """Read a verified event.

    Raises:
        Problem: 400, it is not the JSON of an event.
    """
    try:
        # json, not pydantic's parser: that one refuses lone surrogates, which are no reason to lose an event.
        envelope = _ENVELOPE.validate_python(json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, ValidationError, RecursionError):
        raise Problem(problems.BAD_EVENT, "Send a Stripe event as JSON.") from None
    obj = envelope.data.get("object")
    known = obj if isinstance(obj, dict) else {}
    return Event(
        id=envelope.id,
        type=envelope.type,
        created=envelope.created,
        subscription=subscription_of(envelope.type, known),
        expired_session=_id(known.get("id"), _SESSION_ID)
        if envelope.type == "checkout.session.expired"
        else None,
        payload=text,
    )


def subscription_of(event_type: str, obj: dict[str, Any]) -> str | None:
    """Return the id of the subscription that an event about `obj` concerns, if it concerns one.

    An invoice names it under `parent.subscription_details` since API version 2025-03-31, at the top before
    (https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects).
    """
    if event_type.startswith("customer.subscription."):
        return _id(obj.get("id"), _SUBSCRIPTION_ID)
    if event_type.startswith("checkout.session."):
        return _id(obj.get("subscription"), _SUBSCRIPTION_ID)
    if event_type.startswith("invoice."):
        parent = obj.get("parent")
        details = parent.get("subscription_details") if isinstance(parent, dict) else None
        named = details.get("subscription") if isinstance(details, dict) else None
        return _id(named or obj.get("subscription"), _SUBSCRIPTION_ID)
    return None


def _id(value: object, pattern: re.Pattern[str]) -> str | None:
    """Return the id in `value`, which is the id or, expanded, the object that has it."""
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, str) and pattern.fullmatch(found) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
