"""berth stripe: what Stripe says beside what Berth holds, and the events it sent."""

import asyncio
import base64
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from psycopg import AsyncConnection

from catalogue.loader import load_catalogue
from provisioner.catch_up import CatchUp, CaughtUp
from provisioner.clients.stripe import NotFoundError
from provisioner.contract.inbox import Event, NotAnEventError, parse_event, store_events
from provisioner.contract.queue import ring
from provisioner.sweep import Sweep, Swept
from scripts.berth import event_queries as queries
from scripts.berth.commands import reviews
from scripts.berth.commands.webhook import WEBHOOK_EXAMPLE, webhook
from scripts.berth.database import Row, connect, open_pool
from scripts.berth.output import (
    CommandError,
    JsonFlag,
    console,
    errors,
    print_fields,
    print_json,
    print_rows,
)
from scripts.berth.progress import RichProgress
from scripts.berth.stripe_account import stripe_client
from scripts.state import from_environment_or_demo

app = typer.Typer(
    no_args_is_help=True,
    help="Set up Stripe's webhook, compare with Stripe, replay its events, clear reviews.",
)
app.add_typer(reviews.app, name="reviews")
app.command(epilog=WEBHOOK_EXAMPLE)(webhook)

FAILED = ["failing", "parked"]
UNHANDLED = ["unhandled"]

EventId = Annotated[str, typer.Argument(help="An event's id, evt_…")]


@app.command(epilog="Example: berth stripe sync --json | jq '.differences[]'")
def sync(as_json: JsonFlag = False) -> None:
    """Take in missed events and compare every subscription with Stripe now, as is done each hour.

    What differs is enqueued. Nothing is changed at Stripe.
    """
    caught, swept = asyncio.run(_sync(RichProgress(errors if as_json else console)))
    if as_json:
        print_json(
            {
                "events_since": caught.since,
                "missed_events": caught.missed,
                "compared": swept.compared,
                "foreign": swept.foreign,
                "differences": swept.differences,
            }
        )
        return
    columns = {
        "SUBSCRIPTION": lambda row: row.subscription_id,
        "WHAT": lambda row: row.what,
        "HERE": lambda row: row.held,
        "AT STRIPE": lambda row: row.at_stripe,
    }
    print_rows(swept.differences, columns, empty="nothing differs")
    console.print(
        f"{swept.compared} subscriptions compared, {len(swept.enqueued)} enqueued;"
        f" {swept.foreign} of the account are not Berth's"
    )
    if caught.lost:
        console.print(f"Stripe lists no event from before {caught.since:%Y-%m-%d %H:%M} UTC any more")
    console.print(f"{len(caught.missed)} events had been missed since {caught.since:%Y-%m-%d %H:%M} UTC")


@app.command(epilog="Example: berth stripe events --failed --type customer.subscription.updated")
def events(
    failed: Annotated[
        bool, typer.Option("--failed", help="Only those whose subject is failing or parked.")
    ] = False,
    unhandled: Annotated[
        bool, typer.Option("--unhandled", help="Only those that ask for nothing Berth does.")
    ] = False,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, such as invoice.paid.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many rows.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List the events in the inbox, last received first, with how their subjects stand.

    An event's subject is what it makes Berth look at; the state is the subject's, which later events may
    share: done, waiting, running, failing, parked, or unhandled when there is none.
    """
    states = [*(FAILED if failed else ()), *(UNHANDLED if unhandled else ())] or None
    rows = asyncio.run(_events(states, type_, limit))
    if as_json:
        print_json(rows)
        return
    columns = {
        "EVENT": lambda row: row["id"],
        "TYPE": lambda row: row["type"],
        "CREATED": lambda row: row["created"],
        "RECEIVED": lambda row: row["received_at"],
        "SUBJECT": _subject,
        "STATE": lambda row: row["state"],
        "ERROR": lambda row: row["error"],
    }
    print_rows(rows, columns, empty="no such events")


@app.command(epilog="Example: berth stripe show evt_1Nx…")
def show(event: EventId, as_json: JsonFlag = False) -> None:
    """Show one event of the inbox, with all that Stripe said in it."""
    row = asyncio.run(_show(event))
    if as_json:
        print_json(row)
        return
    print_fields(
        [
            ("event", row["id"]),
            ("type", row["type"]),
            ("created", row["created"]),
            ("received", row["received_at"]),
            ("subject", _subject(row)),
            ("state", row["state"]),
            ("error", row["error"]),
        ]
    )
    console.print_json(data=row["payload"])


@app.command(epilog="Example: berth stripe replay evt_1Nx…")
def replay(event: EventId, as_json: JsonFlag = False) -> None:
    """Act upon an event as if it came again; one that the inbox lacks is fetched from Stripe."""
    found, fetched = asyncio.run(_replay(event))
    subject = f"{found.subject[0]} {found.subject[1]}" if found.subject else None
    if as_json:
        print_json({"event": found.id, "fetched": fetched, "subject": subject})
        return
    origin = "fetched from Stripe" if fetched else "in the inbox"
    outcome = f"{subject} is due now" if subject else f"nothing to look at again for {found.type}"
    console.print(f"{found.id} ({origin}): {outcome}")


async def _sync(progress: RichProgress) -> tuple[CaughtUp, Swept]:
    folder = from_environment_or_demo("BERTH_CATALOGUE_DIR")
    load = partial(load_catalogue, Path(folder) if folder else None)
    async with stripe_client() as stripe, open_pool() as pool:
        # First, so that it says what differed: missed events mend that within the second.
        with progress.step("comparing subscriptions") as step:
            swept = await Sweep(pool, stripe, load).run(lambda count: step.update(f"{count} compared"))
        with progress.step("reading Stripe's events") as step:
            caught = await CatchUp(pool, stripe).run(lambda count: step.update(f"{count} read"))
    return caught, swept


async def _events(states: list[str] | None, event_type: str | None, limit: int) -> list[Row]:
    async with connect() as conn:
        return await queries.list_events(conn, states=states, event_type=event_type, limit=limit)


async def _show(event_id: str) -> Row:
    async with connect() as conn:
        row = await queries.find_event(conn, event_id)
    if row is None:
        raise CommandError(
            f"the inbox has no event {event_id!r}",
            f"see berth stripe events, or fetch it from Stripe with: berth stripe replay {event_id}",
        )
    return row


async def _replay(event_id: str) -> tuple[Event, bool]:
    """The event, and whether it had to be fetched."""
    async with connect() as conn:
        row = await queries.find_event(conn, event_id)
        if row is not None:
            return await _store(conn, _text(row["payload"])), False
    text = await _fetch(event_id)
    async with connect() as conn:
        return await _store(conn, text), True


async def _fetch(event_id: str) -> str:
    try:
        async with stripe_client() as stripe:
            return await stripe.fetch_event(event_id)
    except NotFoundError as error:
        raise CommandError(
            f"neither the inbox nor Stripe has an event {event_id!r}",
            "check the id, and that BERTH_STRIPE_API_KEY is of its account and mode; Stripe keeps events for"
            " 30 days, after that run: berth stripe sync",
        ) from error


async def _store(conn: AsyncConnection[Any], text: str) -> Event:
    try:
        event = parse_event(text)
    except NotAnEventError as error:
        raise CommandError(
            "what Stripe answered is no event that Berth understands", "upgrade Berth"
        ) from error
    await store_events(conn, [event])
    if event.subject:
        await ring(conn, event.subject[0])
    return event


def _text(payload: dict[str, Any]) -> str:
    """The event's JSON: what jsonb does not hold is kept as its bytes."""
    raw = payload.get("berth_raw_base64")
    return json.dumps(payload) if raw is None else base64.b64decode(raw).decode()


def _subject(row: Row) -> str | None:
    return f"{row['subject_kind']} {row['subject_key']}" if row["subject_kind"] else None
