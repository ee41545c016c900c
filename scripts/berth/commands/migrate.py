"""berth migrate: bring the database's schema up to date."""

from typing import Annotated

import typer

from migrations.runner import migrate as apply_migrations
from scripts.berth.database import database_url
from scripts.berth.output import JsonFlag, console, print_json


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is missing; exit 1 if anything is.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Apply the migrations that the database named by BERTH_DATABASE_URL lacks."""
    result = apply_migrations(database_url(), check=check)
    if as_json:
        print_json(result)
    else:
        console.print(str(result))
    if result.pending:
        raise typer.Exit(1)
