"""berth: the operator's command line."""

import sys

import psycopg
import typer

from catalogue.loader import CatalogueError
from migrations.runner import MigrationError
from provisioner.contract.errors import PermanentError, TemporaryError
from provisioner.contract.settings import SettingsError
from sandbox.processes import SandboxError
from scripts.berth.commands import catalogue, customers, instances, queue, sandbox, stripe
from scripts.berth.commands.demo import demo
from scripts.berth.commands.migrate import migrate
from scripts.berth.output import CommandError, print_error

EPILOG = (
    "Examples: berth demo · berth instances list · berth queue list --state parked · berth migrate --check"
)
EXPECTED = (CatalogueError, MigrationError, PermanentError, SandboxError, SettingsError, TemporaryError)
INTERRUPTED = 130


def build_app() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(
        no_args_is_help=True,
        epilog=EPILOG,
        help="Berth sells an application as isolated, per-customer instances. Commands use the database"
        " and the Stripe account that the environment names, else a running demo's.",
        pretty_exceptions_enable=False,
    )
    app.command(epilog="Example: berth demo, then berth demo --stop")(demo)
    app.command(epilog="Example: BERTH_DATABASE_URL_FILE=/run/secrets/db berth migrate")(migrate)
    app.add_typer(instances.app, name="instances")
    app.add_typer(customers.app, name="customers")
    app.add_typer(queue.app, name="queue")
    app.add_typer(stripe.app, name="stripe")
    app.add_typer(catalogue.app, name="catalogue")
    app.add_typer(sandbox.app, name="sandbox")
    return app


def main() -> None:
    """Run the command line: an expected error is one sentence and a remedy, and exit code 1."""
    try:
        build_app()()
    except* CommandError as group:
        for error in _leaves(group):
            print_error(str(error), error.remedy if isinstance(error, CommandError) else None)
        sys.exit(1)
    except* EXPECTED as group:
        for error in _leaves(group):
            print_error(str(error))
        sys.exit(1)
    except* psycopg.Error as group:
        for error in _leaves(group):
            print_error(str(error).splitlines()[0], "is the schema up to date? see berth migrate --check")
        sys.exit(1)
    except* KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
