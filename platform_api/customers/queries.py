from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from platform_api.database import Connection


@dataclass(frozen=True, slots=True)
class Customer:
    """A row of `customer`."""

    id: str
    email: str
    name: str
    stripe_customer_id: str | None
    created_at: datetime
    email_verified_at: datetime | None


async def insert_customer(conn: Connection, customer_id: str, email: str, name: str) -> None:
    """Add a customer.

    Raises:
        psycopg.errors.UniqueViolation: the address, whatever its case, belongs to another.
    """
    await conn.execute(
        "INSERT INTO customer (id, email, name) VALUES (%s, %s, %s)", (customer_id, email, name)
    )


async def insert_token(conn: Connection, token_id: str, customer_id: str, sha256: bytes) -> None:
    """Add an API token, of which only the hash is kept."""
    await conn.execute(
        "INSERT INTO api_token (id, customer_id, token_sha256) VALUES (%s, %s, %s)",
        (token_id, customer_id, sha256),
    )


async def customer_of_token(conn: Connection, sha256: bytes) -> Customer | None:
    """Return whose token hashes to `sha256`, unless it was revoked."""
    async with conn.cursor(row_factory=class_row(Customer)) as cursor:
        await cursor.execute(
            """
            SELECT c.id, c.email, c.name, c.stripe_customer_id, c.created_at, c.email_verified_at
              FROM api_token t JOIN customer c ON c.id = t.customer_id
             WHERE t.token_sha256 = %s AND t.revoked_at IS NULL
            """,
            (sha256,),
        )
        return await cursor.fetchone()
