"""A cluster by hand: `python -m sandbox.kubernetes up|down|status --name X [--simulated]`."""

import argparse
import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from sandbox.binaries import cache_directory, ensure
from sandbox.images import IMAGE_BINARIES, build_images
from sandbox.kubernetes import cluster
from sandbox.kubernetes.layout import ClusterConfig, needed_binaries
from sandbox.processes import SandboxError
from sandbox.progress import QuietProgress


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.kubernetes")
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--name", required=True, help="which cluster; each has its own folder and addresses")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder of this cluster alone")
    parser.add_argument("--simulated", action="store_true", help="run no containers; needs no root")
    parser.add_argument("--simulated-nodes", type=int, default=0, help="how many pretending nodes")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> str:
    config = ClusterConfig(arguments.name, arguments.state_dir.absolute(), {})
    if arguments.action == "up":
        shape = {"simulated": arguments.simulated, "simulated_nodes": arguments.simulated_nodes}
        binaries = await ensure([*needed_binaries(**shape), *IMAGE_BINARIES], QuietProgress())
        archives = await build_images(cache_directory(), binaries) if not arguments.simulated else []
        wanted = replace(config, binaries=binaries, images=archives, **shape)
        return str(await cluster.up(wanted, QuietProgress()))
    if arguments.action == "down":
        await cluster.down(config)
        return f"{arguments.name} is gone"
    return str(await cluster.status(config))


def main() -> None:
    """Do what the arguments say; an error is one sentence and exit status 1."""
    try:
        sys.stdout.write(asyncio.run(_run(_arguments())) + "\n")
    except SandboxError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
