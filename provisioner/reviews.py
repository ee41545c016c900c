"""The handler of charges: money that went back, or is asked back, puts its subscription under review.

Nothing is suspended, deleted or changed by it, and nothing is deleted before a person has cleared the review.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from psycopg import AsyncConnection
from psycopg.rows import class_row

from catalogue.money import in_figures
from provisioner.clients.stripe import StripeCharge
from provisioner.contract.errors import TemporaryError
from provisioner.contract.queue import Kind, enqueue, hold
from provisioner.emails import Template, write_email
from provisioner.subscription_queries import find_customer
from provisioner.workqueue import Lease, WorkItem

Conn = AsyncConnection[Any]

# The money stays, and the customer's bank is content.
SETTLED = frozenset({"won", "warning_closed", "prevented"})
UNKNOWN_RETRY = timedelta(minutes=10)


class ChargeSource(Protocol):
    """Where charges are fetched from: Stripe."""

    async def fetch_charge(self, charge_id: str) -> StripeCharge:
        """The charge as it is now."""
        ...

    async def subscriptions_paid_by(self, payment_intent: str) -> frozenset[str]:
        """The subscriptions whose bills a payment was for."""
        ...


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a person should look; `key` names it for good, so that a review cleared stays cleared."""

    key: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Review:
    """A subscription under review."""

    subscription: str
    customer: str
    product: str
    plan: str
    status: str
    instance: str | None
    slug: str | None
    since: datetime
    reason: str


_IS_KNOWN = "SELECT 1 FROM subscription WHERE id = %s"

_WAS_RAISED = "SELECT 1 FROM outbox WHERE dedupe_key = %s"

_RAISE = """
    UPDATE subscription
       SET review_since = coalesce(review_since, now()),
           review_reason = concat_ws('; ', review_reason, %s::text)
     WHERE id = %s
"""

_NOTE = """
    INSERT INTO instance_event (instance_id, reason, message, is_internal)
    SELECT id, %s::text, %s::text, true FROM instance WHERE subscription_id = %s
"""

_OPEN = """
    SELECT s.id AS subscription, c.email AS customer, s.product, s.plan, s.status, i.id AS instance, i.slug,
           s.review_since AS since, s.review_reason AS reason
      FROM subscription s
      JOIN customer c ON c.id = s.customer_id
      LEFT JOIN instance i ON i.subscription_id = s.id
     WHERE s.review_since IS NOT NULL
     ORDER BY s.review_since, s.id
"""

_CLEAR = """
    UPDATE subscription SET review_since = NULL, review_reason = NULL
     WHERE id = %s AND review_since IS NOT NULL
"""


class ChargeHandler:
    """Handles Kind.CHARGE; the key is Stripe's id of the charge.

    Args:
        source: Stripe.
    """

    def __init__(self, source: ChargeSource) -> None:
        self._source = source

    async def handle(self, item: WorkItem, lease: Lease) -> datetime | None:
        """Open a review of each subscription that the charge paid for, if its money is not safely ours.

        Raises:
            TemporaryError: Stripe did not answer, or the subscription is not known here yet.
            PermanentError: Stripe has no such charge.
        """
        charge = await self._source.fetch_charge(item.key)
        found = list(causes(charge))
        if not found or charge.payment_intent is None:
            return None
        paid_for = await self._source.subscriptions_paid_by(charge.payment_intent)
        async with lease.transaction() as conn:
            late = [one for one in sorted(paid_for) if not await _review(conn, one, found)]
            ours = late and await find_customer(conn, charge.customer_id or "") is not None
            if ours and item.attempts == 0:
                await enqueue(conn, Kind.SUBSCRIPTION, *late)
        if ours:
            raise TemporaryError(
                f"charge {charge.id} paid for {', '.join(late)}, which is not known here yet", UNKNOWN_RETRY
            )
        return None


def causes(charge: StripeCharge) -> Iterator[Cause]:
    """Yield why a person should look at what a charge paid for: nothing while its money is safely ours."""
    what = f"charge {charge.id} ({in_figures(charge.amount, charge.currency)} {charge.currency})"
    if charge.refunded:
        yield Cause(f"{charge.id}:refunded", f"{what} was refunded in full")
    for dispute in charge.disputes:
        if dispute.status == "lost":
            yield Cause(f"{dispute.id}:lost", f"{what} was lost to a dispute ({dispute.reason})")
        elif dispute.status not in SETTLED:
            yield Cause(f"{dispute.id}:open", f"{what} is disputed ({dispute.reason}, {dispute.status})")


async def open_reviews(conn: Conn) -> list[Review]:
    """The subscriptions under review, the longest first."""
    async with conn.cursor(row_factory=class_row(Review)) as cursor:
        await cursor.execute(_OPEN)
        return await cursor.fetchall()


async def clear_review(conn: Conn, subscription_id: str, person: str, reason: str) -> bool:
    """End a review; False, and nothing written, when there is none.

    What was put off meanwhile is decided again at once.
    """
    await hold(conn, Kind.SUBSCRIPTION, subscription_id)
    if (await conn.execute(_CLEAR, (subscription_id,))).rowcount == 0:
        return False
    await conn.execute(_NOTE, ("ReviewCleared", f"by {person}: {reason}", subscription_id))
    await enqueue(conn, Kind.SUBSCRIPTION, subscription_id)
    return True


async def _review(conn: Conn, subscription_id: str, found: list[Cause]) -> bool:
    """Put a subscription under review for each cause that is new; False when it is not known here."""
    await hold(conn, Kind.SUBSCRIPTION, subscription_id)
    if (await conn.execute(_IS_KNOWN, (subscription_id,))).rowcount == 0:
        return False
    for cause in found:
        key = f"review:{subscription_id}:{cause.key}"
        if (await conn.execute(_WAS_RAISED, (key,))).rowcount:
            continue
        await conn.execute(_RAISE, (cause.sentence, subscription_id))
        await conn.execute(_NOTE, ("ReviewNeeded", cause.sentence, subscription_id))
        await write_email(conn, key, None, Template.OPERATOR_ALERT, _alert(subscription_id, cause))
        await enqueue(conn, Kind.SUBSCRIPTION, subscription_id)
    return True


def _alert(subscription_id: str, cause: Cause) -> dict[str, str]:
    return {
        "what": f"Look at subscription {subscription_id}",
        "sentence": f"{cause.sentence[0].upper()}{cause.sentence[1:]}. Nothing was changed, and nothing will"
        " be deleted before you have looked. Decide at Stripe whether the subscription goes on, then clear"
        " the review.",
        "commands": f'berth stripe reviews\nberth stripe reviews clear {subscription_id} --reason "…"',
    }
