"""What a cluster could leave on the machine, to compare before and after."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SYSCTLS = (
    *("kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys"),
    *("vm/overcommit_memory", "vm/panic_on_oom", "net/ipv4/ip_forward"),
)
_FOLDERS = ("/", "/etc", "/etc/cni", "/opt", "/run", "/usr/libexec", "/var/lib", "/var/log")


@dataclass(frozen=True)
class Machine:
    """The machine's state, without what other clusters and tests that run meanwhile put there."""

    mounts: frozenset[str]
    interfaces: frozenset[str]
    routes: frozenset[str]
    firewall: str
    cgroups: frozenset[str]
    sysctls: dict[str, str]
    files: frozenset[str]


def look(interface: str, cgroup: str) -> Machine:
    """The machine now; of interfaces and groups like a cluster's only the named ones count."""
    interfaces = {path.name for path in Path("/sys/class/net").iterdir() if _counts(path.name, interface)}
    groups = {str(path) for path in Path("/sys/fs/cgroup").glob("*/*") if _counts(path.name, cgroup)}
    return Machine(
        mounts=frozenset(Path("/proc/self/mounts").read_text().splitlines()),
        interfaces=frozenset(interfaces),
        routes=frozenset(line for line in _output("ip", "route") if "berth" not in line or interface in line),
        firewall="\n".join(line for line in _output("iptables-save") if not line.startswith("#")),
        cgroups=frozenset(groups),
        sysctls={name: Path("/proc/sys", name).read_text() for name in _SYSCTLS},
        files=frozenset(
            str(path) for folder in _FOLDERS if Path(folder).is_dir() for path in Path(folder).iterdir()
        ),
    )


def processes_naming(folder: Path) -> list[int]:
    """Every process whose command or environment names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) + b"/" in text:
            found.append(int(entry.name))
    return found


def _counts(name: str, own: str) -> bool:
    return name == own or not name.startswith("berth")


def _output(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.splitlines()
