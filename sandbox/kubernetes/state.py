"""What a cluster's folder says about it, who may change it, and what of the machine it may take."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from sandbox.kubernetes.layout import SLOTS, ClusterConfig, Layout, needed_binaries, preferred_slot
from sandbox.processes import SandboxError

_RECORD = "cluster.json"
_OURS = {_RECORD, f"{_RECORD}.new", "daemons", "etcd", "node", "pki", "settings", "volume-plugins"}
_LOCK_POLL_SECONDS = 0.2
_LOCK_SECONDS = 600.0
_FREE_BYTES = 1024**3


@dataclass(frozen=True)
class Record:
    """What is known of a cluster between runs.

    Attributes:
        slot: see `Layout`.
        simulated: see `ClusterConfig`.
        simulated_nodes: see `ClusterConfig`.
        binaries: where each program is.
        fingerprint: of all that a running cluster cannot take over; another one means another cluster.
        complete: whether `up` came to its end.
        images: each imported archive and its size and time of change, in nanoseconds.
    """

    slot: int
    simulated: bool
    simulated_nodes: int
    binaries: dict[str, str]
    fingerprint: str
    complete: bool
    images: dict[str, list[int]]

    @classmethod
    def begin(cls, layout: Layout) -> "Record":
        """The record of a cluster that is being made."""
        config = layout.config
        return cls(
            slot=layout.slot,
            simulated=config.simulated,
            simulated_nodes=config.simulated_nodes,
            binaries={name: str(path) for name, path in config.binaries.items()},
            fingerprint=fingerprint(config),
            complete=False,
            images=image_stamps(config),
        )


def load_record(state_dir: Path) -> Record | None:
    """The record, or None when there is none that can be read."""
    try:
        content = json.loads((state_dir / _RECORD).read_text())
        return Record(**content)
    except (OSError, ValueError, TypeError):
        return None


def save_record(state_dir: Path, record: Record) -> None:
    """Write the record whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    whole = state_dir / f"{_RECORD}.new"
    whole.write_text(json.dumps(asdict(record)))
    whole.replace(state_dir / _RECORD)


def fingerprint(config: ClusterConfig) -> str:
    """Changes whenever a running cluster would have to be made anew: its shape, programs, or our code."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for file in sorted([*package.glob("*.py"), *package.glob("manifests/*.yaml")]):
        digest.update(file.read_bytes())
    needed = needed_binaries(simulated=config.simulated, simulated_nodes=config.simulated_nodes)
    programs = {name: str(config.binaries.get(name)) for name in needed}
    shape = [config.simulated, config.simulated_nodes, programs]
    digest.update(json.dumps(shape, sort_keys=True).encode())
    return digest.hexdigest()


def image_stamps(config: ClusterConfig) -> dict[str, list[int]]:
    """For each image archive its size and time of change: tells a changed one from what was imported.

    Raises:
        OSError: an archive is not there.
    """
    found = {str(archive): archive.stat() for archive in config.images}
    return {archive: [status.st_size, status.st_mtime_ns] for archive, status in found.items()}


def new_layout(config: ClusterConfig) -> Layout:
    """Take a slot nobody else on the machine has: the name's own when it is free.

    Raises:
        SandboxError: every slot is taken.
    """
    first = preferred_slot(config.name)
    for slot in ((first + step) % SLOTS for step in range(SLOTS)):
        layout = Layout(config, slot)
        if _is_free(layout):
            return layout
    raise SandboxError("every slot for a cluster is taken: stop one with `berth sandbox down`")


def find_layout(config: ClusterConfig) -> Layout | None:
    """An existing cluster as it was made, whatever else `config` says of its shape.

    It is known by its record, or else by the interface that bears its folder's name; None when there is none.
    """
    record = load_record(config.state_dir)
    if record is not None:
        made = replace(
            config,
            binaries={name: Path(path) for name, path in record.binaries.items()},
            simulated=record.simulated,
            simulated_nodes=record.simulated_nodes,
        )
        return Layout(made, record.slot)
    for slot in range(SLOTS):
        layout = Layout(config, slot)
        alias = Path("/sys/class/net", layout.interface, "ifalias")
        if alias.exists() and alias.read_text().strip() == str(config.state_dir):
            return layout
    return None


def prepare_folder(state_dir: Path) -> None:
    """Make the folder, and see that there is room.

    Raises:
        SandboxError: the disk is nearly full.
        OSError: the folder cannot be made.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    free = shutil.disk_usage(state_dir).free
    if free < _FREE_BYTES:
        raise SandboxError(
            f"the disk of {state_dir} has {free // 1024**2} MiB left: free 1 GiB, or give another folder"
        )


def clear_folder(state_dir: Path) -> None:
    """Remove all that is in the folder.

    Raises:
        SandboxError: something in it is not a cluster's; nothing is removed then.
        OSError: something cannot be removed.
    """
    strange = sorted({path.name for path in state_dir.iterdir()} - _OURS)
    if strange:
        raise SandboxError(
            f"{state_dir} holds {strange[0]}, which is no cluster's: move it, or give another folder"
        )
    for path in state_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@asynccontextmanager
async def locked(state_dir: Path) -> AsyncIterator[None]:
    """Let one program at a time change the cluster; the kernel frees the lock of a killed one.

    Raises:
        SandboxError: another holds it for ten minutes.
        OSError: the folder cannot be made.
    """
    descriptor = await _lock(state_dir)
    try:
        yield
    finally:
        os.close(descriptor)


async def _lock(state_dir: Path) -> int:
    for _ in range(int(_LOCK_SECONDS / _LOCK_POLL_SECONDS)):
        descriptor = _open_folder(state_dir)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one before us may have removed the folder we have locked.
            if _is_same(descriptor, state_dir):
                return descriptor
        except BlockingIOError:
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        os.close(descriptor)
    raise SandboxError(
        f"another program has been changing {state_dir} for ten minutes: stop it and run again"
    )


def _open_folder(state_dir: Path) -> int:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    return os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_free(layout: Layout) -> bool:
    if not layout.config.simulated:
        addresses = [address.address for group in psutil.net_if_addrs().values() for address in group]
        if Path("/sys/class/net", layout.interface).exists() or layout.host_address in addresses:
            return False
    return all(_port_is_free(port) for port in layout.host_ports)


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
