"""berth sandbox: a Kubernetes cluster on this machine."""

import asyncio
from typing import Annotated

import typer

from sandbox import binaries
from sandbox.kubernetes import cluster
from sandbox.kubernetes.layout import ClusterConfig
from scripts import machine
from scripts.berth.output import CommandError, JsonFlag, console, errors, print_fields, print_json
from scripts.berth.progress import RichProgress

app = typer.Typer(no_args_is_help=True, help="Run a real Kubernetes cluster on this machine.")

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


async def _install() -> None:
    progress = RichProgress(console)
    simulated = await machine.why_simulated("sandbox") is not None
    await machine.prepare("install", progress, simulated=simulated, simulated_nodes=1)
    await binaries.ensure(["helm"], progress)
    await binaries.kwok_stages()
