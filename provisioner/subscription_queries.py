"""The SQL of the subscription handler and of the resync, typed rows out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg.rows import args_row, class_row, scalar_row
from psycopg.types.json import Jsonb

from provisioner.contract.spec import SPEC, Desired, InstanceSpec, Phase

Conn = AsyncConnection[Any]

# What a subscription never comes back from.
OVER = ("canceled", "incomplete_expired")


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """What we hold of a subscription: Stripe's, as of the last fetch, or one to a free plan."""

    id: str
    source: str
    customer_id: str
    product: str
    plan: str
    quantity: int
    add_ons: Mapping[str, int]
    interval: str | None
    price_id: str | None
    status: str
    current_period_end: datetime | None
    cancel_at_period_end: bool
    trial_end: datetime | None
    past_due_since: datetime | None
    ended_at: datetime | None
    test_clock: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a subscription stands here before a pass, and the database's time.

    `row` is None when it is new; a verified customer's e-mail address is known to be theirs.
    """

    now: datetime
    row: SubscriptionRow | None
    under_review: bool
    is_verified: bool


@dataclass(frozen=True, slots=True)
class Checkout:
    """The checkout a subscription came from, if it is surely this customer's for this product."""

    id: str
    slug: str


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An instance that a new subscription of its owner takes over, and its subscription up to now."""

    instance_id: str
    subscription_id: str


@dataclass(frozen=True, slots=True)
class Instance:
    """The instance of a subscription, locked."""

    id: str
    subscription_id: str
    phase: Phase
    spec: InstanceSpec

    @property
    def is_ending(self) -> bool:
        """Whether its deletion has begun, which nothing takes back."""
        return self.phase in {Phase.DELETING, Phase.DELETED}


_CUSTOMER = "SELECT id FROM customer WHERE stripe_customer_id = %s"

_IS_KNOWN = """
    SELECT EXISTS (SELECT FROM customer WHERE stripe_customer_id = %(customer)s)
        OR EXISTS (SELECT FROM subscription WHERE id = %(id)s)
"""

_FIELDS = [field.name for field in fields(SubscriptionRow)]
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _FIELDS))

_STANDING = """
    SELECT now(), c.email_verified_at IS NOT NULL, s.review_since IS NOT NULL
      FROM (VALUES (%(id)s)) AS wanted (id)
      LEFT JOIN subscription s USING (id)
      LEFT JOIN customer c ON c.id = s.customer_id
"""

_ROW = sql.SQL("SELECT {} FROM subscription WHERE id = %s").format(_COLUMNS)

_SAVE = sql.SQL("""
    INSERT INTO subscription ({columns}) VALUES ({values})
    ON CONFLICT (id) DO UPDATE SET ({columns}, fetched_at) = ({new}, now())
""").format(
    columns=_COLUMNS,
    values=sql.SQL(", ").join(map(sql.Placeholder, _FIELDS)),
    new=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in _FIELDS),
)

# Whose instance might be taken over if Stripe says that they ended: we believe they did not.
_BELIEVED_LIVE = """
    SELECT s.id
      FROM instance i JOIN subscription s ON s.id = i.subscription_id
     WHERE i.customer_id = %(customer)s AND i.product = %(product)s AND i.phase NOT IN ('deleting', 'deleted')
       AND s.id <> %(id)s AND s.source = 'stripe' AND s.status <> ALL (%(over)s)
       AND NOT EXISTS (SELECT FROM instance WHERE subscription_id = %(id)s)
"""

# One that ended before this one was bought: later ones ran side by side, each with an instance of its own.
_PREDECESSOR = """
    SELECT i.id, s.id
      FROM instance i JOIN subscription s ON s.id = i.subscription_id
     WHERE i.customer_id = %(customer)s AND i.product = %(product)s AND i.phase NOT IN ('deleting', 'deleted')
       AND s.id <> %(id)s
       AND (s.source = 'free' OR s.id = ANY (%(ended)s)
            OR s.status = ANY (%(over)s) AND (s.ended_at <= %(begun)s) IS NOT FALSE)
     ORDER BY (i.slug = %(slug)s) DESC NULLS LAST, i.created_at DESC, i.id
     LIMIT 1
"""

_TAKE_OVER = "UPDATE instance SET subscription_id = %(subscription)s WHERE id = %(id)s"

_ACTIVE_FREE = """
    SELECT id FROM subscription
     WHERE customer_id = %s AND product = %s AND source = 'free' AND status = 'active'
"""

_END_FREE = "UPDATE subscription SET status = 'canceled', ended_at = now() WHERE id = ANY (%s)"

_CHECKOUT = """
    SELECT id, slug FROM checkout WHERE id = %(id)s AND customer_id = %(customer)s AND product = %(product)s
"""

_CLOSE_CHECKOUT = "UPDATE checkout SET closed_at = now() WHERE id = %s AND closed_at IS NULL"

_INSTANCE_ID = "SELECT id FROM instance WHERE subscription_id = %s"

_LOCK_INSTANCE = "SELECT id, subscription_id, phase, spec FROM instance WHERE id = %s FOR UPDATE"

# A name is taken by a live instance or by somebody else's open checkout.
_INSERT_INSTANCE = """
    INSERT INTO instance (id, customer_id, subscription_id, product, plan, slug, spec, paid_at)
    SELECT %(id)s, %(customer)s, %(subscription)s, %(product)s, %(plan)s, %(slug)s, %(spec)s, now()
     WHERE NOT EXISTS (SELECT FROM checkout
                        WHERE slug = %(slug)s AND closed_at IS NULL AND id IS DISTINCT FROM %(checkout)s)
    ON CONFLICT (slug) WHERE phase <> 'deleted' DO NOTHING
"""

# What runs again writes data that no backup from before holds.
_UPDATE_INSTANCE = """
    UPDATE instance
       SET plan = %(plan)s, spec = %(spec)s, generation = generation + 1,
           final_backup_at = CASE WHEN %(runs)s THEN NULL ELSE final_backup_at END,
           final_backup_note = CASE WHEN %(runs)s THEN NULL ELSE final_backup_note END
     WHERE id = %(id)s
    RETURNING generation
"""

_DELETE_AT = """
    UPDATE instance SET delete_at = %(at)s WHERE id = %(id)s AND delete_at IS DISTINCT FROM %(at)s
"""

_PAID = "UPDATE instance SET paid_at = now() WHERE id = %s AND paid_at IS NULL"

_EVENT = "INSERT INTO instance_event (instance_id, reason, message) VALUES (%s, %s, %s)"

_INSTANCE_IDS = "SELECT id FROM instance WHERE phase <> 'deleted' ORDER BY id"


async def find_customer(conn: Conn, stripe_customer_id: str) -> str | None:
    """Our id of Stripe's customer."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_CUSTOMER, (stripe_customer_id,))
    found: str | None = await cursor.fetchone()
    return found


async def is_known(conn: Conn, subscription_id: str, stripe_customer_id: str) -> bool:
    """Whether a subscription or its customer is one of ours."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_IS_KNOWN, {"id": subscription_id, "customer": stripe_customer_id})
    return bool(await cursor.fetchone())


async def load_standing(conn: Conn, subscription_id: str) -> Standing:
    """How a subscription stands here, known or not."""
    cursor = await conn.execute(_STANDING, {"id": subscription_id})
    ((now, is_verified, under_review),) = await cursor.fetchall()
    async with conn.cursor(row_factory=class_row(SubscriptionRow)) as rows:
        await rows.execute(_ROW, (subscription_id,))
        return Standing(now, await rows.fetchone(), under_review, is_verified)


async def save_subscription(conn: Conn, row: SubscriptionRow) -> None:
    """Write what Stripe said."""
    values = {name: getattr(row, name) for name in _FIELDS}
    await conn.execute(_SAVE, values | {"add_ons": Jsonb(dict(row.add_ons))})


async def believed_live(conn: Conn, row: SubscriptionRow) -> list[str]:
    """Other subscriptions, live as far as we know, whose instance one that has none yet might take over."""
    cursor = conn.cursor(row_factory=scalar_row)
    whose = {"id": row.id, "customer": row.customer_id, "product": row.product, "over": list(OVER)}
    await cursor.execute(_BELIEVED_LIVE, whose)
    return await cursor.fetchall()


async def find_predecessor(
    conn: Conn, row: SubscriptionRow, begun: datetime, ended: Collection[str], slug: str | None
) -> Predecessor | None:
    """The instance of the same customer and product that the subscription `row` takes over.

    Args:
        conn: the transaction.
        row: a subscription that has no instance.
        begun: when it was bought; what ended later ran beside it.
        ended: subscriptions of which Stripe said just now that they ended before.
        slug: of several instances the one of this name, else the youngest.
    """
    async with conn.cursor(row_factory=args_row(Predecessor)) as cursor:
        await cursor.execute(
            _PREDECESSOR,
            {
                "id": row.id,
                "customer": row.customer_id,
                "product": row.product,
                "begun": begun,
                "ended": list(ended),
                "slug": slug,
                "over": list(OVER),
            },
        )
        return await cursor.fetchone()


async def take_over(conn: Conn, instance_id: str, subscription_id: str) -> None:
    """Make the instance, locked, another subscription's."""
    await conn.execute(_TAKE_OVER, {"id": instance_id, "subscription": subscription_id})


async def active_free(conn: Conn, customer_id: str, product: str) -> list[str]:
    """The customer's subscription to a free plan of a product, if it runs."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_ACTIVE_FREE, (customer_id, product))
    return await cursor.fetchall()


async def end_free(conn: Conn, subscription_ids: Collection[str]) -> None:
    """End subscriptions to free plans."""
    await conn.execute(_END_FREE, (list(subscription_ids),))


async def find_checkout(conn: Conn, checkout_id: str, customer_id: str, product: str) -> Checkout | None:
    """The checkout of that id, unless it is somebody else's or for something else."""
    async with conn.cursor(row_factory=class_row(Checkout)) as cursor:
        await cursor.execute(_CHECKOUT, {"id": checkout_id, "customer": customer_id, "product": product})
        return await cursor.fetchone()


async def close_checkout(conn: Conn, checkout_id: str) -> None:
    """End a checkout: the slug it held is free, or an instance's."""
    await conn.execute(_CLOSE_CHECKOUT, (checkout_id,))


async def find_instance_id(conn: Conn, subscription_id: str) -> str | None:
    """The instance of a subscription."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_INSTANCE_ID, (subscription_id,))
    found: str | None = await cursor.fetchone()
    return found


async def lock_instance(conn: Conn, instance_id: str) -> Instance:
    """The instance, locked until the transaction ends; its work item must be held already."""
    cursor = await conn.execute(_LOCK_INSTANCE, (instance_id,))
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"instance {instance_id} vanished, though rows of this table are never deleted")
    return Instance(row[0], row[1], Phase(row[2]), SPEC.validate_python(row[3]))


async def insert_instance(
    conn: Conn, spec: InstanceSpec, subscription_id: str, checkout_id: str | None
) -> bool:
    """Create the instance, paid now; False, and nothing written, when its slug is taken."""
    arguments = {
        "id": spec.instance_id,
        "customer": spec.customer_id,
        "subscription": subscription_id,
        "product": spec.product,
        "plan": spec.plan,
        "slug": spec.slug,
        "spec": Jsonb(SPEC.dump_python(spec, mode="json")),
        "checkout": checkout_id,
    }
    return (await conn.execute(_INSERT_INSTANCE, arguments)).rowcount == 1


async def update_spec(conn: Conn, spec: InstanceSpec) -> int:
    """Write a spec that differs from the one before; returns its generation."""
    arguments = {
        "id": spec.instance_id,
        "plan": spec.plan,
        "spec": Jsonb(SPEC.dump_python(spec, mode="json")),
        "runs": spec.desired is Desired.RUNNING,
    }
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_UPDATE_INSTANCE, arguments)
    return int(await cursor.fetchone() or 0)


async def set_delete_at(conn: Conn, instance_id: str, at: datetime | None) -> None:
    """Note when the retention of an instance's data ends; None: it has not begun."""
    await conn.execute(_DELETE_AT, {"id": instance_id, "at": at})


async def mark_paid(conn: Conn, instance_id: str) -> None:
    """Note when it was paid for, the first time."""
    await conn.execute(_PAID, (instance_id,))


async def record_event(conn: Conn, instance_id: str, reason: str, message: str) -> None:
    """Add a line to the instance's timeline."""
    await conn.execute(_EVENT, (instance_id, reason, message))


async def instance_ids(conn: Conn) -> list[str]:
    """All instances that are not gone."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_INSTANCE_IDS)
    return await cursor.fetchall()
