"""Everything Berth needs, on one machine: Postgres, Kubernetes, the stand-ins, and Berth itself."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from migrations.runner import migrate
from sandbox import postgres
from sandbox.processes import SandboxError
from sandbox.progress import Progress
from scripts import machine
from scripts.demo.ports import remembered_ports
from scripts.demo.services import Outside, Services, write_private
from scripts.machine import Cluster
from scripts.state import CHECKOUT, state_root

NAME = "demo"


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack."""

    services: Services
    cluster: Cluster
    database_url: str

    def environment(self) -> Mapping[str, str]:
        """Return what a person needs to poke at it, as `demo.env` holds it."""
        return {
            "BERTH_API_URL": self.services.api_url,
            "BERTH_STRIPE_API_URL": self.services.stripe_url,
            "BERTH_STRIPE_API_KEY_FILE": str(self.services.folder / "secrets" / "stripe-key"),
            "BERTH_KUBECONFIG": str(self.cluster.kubeconfig),
            "BERTH_DATABASE_URL": self.database_url,
            "BERTH_WEBHOOK_SECRET_FILE": str(self.services.webhook_secret_file),
            "BERTH_APPS_URL": self.cluster.apps_url,
            "BERTH_MAILBOX_URL": self.services.mailbox_url,
        }


def folder() -> Path:
    """Return where the demo keeps its state."""
    return state_root() / NAME


async def up(progress: Progress) -> Stack:
    """Start everything that is not running yet; a half-finished earlier start is gone on with."""
    _check_state_is_writable()
    ports = remembered_ports(folder() / "ports.json")
    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(_cluster(progress))
        database = tasks.create_task(_database(ports.postgres, progress))
    cluster, database_url = starting.result(), database.result()
    outside = Outside(
        database_url,
        cluster.provisioner_kubeconfig,
        cluster.apps_url,
        cluster.ingress_class,
        cluster.storage_class,
    )
    services = Services(folder() / "services", ports, outside, {})
    with progress.step("Berth, the Stripe stand-in and the mailbox", 5):
        await services.start()
    stack = Stack(services, cluster, database_url)
    _write_environment(stack.environment())
    return stack


async def down(progress: Progress) -> None:
    """Stop everything and leave nothing behind but the caches."""
    if folder().exists():
        ports = remembered_ports(folder() / "ports.json")
        services = Services(folder() / "services", ports, Outside("", Path(), "", "", ""), {})
        with progress.step("stopping Berth and the stand-ins", 2):
            await services.stop()
        with progress.step("stopping Postgres", 1):
            await asyncio.to_thread(postgres.stop, folder() / "postgres")
    with progress.step("taking the cluster down", 10):
        await machine.stop_cluster(NAME)
    await asyncio.to_thread(shutil.rmtree, folder(), ignore_errors=True)
    if os.access(CHECKOUT, os.W_OK):
        await asyncio.to_thread(shutil.rmtree, CHECKOUT / ".berth", ignore_errors=True)


async def _cluster(progress: Progress) -> Cluster:
    return machine.existing_cluster() or await machine.start_cluster(NAME, progress)


async def _database(port: int, progress: Progress) -> str:
    with progress.step("Postgres and migrations", 4) as step:
        url = await asyncio.to_thread(postgres.start, folder() / "postgres", port)
        step.update(str(await asyncio.to_thread(migrate, url)))
        return url


def _check_state_is_writable() -> None:
    try:
        folder().mkdir(parents=True, exist_ok=True)
        probe = folder() / ".writable"
        probe.write_bytes(b"\0" * 65536)
        probe.unlink()
    except OSError as error:
        raise SandboxError(
            f"{folder()} cannot be written ({error.strerror}): make room there, or set BERTH_STATE_DIR"
        ) from error


def _write_environment(values: Mapping[str, str]) -> None:
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    write_private(folder() / "demo.env", text)
    beside = CHECKOUT / ".berth"
    if os.access(CHECKOUT, os.W_OK):
        beside.mkdir(exist_ok=True)
        write_private(beside / "demo.env", text)
