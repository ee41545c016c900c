from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row

from platform_api.database import Connection


@dataclass(frozen=True, slots=True)
class Checkout:
    """A row of `checkout` that is open."""

    id: str
    customer_id: str
    product: str
    plan: str
    interval: str
    slug: str
    stripe_session_id: str | None
    url: str | None
    expires_at: datetime
    created_at: datetime


_OPEN: LiteralString = """
    SELECT id, customer_id, product, plan, interval, slug, stripe_session_id, url, expires_at, created_at
      FROM checkout WHERE closed_at IS NULL AND
"""


async def lock_customer(conn: Connection, customer_id: str) -> None:
    """Make this customer's other checkouts wait until the transaction ends."""
    await conn.execute("SELECT FROM customer WHERE id = %s FOR NO KEY UPDATE", (customer_id,))


async def has_live_subscription(conn: Connection, customer_id: str, product: str) -> bool:
    """Say whether the customer subscribes to `product`; a status we do not know counts as live."""
    cursor = await conn.execute(
        """
        SELECT FROM subscription WHERE customer_id = %s AND product = %s
           AND status NOT IN ('canceled', 'incomplete', 'incomplete_expired') LIMIT 1
        """,
        (customer_id, product),
    )
    return await cursor.fetchone() is not None


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
        INSERT INTO checkout (id, customer_id, product, plan, interval, slug, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (slug) WHERE closed_at IS NULL DO NOTHING
        """,
        (
            checkout.id,
            checkout.customer_id,
            checkout.product,
            checkout.plan,
            checkout.interval,
            checkout.slug,
            checkout.expires_at,
        ),
    )
    return cursor.rowcount == 1


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


async def close_checkout(conn: Connection, checkout_id: str) -> None:
    """Close a checkout, which frees its slug."""
    await conn.execute(
        "UPDATE checkout SET closed_at = now() WHERE id = %s AND closed_at IS NULL", (checkout_id,)
    )


async def record_stripe_customer(conn: Connection, customer_id: str, stripe_customer_id: str) -> None:
    """Note who our customer is at Stripe."""
    await conn.execute(
        "UPDATE customer SET stripe_customer_id = %s WHERE id = %s AND stripe_customer_id IS NULL",
        (stripe_customer_id, customer_id),
    )
