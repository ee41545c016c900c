"""The inbox of Stripe's events: what an event says, and the statement that stores a batch of them."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from psycopg import AsyncConnection, errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import scalar_row
from pydantic import (
    AwareDatetime,
    BaseModel,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from provisioner.contract.queue import ENQUEUE, Kind, enqueue_parameters

Subject = tuple[Kind, str]

# What is listed after an outage: Stripe takes at most 20 types. More are sent; as none says more than its
# subject, which these name too, those left out cost nothing.
ACTED_UPON = (
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.refunded",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.trial_will_end",
    "customer.subscription.updated",
    "invoice.marked_uncollectible",
    "invoice.paid",
    "invoice.payment_action_required",
    "invoice.payment_failed",
    "invoice.voided",
    "refund.failed",
)

_SUBSCRIPTION_ID = re.compile(r"sub_[A-Za-z0-9_]{1,250}")
_CHARGE_ID = re.compile(r"(?:ch|py)_[A-Za-z0-9_]{1,250}")
_SESSION_ID = re.compile(r"cs_[A-Za-z0-9_]{1,250}")


class NotAnEventError(ValueError):
    """The text is not the JSON of a Stripe event; the message says what to send."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event known to be Stripe's.

    `subject` is what may have changed and is looked at again; `expired_session` the checkout session that
    has ended; `payload` its JSON exactly as it came.
    """

    id: str
    type: str
    created: datetime
    subject: Subject | None
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

_AS_BYTES = """
    jsonb_build_object('berth_raw_base64',
                       translate(encode(convert_to(payload, 'UTF8'), 'base64'), chr(10), ''))
"""


def _statement(payload: str) -> sql.Composed:
    # One statement: one round trip, and all of it or nothing. Rows are locked in one order whatever the batch
    # (events, then work items, then checkouts, each sorted), or two batches could wait for each other.
    return sql.SQL("""
        WITH event AS MATERIALIZED (
            SELECT * FROM unnest(
                %(ids)b::text[], %(types)b::text[], %(created)b::timestamptz[],
                %(subject_kinds)b::text[], %(subject_keys)b::text[], %(payloads)b::text[]
            ) AS e (id, type, created, subject_kind, subject_key, payload)
        ), stored AS (
            INSERT INTO stripe_event (id, type, created, subject_kind, subject_key, payload)
            SELECT id, type, created, subject_kind, subject_key, {payload} FROM event ORDER BY id
            ON CONFLICT (id) DO NOTHING RETURNING id
        ), enqueued AS (
            {enqueue} RETURNING key
        ), expired AS (
            SELECT id FROM checkout
             WHERE stripe_session_id = ANY(%(expired_sessions)b::text[]) AND closed_at IS NULL
               AND (SELECT count(*) FROM enqueued) >= 0
             ORDER BY id
               FOR UPDATE
        ), closed AS (
            UPDATE checkout SET closed_at = now() FROM expired WHERE checkout.id = expired.id
        )
        SELECT id FROM stored
    """).format(payload=sql.SQL(payload), enqueue=sql.SQL(ENQUEUE))


_STORE = _statement("payload::jsonb")

# What an event says beyond its subject is never acted upon, so JSON that jsonb does not hold (NUL, lone
# surrogates, vast numbers) is kept as its bytes, and the event counts. Asking costs as much as the cast.
_STORE_ANY = _statement(
    f"CASE WHEN pg_input_is_valid(payload, 'jsonb') THEN payload::jsonb ELSE {_AS_BYTES} END"
)


def parse_event(text: str) -> Event:
    """Read an event whose origin is beyond doubt.

    Raises:
        NotAnEventError: it is not the JSON of an event.
    """
    try:
        envelope = _ENVELOPE.validate_python(_load(text))
    except (ValueError, ValidationError, RecursionError):
        raise NotAnEventError("Send a Stripe event as JSON.") from None
    obj = envelope.data.get("object")
    known = obj if isinstance(obj, dict) else {}
    expired = envelope.type == "checkout.session.expired"
    return Event(
        id=envelope.id,
        type=envelope.type,
        created=envelope.created,
        subject=subject_of(envelope.type, known),
        expired_session=_id(known.get("id"), _SESSION_ID) if expired else None,
        payload=text,
    )


async def store_events(conn: AsyncConnection[Any], events: Sequence[Event]) -> frozenset[str]:
    """Put `events` into the inbox and their subjects on the work queue; return the ids that were new.

    All or none of them, in one statement; in a transaction of the caller's, with it. An event that the inbox
    has enqueues again: a person who resends one wants something to happen. Nobody is woken:
    `queue.ring` does that once this is committed (docs/decisions/0006-doorbell.md).

    Raises:
        psycopg.Error: nothing was stored.
    """
    if not events:
        return frozenset()
    if conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
        # Nothing but this statement is lost by its failure.
        with suppress(errors.DataError):
            return await _store(conn, _STORE, events)
    return await _store(conn, _STORE_ANY, events)


async def _store(
    conn: AsyncConnection[Any], statement: sql.Composed, events: Sequence[Event]
) -> frozenset[str]:
    subjects = {event.subject for event in events if event.subject is not None}
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        statement,
        {
            "ids": [event.id for event in events],
            "types": [event.type for event in events],
            "created": [event.created for event in events],
            "subject_kinds": [event.subject and event.subject[0].value for event in events],
            "subject_keys": [event.subject and event.subject[1] for event in events],
            "payloads": [event.payload for event in events],
            "expired_sessions": [event.expired_session for event in events if event.expired_session],
            **enqueue_parameters(subjects),
        },
    )
    return frozenset(await cursor.fetchall())


def subject_of(event_type: str, obj: dict[str, Any]) -> Subject | None:
    """Return what an event about `obj` says to look at again, if anything.

    An invoice names its subscription under `parent.subscription_details` since API version 2025-03-31, at the
    top before (https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects).
    A refund and a dispute name their charge.
    """
    if event_type.startswith("customer.subscription."):
        return _subscription(obj.get("id"))
    if event_type.startswith("checkout.session."):
        return _subscription(obj.get("subscription"))
    if event_type.startswith("invoice."):
        parent = obj.get("parent")
        details = parent.get("subscription_details") if isinstance(parent, dict) else None
        named = details.get("subscription") if isinstance(details, dict) else None
        return _subscription(named or obj.get("subscription"))
    if event_type == "charge.refunded":
        return _charge(obj.get("id"))
    if event_type.startswith(("charge.dispute.", "charge.refund.", "refund.")):
        return _charge(obj.get("charge"))
    return None


def _subscription(value: object) -> Subject | None:
    found = _id(value, _SUBSCRIPTION_ID)
    return None if found is None else (Kind.SUBSCRIPTION, found)


def _charge(value: object) -> Subject | None:
    found = _id(value, _CHARGE_ID)
    return None if found is None else (Kind.CHARGE, found)


def _id(value: object, pattern: re.Pattern[str]) -> str | None:
    """Return the id in `value`, which is the id or, expanded, the object that has it."""
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, str) and pattern.fullmatch(found) else None


def _load(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # It refuses lone surrogates and numbers that no float holds, which are no reason to lose an event.
        return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
