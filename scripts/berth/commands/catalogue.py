"""berth catalogue: what is sold, here and at Stripe."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress

from catalogue.loader import CatalogueError, load_catalogue
from catalogue.problems import nearest
from catalogue.schema import Catalogue, Interval, Price, Product, json_schema
from scripts.berth.output import CommandError, JsonFlag, console, errors, print_json, print_rows
from scripts.berth.stripe_account import is_named_in_environment, official_client
from scripts.stripe_catalogue.account import Account
from scripts.stripe_catalogue.differences import Difference, differences
from scripts.stripe_catalogue.push import Told, UnsettledError
from scripts.stripe_catalogue.push import push as push_catalogue
from scripts.stripe_catalogue.quote import make_quote

app = typer.Typer(no_args_is_help=True, help="Check what is sold, and bring it to Stripe.")

SETTING = "BERTH_CATALOGUE_DIR"
Folder = Annotated[
    Path | None, typer.Argument(help="The folder of product files; Berth's own if left out.", envvar=SETTING)
]


@app.command(epilog="Example: berth catalogue check catalogue/ --offline")
def check(
    folder: Folder = None,
    at_stripe: Annotated[
        bool | None,
        typer.Option(
            "--stripe/--offline",
            help="Whether to compare with Stripe; by default if BERTH_STRIPE_API_KEY is set.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every product file, and say what differs from Stripe; exit 1 if anything is wrong or differs."""
    catalogue = _load(folder, as_json=as_json)
    compare = is_named_in_environment() if at_stripe is None else at_stripe
    found = asyncio.run(_differences(catalogue)) if compare else None
    if as_json:
        told = {} if found is None else {"differences": [_plain(one) for one in found]}
        print_json({"ok": not found, "products": sorted(catalogue.products), **told})
    else:
        for product in catalogue.products.values():
            console.print(f"[green]✓[/] {product.product}: {', '.join(product.plans)}")
        if found is not None:
            _print(found, empty="Stripe has all of it")
    if found:
        raise typer.Exit(1)


@app.command(epilog="Example: berth catalogue push --dry-run, then berth catalogue push")
def push(
    folder: Folder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    archive: Annotated[
        bool, typer.Option("--archive", help="Sell no more at Stripe what the catalogue names no more.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make Stripe's products, prices and portal what the catalogue says; safe to repeat and to interrupt.

    A price's amount is never edited: a new price takes its place, and who subscribed keeps the old one.
    Exit 1 if anything is left that a person must mend.
    """
    catalogue = _load(folder, as_json=as_json)
    if dry_run:
        done, left = asyncio.run(_plan(catalogue, archive=archive))
    else:
        done, left = asyncio.run(_push(catalogue, archive=archive, show=not as_json))
    if as_json:
        lists = {"changes": [_plain(one) for one in done], "left": [_plain(one) for one in left]}
        print_json({"dry_run": dry_run, **lists})
    else:
        _print(done, empty="Stripe has all of it" if not left else "there is nothing that push can mend")
        if dry_run and done:
            console.print("nothing was changed")
        if left:
            console.print("\n[bold]left for you[/]")
            _print(left, empty="")
    if left:
        raise typer.Exit(1)


@app.command(epilog="Example: berth catalogue quote mindroom enterprise '499.00 eur' --interval year")
def quote(
    product: Annotated[str, typer.Argument(help="The product.")],
    plan: Annotated[str, typer.Argument(help="A plan of it that is not free.")],
    amount: Annotated[str, typer.Argument(help="What was agreed upon: 499.00, or '499.00 eur'.")],
    interval: Annotated[Interval, typer.Option(help="How often it is paid.")] = "month",
    as_json: JsonFlag = False,
) -> None:
    """Make a price at Stripe that was agreed upon with one customer; subscribed to it, they have the plan.

    Checkout does not sell it: subscribe the customer to it at Stripe, as docs/stripe.md says.
    """
    folder = os.environ.get(SETTING)
    found, name = _find(load_catalogue(Path(folder) if folder else None), product, plan)
    price = _price(amount)
    price_id = asyncio.run(_quote(found, name, interval, price))
    if as_json:
        print_json({"price": price_id, "product": found.product, "plan": name, "interval": interval})
    else:
        console.print(
            f"{price_id} sells {found.product} {name} at {price.amount} {price.currency} a {interval}"
        )


@app.command()
def schema() -> None:
    """Print the JSON Schema of a product file, for editors."""
    print_json(json_schema())


def _load(folder: Path | None, *, as_json: bool) -> Catalogue:
    try:
        return load_catalogue(folder)
    except CatalogueError as error:
        if as_json:
            print_json({"ok": False, "errors": error.problems})
        else:
            errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _price(text: str) -> Price:
    amount, _, currency = text.partition(" ")
    try:
        return Price.model_validate({"lookup_key": "quote", "amount": amount, "currency": currency or "usd"})
    except ValueError as error:
        raise CommandError(
            f"{text!r} is no price", "write it with two decimal places, as 499.00 or '499.00 eur'"
        ) from error


def _find(catalogue: Catalogue, product: str, plan: str) -> tuple[Product, str]:
    found = catalogue.products.get(product)
    if found is None:
        raise CommandError(f"there is no product {product!r}", nearest(product, catalogue.products))
    name = found.plan_name(plan)
    if name is None:
        raise CommandError(f"{product} has no plan {plan!r}", nearest(plan, found.plans))
    if found.plans[name].free:
        raise CommandError(f"{product} {name} is free", "name a plan that is paid for")
    return found, name


async def _differences(catalogue: Catalogue) -> list[Difference]:
    async with official_client() as client:
        return differences(catalogue, await Account(client).read())


async def _plan(catalogue: Catalogue, *, archive: bool) -> tuple[list[Difference], list[Difference]]:
    async with official_client() as client:
        found = differences(catalogue, await Account(client).read(), archive=archive)
    return [one for one in found if one.change], [one for one in found if not one.change]


async def _push(
    catalogue: Catalogue, *, archive: bool, show: bool
) -> tuple[list[Difference], list[Difference]]:
    done: list[Difference] = []
    with _progress(show=show) as told:

        def note(difference: Difference) -> None:
            done.append(difference)
            told.done(difference)

        async with official_client() as client:
            try:
                left = await push_catalogue(
                    Account(client), catalogue, archive=archive, told=Told(told.plan, note)
                )
            except UnsettledError as error:
                raise CommandError(str(error), "look with: berth catalogue check --stripe") from error
    return done, left


async def _quote(product: Product, plan: str, interval: Interval, price: Price) -> str:
    async with official_client() as client:
        return await make_quote(Account(client), product, plan, interval, price)


@contextmanager
def _progress(*, show: bool) -> Iterator[Told]:
    """A bar on a terminal: the first push of a big catalogue makes hundreds of calls."""
    with Progress(console=console, transient=True, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task("reading Stripe", total=None)

        def plan(todo: Sequence[Difference]) -> None:
            bar.update(task, total=len(todo), completed=0)

        def done(difference: Difference) -> None:
            bar.update(task, advance=1, description=escape(difference.subject))

        yield Told(plan, done)


def _print(found: Sequence[Difference], *, empty: str) -> None:
    columns = {
        "WHAT": lambda one: one.subject,
        "DIFFERENCE": lambda one: one.what,
        "REMEDY": lambda one: one.remedy,
    }
    print_rows(found, columns, empty=empty)


def _plain(one: Difference) -> dict[str, str | bool]:
    return {
        "subject": one.subject,
        "what": one.what,
        "remedy": one.remedy,
        "push_mends_it": one.change is not None,
    }
