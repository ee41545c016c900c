import hashlib
import re
import secrets
from dataclasses import dataclass

from psycopg import errors

from platform_api import problems
from platform_api.customers import queries
from platform_api.customers.queries import Customer
from platform_api.database import Pool, connect, transaction
from platform_api.problems import Problem
from provisioner.contract.ids import new_id

_BEARER = re.compile(r"[Bb]earer +(berth_[A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class CustomerService:
    """Who customers are, and how we know."""

    pool: Pool

    async def sign_up(self, email: str, name: str) -> tuple[str, str]:
        """Return a new customer's id and API token; the token is kept nowhere.

        Raises:
            Problem: 409, the address is registered.
        """
        customer_id, token = new_id("cust"), f"berth_{secrets.token_urlsafe(32)}"
        try:
            async with transaction(self.pool) as conn:
                await queries.insert_customer(conn, customer_id, email, name)
                await queries.insert_token(conn, new_id("tok"), customer_id, _sha256(token))
        except errors.UniqueViolation:
            raise Problem(problems.EMAIL_TAKEN, "Use the token you have, or another address.") from None
        return customer_id, token

    async def authenticate(self, authorization: str) -> Customer:
        """Return the customer whom the Authorization header's value names.

        The token is 256 random bits and looked up by its SHA-256, so neither how long that takes nor a
        copy of the table helps to guess one.

        Raises:
            Problem: 401.
        """
        if (match := _BEARER.fullmatch(authorization)) is not None:
            async with connect(self.pool) as conn:
                customer = await queries.customer_of_token(conn, _sha256(match[1]))
            if customer is not None:
                return customer
        raise Problem(
            problems.UNAUTHENTICATED,
            "Send `Authorization: Bearer berth_…` with the token you were given when you signed up.",
            headers={"WWW-Authenticate": 'Bearer realm="berth"'},
        )


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
