"""What the sandbox needs of the distribution: Debian packages by name."""

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.processes import SandboxError
from sandbox.progress import Progress

_APT_SECONDS = 900.0
_KEPT_LINES = 4
_SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")
_PROGRAM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXPECTED_SECONDS = 40


@dataclass(frozen=True)
class Package:
    """A Debian package.

    Attributes:
        name: what apt calls it.
        provides: programs, or files by absolute path, that are there when it is installed.
    """

    name: str
    provides: tuple[str, ...]


PACKAGES: Sequence[Package] = (
    Package("containerd", ("containerd", "ctr", "containerd-shim-runc-v2")),
    Package("runc", ("runc",)),
    Package("containernetworking-plugins", ("/usr/lib/cni/bridge", "/usr/lib/cni/host-local")),
    Package("iptables", ("iptables", "iptables-save", "iptables-restore")),
    Package("ipset", ("ipset",)),
    Package("conntrack", ("conntrack",)),
    Package("busybox-static", ("busybox",)),
    Package("iproute2", ("ip",)),
    Package("util-linux", ("nsenter", "unshare", "mount")),
)
"""What running real containers takes."""


def missing_packages(packages: Sequence[Package] = PACKAGES) -> list[str]:
    """Names of the packages that are not there."""
    return [package.name for package in packages if not all(map(_present, package.provides))]


async def ensure_packages(progress: Progress, packages: Sequence[Package] = PACKAGES) -> None:
    """Install the packages that are missing; no service of theirs is started.

    Raises:
        SandboxError: they are missing and cannot be installed here; says which.
    """
    missing = missing_packages(packages)
    if not missing:
        return
    by_hand = f"install the Debian packages {' '.join(missing)}"
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        reason = "this is not Debian" if apt is None else "only root can install packages"
        raise SandboxError(f"programs are missing and {reason}: {by_hand}")
    with progress.step(f"Install {', '.join(missing)}", _EXPECTED_SECONDS) as step, _services_stay_off():
        install = [apt, "install", "--yes", "--no-install-recommends", *missing]
        step.update("installing")
        if await _run(install) is not None:
            # Package lists that are empty or old are the usual reason.
            step.update("reading the package lists")
            problem = await _run([apt, "update"]) or await _run(install)
            if problem is not None:
                raise SandboxError(f"apt-get failed ({problem}): {by_hand}")
    left = missing_packages(packages)
    if left:
        raise SandboxError(f"{', '.join(left)} did not bring what was expected: {by_hand}")


def _present(provided: str) -> bool:
    return Path(provided).exists() or shutil.which(provided, path=_PROGRAM_FOLDERS) is not None


@contextmanager
def _services_stay_off(policy: Path = _SERVICE_POLICY) -> Iterator[None]:
    """Tell Debian's package scripts to start no service (Debian policy 9.3.3: policy-rc.d answers 101)."""
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    try:
        policy.chmod(0o755)
        yield
    finally:
        policy.unlink()


async def _run(command: Sequence[str]) -> str | None:
    """The last lines of what a failed command said; None when it did its work."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_APT_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"no end after {_APT_SECONDS:.0f} s"
    finally:
        if process.returncode is None:
            # Not killed: dpkg must end what it is unpacking, else the system's package state is broken.
            process.terminate()
            await process.wait()
    lines = output.decode(errors="replace").strip().splitlines()[-_KEPT_LINES:]
    return None if process.returncode == 0 else " | ".join(lines)
