"""berth stripe reviews: subscriptions whose money went back, or is asked back, for a person to look at."""

import asyncio
import getpass
from typing import Annotated

import typer

from provisioner import reviews as provisioner_reviews
from provisioner.reviews import Review
from scripts.berth.database import connect
from scripts.berth.output import CommandError, JsonFlag, console, print_json, print_rows

app = typer.Typer(invoke_without_command=True, help="See and clear subscriptions under review.")


@app.callback(epilog="Example: berth stripe reviews --json")
def list_(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the subscriptions under review after a dispute or a full refund, the longest first.

    They run on or end as Stripe says; nothing of them is deleted before the review is cleared.
    """
    if context.invoked_subcommand is not None:
        return
    rows = asyncio.run(_list())
    if as_json:
        print_json(rows)
        return
    columns = {
        "SUBSCRIPTION": lambda row: row.subscription,
        "CUSTOMER": lambda row: row.customer,
        "PRODUCT": lambda row: row.product,
        "PLAN": lambda row: row.plan,
        "STATUS": lambda row: row.status,
        "INSTANCE": lambda row: row.slug,
        "SINCE": lambda row: row.since,
        "REASON": lambda row: row.reason,
    }
    print_rows(rows, columns, empty="nothing is under review")


@app.command(epilog='Example: berth stripe reviews clear sub_1Nx… --reason "refunded as goodwill"')
def clear(
    subscription: Annotated[str, typer.Argument(help="The subscription's id, sub_…")],
    reason: Annotated[str, typer.Option(help="What you found, for the instance's timeline.")],
    as_json: JsonFlag = False,
) -> None:
    """End a review: what was put off meanwhile, such as a deletion, takes its course again."""
    person = getpass.getuser()
    asyncio.run(_clear(subscription, person, reason))
    if as_json:
        print_json({"subscription": subscription, "cleared_by": person, "reason": reason})
    else:
        console.print(f"{subscription} is under review no more")


async def _list() -> list[Review]:
    async with connect() as conn:
        return await provisioner_reviews.open_reviews(conn)


async def _clear(subscription: str, person: str, reason: str) -> None:
    async with connect() as conn:
        if not await provisioner_reviews.clear_review(conn, subscription, person, reason):
            raise CommandError(f"{subscription} is not under review", "see berth stripe reviews")
