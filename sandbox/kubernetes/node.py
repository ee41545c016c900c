"""The real node's ground: namespaces, control groups and the wire to the host, made and removed."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from sandbox.kubernetes import node_init
from sandbox.kubernetes.layout import Layout
from sandbox.processes import Daemon, SandboxError, run, until

_TOOLS = (
    *("conntrack", "containerd", "containerd-shim-runc-v2", "ctr", "hostname", "ip", "ipset", "iptables"),
    *("mount", "nsenter", "runc", "unshare"),
)
_CNI_PLUGINS = Path("/usr/lib/cni")
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_SECONDS = 30.0
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc")


async def why_no_pods(state_dir: Path) -> str | None:
    """Why this machine cannot run containers for a cluster in `state_dir`; None when it can.

    Tries what a node does, and undoes it: namespaces, control groups and an overlay file system.
    """
    reason = _what_is_missing()
    if reason is not None:
        return reason
    with TemporaryDirectory(prefix=".berth-probe-", dir=_existing_parent(state_dir)) as folder:
        for layer in ("lower", "upper", "work", "merged"):
            (Path(folder) / layer).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        overlay = ["mount", "-t", "overlay", "-o", options, "overlay", f"{folder}/merged"]
        try:
            await run([*_UNSHARE, *overlay])
        except SandboxError as error:
            return f"namespaces or overlay mounts are not allowed ({error})"
    return None


def _what_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=f"/usr/sbin:/sbin:{os.defpath}") is None]
    if missing or not (_CNI_PLUGINS / "bridge").exists():
        return f"not installed: {', '.join(missing) or 'containernetworking-plugins'}"
    if not Path("/proc/sys/net/bridge").exists():
        return "the kernel's br_netfilter is not loaded (modprobe br_netfilter)"
    if not _cgroups_writable():
        return f"control groups below {_CGROUPS} are not writable"
    return None


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.is_dir())


def _cgroups_writable() -> bool:
    probe = _hierarchies()[0] / f"berth-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def namespaces(layout: Layout) -> Daemon:
    """The process whose end is the end of everything in the node."""
    binaries = {path.parent for path in layout.config.binaries.values()}
    wanted = {
        "hostname": layout.node_name,
        "log_dir": str(layout.node_dir / "log"),
        "needed": [str(path) for path in sorted({layout.state_dir, *binaries})],
        "ready_file": str(_ready_file(layout)),
    }
    argv = [
        *(*_UNSHARE, "--propagation", "private", "--kill-child"),
        *(sys.executable, "-I", node_init.__file__, json.dumps(wanted)),
    ]
    return Daemon("node", argv, layout.daemons)


async def start(layout: Layout) -> None:
    """Make the node's namespaces, its control groups and the wire between it and the host.

    Raises:
        SandboxError: the machine refuses one of them.
    """
    _make_folders(layout)
    _make_cgroups(layout)
    node = namespaces(layout)
    node.start()

    async def mounted() -> bool:
        return _ready_file(layout).exists()

    await node.wait_ready(mounted, timeout_seconds=20)
    await _connect(layout, _first_process(layout))


def enter(layout: Layout) -> list[str]:
    """The command that runs another in the node's namespaces.

    Raises:
        SandboxError: the node is not running.
    """
    spaces = ("--mount", "--net", "--pid", "--uts", "--ipc")
    return ["nsenter", f"--target={_first_process(layout)}", *spaces, "--"]


async def remove(layout: Layout) -> None:
    """Remove what outlives the node's processes: the host's end of the wire, and control groups."""
    if (Path("/sys/class/net") / layout.interface).exists():
        await run(["ip", "link", "delete", layout.interface])
    await until(lambda: _cgroups_are_gone(layout), _CGROUP_SECONDS, f"control group {layout.cgroup}")


def _ready_file(layout: Layout) -> Path:
    return layout.daemons / "node.ready"


def _make_folders(layout: Layout) -> None:
    for name in ("containerd", "kubelet", "log", "volumes"):
        (layout.node_dir / name).mkdir(parents=True, exist_ok=True)
    layout.daemons.mkdir(exist_ok=True)


def _first_process(layout: Layout) -> int:
    """The host's id of the node's process 1."""
    outside = namespaces(layout).pid()
    try:
        children = [] if outside is None else psutil.Process(outside).children()
    except psutil.NoSuchProcess:
        children = []
    if not children:
        raise SandboxError("the node is not running: run `berth sandbox up`")
    return int(children[0].pid)


async def _connect(layout: Layout, node: int) -> None:
    wire = layout.wire.prefixlen
    here = ["ip", "link", "add", layout.interface, "type", "veth", "peer", "name", "eth0", "netns", str(node)]
    await run(here)
    await run(["ip", "address", "add", f"{layout.host_address}/{wire}", "dev", layout.interface])
    # The alias finds the cluster again when its record is lost.
    await run(["ip", "link", "set", layout.interface, "alias", str(layout.state_dir), "up"])
    there = ["nsenter", f"--target={node}", "--net", "--", "ip"]
    await run([*there, "link", "set", "lo", "up"])
    await run([*there, "address", "add", f"{layout.node_address}/{wire}", "dev", "eth0"])
    await run([*there, "link", "set", "eth0", "up"])
    # Nothing beyond the host answers, but programs pick their own address by the default route.
    await run([*there, "route", "add", "default", "via", layout.host_address])


def _hierarchies() -> list[Path]:
    """The root of each control group hierarchy: one in version 2, one per controller in version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return sorted({folder.resolve() for folder in _CGROUPS.iterdir() if (folder / "cgroup.procs").exists()})


def _make_cgroups(layout: Layout) -> None:
    for root in _hierarchies():
        group = root / layout.cgroup
        group.mkdir(exist_ok=True)
        controllers = root / "cgroup.subtree_control"
        if root == _CGROUPS:
            wanted = " ".join(f"+{name}" for name in (root / "cgroup.controllers").read_text().split())
            controllers.write_text(wanted)
            (group / "cgroup.subtree_control").write_text(wanted)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 starts a group with neither processors nor memory.
            if root != _CGROUPS and (root / setting).exists():
                (group / setting).write_text((root / setting).read_text())


def _cgroups_are_gone(layout: Layout) -> bool:
    """Remove the control groups; False while a process of one is still ending."""
    for root in _hierarchies():
        for folder, _, _ in os.walk(root / layout.cgroup, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
    return True
