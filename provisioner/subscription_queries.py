"""The SQL of the subscription handler and of the sweep, typed rows out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from provisioner.contract.spec import SPEC, InstanceSpec

Conn = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """What we hold of a subscription, as of the last fetch."""

    id: str
    customer_id: str
    product: str
    plan: str
    interval: str
    price_id: str
    status: str
    current_period_end: datetime
    cancel_at_period_end: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """Since when a subscription is in its status, and the database's clock."""

    status_since: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Checkout:
    """The checkout a subscription came from, if it is surely this customer's for this product."""

    id: str
    slug: str


@dataclass(frozen=True, slots=True)
class Instance:
    """The instance of a subscription, locked."""

    id: str
    spec: InstanceSpec
    paid_at: datetime | None


_CUSTOMER = "SELECT id FROM customer WHERE stripe_customer_id = %s"

_UPSERT = """
    INSERT INTO subscription AS s
           (id, customer_id, product, plan, interval, price_id, status, current_period_end,
            cancel_at_period_end)
    VALUES (%(id)s, %(customer_id)s, %(product)s, %(plan)s, %(interval)s, %(price_id)s, %(status)s,
            %(current_period_end)s, %(cancel_at_period_end)s)
    ON CONFLICT (id) DO UPDATE
       SET product = excluded.product, plan = excluded.plan, interval = excluded.interval,
           price_id = excluded.price_id, status = excluded.status,
           status_since = CASE WHEN s.status = excluded.status THEN s.status_since ELSE now() END,
           current_period_end = excluded.current_period_end,
           cancel_at_period_end = excluded.cancel_at_period_end, fetched_at = now()
     WHERE s.customer_id = excluded.customer_id
    RETURNING status_since, now()
"""

_CHECKOUT = """
    SELECT id, slug FROM checkout WHERE id = %(id)s AND customer_id = %(customer)s AND product = %(product)s
"""

_CLOSE_CHECKOUT = "UPDATE checkout SET closed_at = now() WHERE id = %s AND closed_at IS NULL"

_INSTANCE_ID = "SELECT id FROM instance WHERE subscription_id = %s"

_LOCK_INSTANCE = "SELECT id, spec, paid_at FROM instance WHERE id = %s FOR NO KEY UPDATE"

# A name is taken by a live instance or by somebody else's open checkout.
_INSERT_INSTANCE = """
    INSERT INTO instance (id, customer_id, subscription_id, product, plan, slug, spec, paid_at)
    SELECT %(id)s, %(customer)s, %(subscription)s, %(product)s, %(plan)s, %(slug)s, %(spec)s, now()
     WHERE NOT EXISTS (SELECT FROM checkout
                        WHERE slug = %(slug)s AND closed_at IS NULL AND id IS DISTINCT FROM %(checkout)s)
    ON CONFLICT (slug) WHERE phase <> 'deleted' DO NOTHING
"""

_UPDATE_INSTANCE = """
    UPDATE instance
       SET plan = %(plan)s, spec = %(spec)s, generation = generation + 1
     WHERE id = %(id)s
"""

_PAID = "UPDATE instance SET paid_at = now() WHERE id = %s AND paid_at IS NULL"

_EVENT = "INSERT INTO instance_event (instance_id, reason, message) VALUES (%s, %s, %s)"

_HELD = """
    SELECT id, customer_id, product, plan, interval, price_id, status, current_period_end,
           cancel_at_period_end
      FROM subscription
"""

_INSTANCE_IDS = "SELECT id FROM instance WHERE phase <> 'deleted' ORDER BY id"


async def find_customer(conn: Conn, stripe_customer_id: str) -> str | None:
    """Our id of Stripe's customer."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_CUSTOMER, (stripe_customer_id,))
    found: str | None = await cursor.fetchone()
    return found


async def save_subscription(conn: Conn, row: SubscriptionRow) -> Seen | None:
    """Write what Stripe said; None, and nothing written, when the subscription is another customer's."""
    async with conn.cursor(row_factory=class_row(Seen)) as cursor:
        await cursor.execute(_UPSERT, {name: getattr(row, name) for name in SubscriptionRow.__slots__})
        return await cursor.fetchone()


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
    return Instance(row[0], SPEC.validate_python(row[1]), row[2])


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


async def update_spec(conn: Conn, spec: InstanceSpec) -> None:
    """Write a spec that differs from the one before: a new generation."""
    arguments = {
        "id": spec.instance_id,
        "plan": spec.plan,
        "spec": Jsonb(SPEC.dump_python(spec, mode="json")),
    }
    await conn.execute(_UPDATE_INSTANCE, arguments)


async def mark_paid(conn: Conn, instance_id: str) -> None:
    """Note when it was paid for, the first time."""
    await conn.execute(_PAID, (instance_id,))


async def record_event(conn: Conn, instance_id: str, reason: str, message: str) -> None:
    """Add a line to the instance's timeline."""
    await conn.execute(_EVENT, (instance_id, reason, message))


async def held_subscriptions(conn: Conn) -> dict[str, SubscriptionRow]:
    """All subscriptions we know, by id."""
    async with conn.cursor(row_factory=class_row(SubscriptionRow)) as cursor:
        await cursor.execute(_HELD)
        return {row.id: row async for row in cursor}


async def instance_ids(conn: Conn) -> list[str]:
    """All instances that are not gone."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(_INSTANCE_IDS)
    return await cursor.fetchall()
