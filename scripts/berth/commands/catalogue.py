"""berth catalogue: what is sold."""

from pathlib import Path
from typing import Annotated

import typer

from catalogue.loader import CatalogueError, load_catalogue
from catalogue.schema import json_schema
from scripts.berth.output import JsonFlag, console, errors, print_json

app = typer.Typer(no_args_is_help=True, help="Check what is sold.")


@app.command(epilog="Example: berth catalogue check catalogue/")
def check(
    folder: Annotated[
        Path | None, typer.Argument(help="The folder of product files; Berth's own if left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every product file, and report all errors of all files at once."""
    try:
        catalogue = load_catalogue(folder)
    except CatalogueError as error:
        if as_json:
            print_json({"ok": False, "errors": error.problems})
        else:
            errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if as_json:
        print_json({"ok": True, "products": sorted(catalogue.products)})
        return
    for product in catalogue.products.values():
        console.print(f"[green]✓[/] {product.product}: {', '.join(product.plans)}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a product file, for editors."""
    print_json(json_schema())
