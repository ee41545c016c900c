"""berth customers: who they are, here and at Stripe, and whose e-mail address is verified."""

import asyncio
from difflib import get_close_matches
from typing import Annotated, LiteralString, NoReturn

import typer
from psycopg import AsyncConnection, errors
from rich.markup import escape

from scripts.berth.database import Row, connect
from scripts.berth.output import CommandError, JsonFlag, console, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="See customers, verify their addresses, link them to Stripe.")

_LIST: LiteralString = """
    SELECT id, email, name, email_verified_at, stripe_customer_id, created_at,
           (SELECT count(*) FROM instance i WHERE i.customer_id = c.id AND i.phase <> 'deleted') AS instances
      FROM customer c
     WHERE NOT %(unverified)s OR email_verified_at IS NULL
     ORDER BY created_at DESC, id
     LIMIT %(limit)s
"""

_VERIFY: LiteralString = """
    UPDATE customer SET email_verified_at = coalesce(email_verified_at, now())
     WHERE lower(email) = lower(%s)
    RETURNING id, email, email_verified_at
"""

# Who has subscribed as one customer of Stripe's does not become another: what they pay for would be lost.
_LINK: LiteralString = """
    UPDATE customer SET stripe_customer_id = coalesce(stripe_customer_id, %(stripe_id)s)
     WHERE lower(email) = lower(%(email)s)
    RETURNING id, email, stripe_customer_id
"""

_SIMILAR: LiteralString = "SELECT email FROM customer ORDER BY created_at DESC LIMIT 500"


@app.command("list", epilog="Example: berth customers list --unverified")
def list_(
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Only those whose address is not verified.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many rows.")] = 200,
    as_json: JsonFlag = False,
) -> None:
    """List customers, newest first."""
    rows = asyncio.run(_list(limit, unverified=unverified))
    if as_json:
        print_json(rows)
        return
    columns = {
        "CUSTOMER": lambda row: row["id"],
        "EMAIL": lambda row: row["email"],
        "NAME": lambda row: row["name"],
        "VERIFIED": lambda row: row["email_verified_at"],
        "INSTANCES": lambda row: row["instances"],
        "AT STRIPE": lambda row: row["stripe_customer_id"],
        "SINCE": lambda row: row["created_at"],
    }
    print_rows(rows, columns, empty="no customers")


@app.command(epilog="Example: berth customers verify ann@example.com")
def verify(
    email: Annotated[str, typer.Argument(help="The customer's address.")], as_json: JsonFlag = False
) -> None:
    """Note that an address is its customer's own, which a free plan asks for; again changes nothing."""
    row = asyncio.run(_verify(email))
    if as_json:
        print_json(row)
    else:
        since = f"{row['email_verified_at']:%Y-%m-%d %H:%M} UTC"
        console.print(f"{escape(row['email'])} ({row['id']}) is verified since {since}")


@app.command(epilog="Example: berth customers link ann@example.com cus_Nx…")
def link(
    email: Annotated[str, typer.Argument(help="The customer's address here.")],
    stripe_customer: Annotated[str, typer.Argument(help="Stripe's id of the customer, cus_…")],
    as_json: JsonFlag = False,
) -> None:
    """Say who a customer is at Stripe, if they were made there by hand; checkout does it by itself."""
    if not stripe_customer.startswith("cus_"):
        raise CommandError(f"{stripe_customer!r} is no customer of Stripe's", "its id begins with cus_")
    row = asyncio.run(_link(email, stripe_customer))
    if as_json:
        print_json(row)
    else:
        console.print(f"{escape(row['email'])} ({row['id']}) is {row['stripe_customer_id']} at Stripe")


async def _list(limit: int, *, unverified: bool) -> list[Row]:
    async with connect() as conn:
        return await (await conn.execute(_LIST, {"unverified": unverified, "limit": limit})).fetchall()


async def _verify(email: str) -> Row:
    async with connect() as conn:
        row = await (await conn.execute(_VERIFY, (email,))).fetchone()
        return row or await _unknown(conn, email)


async def _link(email: str, stripe_id: str) -> Row:
    try:
        async with connect() as conn:
            row = await (await conn.execute(_LINK, {"email": email, "stripe_id": stripe_id})).fetchone()
            row = row or await _unknown(conn, email)
    except errors.UniqueViolation as error:
        raise CommandError(
            f"{stripe_id} is another customer here", "see whose it is with: berth customers list"
        ) from error
    if row["stripe_customer_id"] != stripe_id:
        raise CommandError(
            f"{row['email']} is {row['stripe_customer_id']} at Stripe already",
            "let that one subscribe there, and cancel what the other has",
        )
    return row


async def _unknown(conn: AsyncConnection[Row], email: str) -> NoReturn:
    known = [found["email"] for found in await (await conn.execute(_SIMILAR)).fetchall()]
    near = get_close_matches(email, known, n=1)
    hint = f"did you mean {near[0]}? otherwise" if near else "see"
    raise CommandError(f"there is no customer with the address {email!r}", f"{hint} berth customers list")
