"""Process 1 of the real node: makes its mounts, then waits for orphans until it is told to end.

Runs alone (`python -I node_init.py JSON`) in fresh mount, network, pid, uts and ipc namespaces, so it
imports nothing of ours. Everything it mounts goes with its namespace.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

# What the kubelet insists on. It would set the whole machine's; in the node these files stand in for them.
_KUBELET_SYSCTLS = {
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxbytes": 25_000_000,
    "kernel/keys/root_maxkeys": 1_000_000,
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
}
# These belong to the network namespace, hence to the node alone.
_NETWORK_SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
_SYSCTL = Path("/proc/sys")
_RUN = Path("/run")
_KEPT = _RUN / "berth-kept"


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def _bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _mount("--rbind", source, target)


def _private_folders(log_dir: Path, needed: list[Path]) -> None:
    """Give the node its own /run, /var/lib and /var/log; below /var/lib only `needed` is seen again."""
    _mount("--make-rshared", "/")
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", _RUN)
    (_RUN / "lock").mkdir()
    hidden = [path for path in needed if path.is_relative_to("/var/lib")]
    for number, path in enumerate(hidden):
        _bind(path, _KEPT / str(number))
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib")
    for number, path in enumerate(hidden):
        _bind(_KEPT / str(number), path)
    _bind(log_dir, Path("/var/log"))


def _own_sysfs() -> None:
    """Show this network namespace's interfaces in /sys, and the same control groups as before."""
    groups = _RUN / "berth-cgroup"
    _bind(Path("/sys/fs/cgroup"), groups)
    _mount("-t", "sysfs", "sysfs", "/sys")
    _mount("--rbind", groups, "/sys/fs/cgroup")


def _sysctls() -> None:
    for name, value in _KUBELET_SYSCTLS.items():
        stand_in = _RUN / "berth-sysctl" / name
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(f"{value}\n")
        if (_SYSCTL / name).exists():
            _mount("--bind", stand_in, _SYSCTL / name)
    for name in _NETWORK_SYSCTLS:
        (_SYSCTL / name).write_text("1\n")


def _reap_for_ever() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def main() -> None:
    """Set the node up as the one argument says, announce it, and stay."""
    wanted = json.loads(sys.argv[1])
    # Process 1 gets no signal it has not asked for; ending it ends everything in the node.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _private_folders(Path(wanted["log_dir"]), [Path(path) for path in wanted["needed"]])
    _own_sysfs()
    _sysctls()
    subprocess.run(["hostname", wanted["hostname"]], check=True)
    Path(wanted["ready_file"]).touch()
    with suppress(KeyboardInterrupt):
        _reap_for_ever()


if __name__ == "__main__":
    main()
