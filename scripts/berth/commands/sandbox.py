"""berth sandbox: a Kubernetes cluster on this machine, and a stand-in for Stripe."""

import asyncio
from typing import Annotated

import typer

from sandbox import binaries
from sandbox.kubernetes import cluster
from sandbox.kubernetes.layout import ClusterConfig
from sandbox.loopback import PortError
from sandbox.stripe_api import standalone
from sandbox.stripe_api.app import Server
from sandbox.stripe_api.database import StateFileError
from sandbox.stripe_api.guide import Guide, guide
from scripts import machine
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

app = typer.Typer(
    no_args_is_help=True, help="Run a real Kubernetes cluster, or a stand-in for Stripe, on this machine."
)

Name = Annotated[str, typer.Option(help="The cluster's name; several can run side by side.")]


@app.command()
def install() -> None:
    """Install what the sandbox needs: Debian packages, programs (built once if need be), images."""
    asyncio.run(_install())


@app.command(epilog="Example: berth sandbox up && export KUBECONFIG=$(berth sandbox kubeconfig)")
def up(
    name: Name = "sandbox",
    simulated_nodes: Annotated[
        int, typer.Option(min=0, max=200, help="Add nodes whose pods only pretend.")
    ] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Start the cluster; does nothing when it is up."""
    progress = RichProgress(errors if as_json else console)
    found = asyncio.run(machine.start_cluster(name, progress, simulated_nodes=simulated_nodes))
    if as_json:
        print_json(found)
    else:
        console.print(f"up: export KUBECONFIG={found.kubeconfig}", soft_wrap=True)


@app.command()
def down(name: Name = "sandbox") -> None:
    """Stop the cluster and remove all of it."""
    asyncio.run(machine.stop_cluster(name))
    console.print(f"cluster {name} is gone")


@app.command()
def status(name: Name = "sandbox", as_json: JsonFlag = False) -> None:
    """Say whether the cluster and each of its parts run."""
    found = asyncio.run(cluster.status(ClusterConfig(name, machine.cluster_folder(name), {})))
    if as_json:
        print_json(found)
    else:
        print_fields(
            [
                ("state", found.state),
                ("problems", "; ".join(found.problems) or None),
                ("kubeconfig", found.info and found.info.kubeconfig),
                ("API server", found.info and found.info.api_url),
                ("ingress", found.info and found.info.ingress_url),
                ("pods", found.info and ("simulated" if found.info.simulated else "real")),
            ]
        )


@app.command()
def kubeconfig(name: Name = "sandbox") -> None:
    """Print the path of the cluster's admin kubeconfig."""
    path = machine.cluster_folder(name) / "pki" / "admin.kubeconfig"
    if not path.exists():
        raise CommandError(f"cluster {name} is not up", f"start it with: berth sandbox up --name {name}")
    console.print(str(path), soft_wrap=True)


STRIPE_EXAMPLES = (
    "Examples: berth sandbox stripe · berth sandbox stripe --port 0 --json ·"
    " berth sandbox stripe --state ~/stripe.sqlite"
)


@app.command(epilog=STRIPE_EXAMPLES)
def stripe(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where it listens; 0 for any free port.")
    ] = standalone.DEFAULT_PORT,
    state: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="SQLite file that outlasts restarts; without it nothing does."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where browsers reach its pages, if not where the API is called."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a stand-in for Stripe that the official clients can use, until Ctrl-C.

    It takes any key that begins with sk_test_, moves no money, and listens on the loopback interface only.
    """

    def announce(server: Server) -> None:
        found = guide(server.url)
        if as_json:
            print_json(found)
        else:
            _print_guide(found, state)

    try:
        asyncio.run(standalone.run(port, state or ":memory:", base_url, announce))
    except PortError as error:
        raise CommandError(str(error), "any free port does: berth sandbox stripe --port 0") from error
    except StateFileError as error:
        raise CommandError(str(error), "start with a new file: berth sandbox stripe --state FILE") from error
    if not as_json:
        console.print("stopped" if state else "stopped; nothing is kept")


def _print_guide(found: Guide, state: str | None) -> None:
    remembered = state or "in memory, gone with it (--state FILE keeps it)"
    print_fields([("Stripe stand-in", found.url), ("secret key", found.key), ("state", remembered)])
    parts = (
        ("client", found.clients),
        ("card", found.cards),
        ("control", found.controls),
        ("unlike Stripe", found.differences),
    )
    for heading, rows in parts:
        console.print()
        print_rows([*rows.items()], {heading: lambda row: row[0], "": lambda row: row[1]}, empty="")
    console.print("\nCtrl-C ends it", highlight=False)


async def _install() -> None:
    progress = RichProgress(console)
    simulated = await machine.why_simulated("sandbox") is not None
    await machine.prepare("install", progress, simulated=simulated, simulated_nodes=1)
    await binaries.ensure(["helm"], progress)
    await binaries.kwok_stages()
