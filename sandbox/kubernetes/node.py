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

_TOOLS = ("mount", "nsenter", "unshare")
_CGROUPS = Path("/sys/fs/cgroup")
_POD_CONTROLLERS = {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"}
_BRIDGE_FILTER = "br_netfilter"
_CGROUP_SECONDS = 30.0
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc")


async def why_no_pods(state_dir: Path) -> str | None:
    """Why this machine cannot run containers for a cluster in `state_dir`; None when it can.

    Tries what a node does, and undoes it: namespaces, control groups and an overlay file system. Programs
    that can be installed (`sandbox.packages`) are not looked for.
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
        try:
            await _load_bridge_filter("--dry-run")
        except SandboxError as error:
            return f"the kernel cannot filter what passes a bridge ({error})"
    return None


async def _load_bridge_filter(*options: str) -> None:
    """Have the kernel show pods' traffic to the firewall; a module that is loaded for that stays loaded."""
    if not _filters_bridges():
        await run(["modprobe", *options, _BRIDGE_FILTER])


def _filters_bridges() -> bool:
    return Path("/proc/sys/net/bridge").exists()


def _what_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=f"/usr/sbin:/sbin:{os.defpath}") is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
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
    await _load_bridge_filter()
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
        if root == _CGROUPS:
            _share_controllers(root)
            _share_controllers(group)
        else:
            _share_processors(root, group)


def _share_controllers(group: Path) -> None:
    """Version 2: let the groups below have what a kubelet asks for."""
    available = _POD_CONTROLLERS & set((group / "cgroup.controllers").read_text().split())
    shared = group / "cgroup.subtree_control"
    lacking = sorted(available - set(shared.read_text().split()))
    if lacking:
        shared.write_text(" ".join(f"+{controller}" for controller in lacking))


def _share_processors(root: Path, group: Path) -> None:
    """Version 1: a new group has neither processors nor memory to run on."""
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if (root / setting).exists():
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
