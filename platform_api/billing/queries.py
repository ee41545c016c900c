from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row

from platform_api.billing.statuses import NOT_LIVE
from platform_api.customers.queries import Customer
from platform_api.database import Connection


@dataclass(frozen=True, slots=True)
class Checkout:
    """A row of `checkout` that is open. A free plan's has the subscription's id, also as its session's."""

    id: str
    customer_id: str
    product: str
    plan: str
    interval: str
    slug: str
    promo_code: str | None
    stripe_session_id: str | None
    url: str | None
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """A subscription as we know it; source is `stripe` or `free`."""

    id: str
    status: str
    source: str


@dataclass(frozen=True, slots=True)
class KeptInstance:
    """An instance that a new subscription of its customer brings back."""

    id: str
    slug: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """A row of `subscription`, and of the instance it pays for, if there is one."""

    id: str
    product: str
    plan: str
    interval: str | None
    status: str
    source: str
    quantity: int
    add_ons: Mapping[str, int]
    current_period_end: datetime | None
    cancel_at_period_end: bool
    trial_end: datetime | None
    past_due_since: datetime | None
    review_since: datetime | None
    instance_id: str | None
    slug: str | None
    phase: str | None
    delete_at: datetime | None


_OPEN: LiteralString = """
    SELECT id, customer_id, product, plan, interval, slug, promo_code, stripe_session_id, url, expires_at,
           created_at
      FROM checkout WHERE closed_at IS NULL AND
"""


async def lock_customer(conn: Connection, customer_id: str) -> None:
    """Make this customer's other checkouts wait until the transaction ends."""
    await conn.execute("SELECT FROM customer WHERE id = %s FOR NO KEY UPDATE", (customer_id,))


async def held_subscriptions(conn: Connection, customer_id: str, product: str) -> list[Held]:
    """Return what subscriptions to `product` we know of the customer, over or not."""
    async with conn.cursor(row_factory=class_row(Held)) as cursor:
        await cursor.execute(
            "SELECT id, status, source FROM subscription WHERE customer_id = %s AND product = %s ORDER BY id",
            (customer_id, product),
        )
        return await cursor.fetchall()


async def products_paid_for(conn: Connection, customer_id: str) -> dict[str, bool]:
    """Return the products the customer ever subscribed to at Stripe, as far as we know, and whether still."""
    cursor = await conn.execute(
        """
        SELECT product, bool_or(status <> ALL(%s)) FROM subscription
         WHERE customer_id = %s AND source = 'stripe' GROUP BY product
        """,
        (list(NOT_LIVE), customer_id),
    )
    return dict(await cursor.fetchall())


async def open_checkout(conn: Connection, customer_id: str, product: str) -> Checkout | None:
    """Return the customer's open checkout for `product`."""
    async with conn.cursor(row_factory=class_row(Checkout)) as cursor:
        await cursor.execute(
            _OPEN + "customer_id = %s AND product = %s ORDER BY created_at LIMIT 1", (customer_id, product)
        )
        return await cursor.fetchone()


async def slug_holder(conn: Connection, slug: str) -> Checkout | None:
    """Return the open checkout that holds `slug`."""
    async with conn.cursor(row_factory=class_row(Checkout)) as cursor:
        await cursor.execute(_OPEN + "slug = %s", (slug,))
        return await cursor.fetchone()


async def insert_checkout(conn: Connection, checkout: Checkout) -> bool:
    """Open `checkout`, which holds its slug from here on; False when another open one holds it."""
    cursor = await conn.execute(
        """
        INSERT INTO checkout (id, customer_id, product, plan, interval, slug, promo_code, stripe_session_id,
                              url, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (slug) WHERE closed_at IS NULL DO NOTHING
        """,
        (
            checkout.id,
            checkout.customer_id,
            checkout.product,
            checkout.plan,
            checkout.interval,
            checkout.slug,
            checkout.promo_code,
            checkout.stripe_session_id,
            checkout.url,
            checkout.expires_at,
        ),
    )
    return cursor.rowcount == 1


async def kept_instances(conn: Connection, customer_id: str, product: str) -> list[KeptInstance]:
    """Return the customer's instances of `product` whose deletion has not begun, the newest first."""
    async with conn.cursor(row_factory=class_row(KeptInstance)) as cursor:
        await cursor.execute(
            """
            SELECT id, slug FROM instance
             WHERE customer_id = %s AND product = %s AND phase NOT IN ('deleting', 'deleted')
               AND spec->>'desired' IS DISTINCT FROM 'deleted'
             ORDER BY created_at DESC, id
            """,
            (customer_id, product),
        )
        return await cursor.fetchall()


async def slug_of_subscription(conn: Connection, subscription_id: str) -> str | None:
    """Return the name of the instance that a subscription pays for, if it is there already."""
    cursor = await conn.execute(
        "SELECT slug FROM instance WHERE subscription_id = %s AND phase <> 'deleted'", (subscription_id,)
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def is_slug_in_use(conn: Connection, slug: str) -> bool:
    """Say whether an instance that is not deleted has `slug`."""
    cursor = await conn.execute("SELECT FROM instance WHERE slug = %s AND phase <> 'deleted'", (slug,))
    return await cursor.fetchone() is not None


async def record_session(conn: Connection, checkout_id: str, session_id: str, url: str) -> bool:
    """Note the Stripe session of a checkout; False when the checkout was closed meanwhile."""
    cursor = await conn.execute(
        "UPDATE checkout SET stripe_session_id = %s, url = %s WHERE id = %s AND closed_at IS NULL",
        (session_id, url, checkout_id),
    )
    return cursor.rowcount == 1


async def close_checkout(conn: Connection, checkout: Checkout) -> None:
    """Close a checkout, which frees its slug, unless it got a session since it was read: one can be paid."""
    await conn.execute(
        """
        UPDATE checkout SET closed_at = now()
         WHERE id = %s AND closed_at IS NULL AND stripe_session_id IS NOT DISTINCT FROM %s
        """,
        (checkout.id, checkout.stripe_session_id),
    )


async def record_stripe_customer(conn: Connection, customer: Customer, made: str) -> str:
    """Note who our customer is at Stripe, unless somebody did since they were read; return who they are."""
    cursor = await conn.execute(
        """
        UPDATE customer
           SET stripe_customer_id = CASE WHEN stripe_customer_id IS DISTINCT FROM %(read)s
                                         THEN stripe_customer_id ELSE %(made)s END
         WHERE id = %(id)s
        RETURNING stripe_customer_id
        """,
        {"read": customer.stripe_customer_id, "made": made, "id": customer.id},
    )
    ((known,),) = await cursor.fetchall()
    return str(known)


async def insert_free_subscription(
    conn: Connection, subscription_id: str, customer_id: str, product: str, plan: str
) -> None:
    """Add a subscription to a free plan.

    Raises:
        psycopg.errors.UniqueViolation: the customer has one to this product.
    """
    await conn.execute(
        "INSERT INTO subscription (id, customer_id, product, plan, status, source)"
        " VALUES (%s, %s, %s, %s, 'active', 'free')",
        (subscription_id, customer_id, product, plan),
    )


async def end_free_subscription(conn: Connection, subscription_id: str) -> bool:
    """End a subscription to a free plan, and the hold on its name; False when it was over already."""
    cursor = await conn.execute(
        "UPDATE subscription SET status = 'canceled', ended_at = now()"
        " WHERE id = %s AND source = 'free' AND status = 'active'",
        (subscription_id,),
    )
    await conn.execute(
        "UPDATE checkout SET closed_at = now() WHERE stripe_session_id = %s AND closed_at IS NULL",
        (subscription_id,),
    )
    return cursor.rowcount == 1


async def list_subscriptions(conn: Connection, customer_id: str) -> list[Subscription]:
    """Return for each product the customer's subscription that counts: a live one, else the last.

    Row-level security selects by customer as well.
    """
    async with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        await cursor.execute(
            """
            SELECT DISTINCT ON (s.product)
                   s.id, s.product, s.plan, s.interval, s.status, s.source, s.quantity, s.add_ons,
                   s.current_period_end, s.cancel_at_period_end, s.trial_end, s.past_due_since,
                   s.review_since, i.id AS instance_id, i.slug, i.phase, i.delete_at
              FROM subscription s LEFT JOIN instance i ON i.subscription_id = s.id
             WHERE s.customer_id = %(customer)s
             ORDER BY s.product, s.status = ANY(%(over)s), s.status <> ALL(%(over)s) AND s.source <> 'stripe',
                      s.ended_at DESC NULLS FIRST, s.current_period_end DESC NULLS LAST, s.id
            """,
            {"customer": customer_id, "over": list(NOT_LIVE)},
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class PortalLink:
    """A link from an e-mail: whose billing it opens, and whether it still does."""

    customer: Customer
    has_expired: bool


async def find_portal_link(conn: Connection, token_sha256: bytes) -> PortalLink | None:
    """Return the link whose token hashes to `token_sha256`."""
    cursor = await conn.execute(
        """
        SELECT c.id, c.email, c.name, c.stripe_customer_id, c.created_at, c.email_verified_at,
               l.expires_at <= now()
          FROM portal_link l JOIN customer c ON c.id = l.customer_id
         WHERE l.token_sha256 = %s
        """,
        (token_sha256,),
    )
    row = await cursor.fetchone()
    return None if row is None else PortalLink(Customer(*row[:6]), row[6])
