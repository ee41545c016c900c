"""The `go` command with an environment that gives the same build on every machine."""

import asyncio
import contextlib
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sandbox.processes import SandboxError

_BUILD_SECONDS = 3600.0
_DOWNLOAD_SECONDS = 1800.0
_ASK_SECONDS = 60.0
_KEPT_LINES = 6
_LONGEST_LINE_BYTES = 1024 * 1024

_SURPRISES = ("GOARCH", "GOEXPERIMENT", "GOOS", "GO111MODULE")
"""Variables of the caller that would change what is built."""

_COMPILED_PACKAGE = re.compile(r"[\w.~/-]+")
"""What `go build -v` prints for a package it has compiled: its import path, alone."""


@dataclass(frozen=True)
class GoCommand:
    """A Go toolchain.

    Attributes:
        path: the `go` program.
    """

    path: Path

    @classmethod
    def find(cls) -> "GoCommand":
        """The `go` on PATH.

        Raises:
            SandboxError: there is none.
        """
        path = shutil.which("go")
        if path is None:
            raise SandboxError("Go is not installed: install Go 1.26 or newer and put `go` on PATH")
        return cls(Path(path))

    async def download(self, module: Path) -> None:
        """Fetch every module that the module in folder `module` needs for a build.

        Raises:
            SandboxError: a download failed, the disk is full, or Go is too old.
        """
        await self._run(module, ["mod", "download"], _DOWNLOAD_SECONDS)

    async def build(
        self,
        module: Path,
        package: str,
        ldflags: Sequence[str],
        target: Path,
        compiled: Callable[[int], None],
    ) -> None:
        """Build a static program from the module in folder `module`.

        Args:
            module: holds go.mod and a complete go.sum; never written to.
            package: import path of its main package.
            ldflags: for the linker, beside those that leave out symbols.
            target: the file to write.
            compiled: told how many packages have been compiled so far.

        Raises:
            SandboxError: it does not compile, the disk is full, or Go is too old.
        """
        count = 0

        def read(line: str) -> None:
            nonlocal count
            if _COMPILED_PACKAGE.fullmatch(line):
                count += 1
                compiled(count)

        linker = " ".join(["-s", "-w", *ldflags])
        arguments = ["build", "-v", "-trimpath", "-ldflags", linker, "-o", str(target), package]
        await self._run(module, arguments, _BUILD_SECONDS, read)

    async def module_directory(self, module: Path, dependency: str) -> Path:
        """The folder with the source of module `dependency`, at the version folder `module` pins.

        Raises:
            SandboxError: it could not be downloaded, or Go is too old.
        """
        await self._run(module, ["mod", "download", dependency], _DOWNLOAD_SECONDS)
        answer = await self._run(module, ["list", "-m", "-f", "{{.Dir}}", dependency], _ASK_SECONDS)
        return Path(answer.strip())

    async def _run(
        self,
        folder: Path,
        arguments: Sequence[str],
        timeout_seconds: float,
        read: Callable[[str], None] = lambda _: None,
    ) -> str:
        """Run `go` in `folder`; `read` gets each line of its stderr, its stdout is returned."""
        what = f"go {' '.join(arguments[:2])} in {folder}"
        starting = asyncio.create_task(
            asyncio.create_subprocess_exec(
                self.path,
                *arguments,
                cwd=folder,
                env=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE_BYTES,
            )
        )
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Left to itself, asyncio would kill `go` alone and wait for the compilers that hold its pipes.
            await _end(await starting)
            raise
        try:
            async with asyncio.timeout(timeout_seconds):
                answer, problems = await _communicate(process, read)
                await process.wait()
        except TimeoutError as error:
            raise SandboxError(
                f"{what} took over {timeout_seconds:.0f} s: run it again, it goes on"
            ) from error
        finally:
            await _end(process)
        if process.returncode != 0:
            raise SandboxError(_explain(what, problems))
        return answer


async def _communicate(
    process: asyncio.subprocess.Process, read: Callable[[str], None]
) -> tuple[str, list[str]]:
    """All of stdout, and the last lines of stderr that are not just progress."""
    problems: deque[str] = deque(maxlen=_KEPT_LINES)

    async def watch(stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            read(line)
            if not _COMPILED_PACKAGE.fullmatch(line) and not line.startswith("go: downloading "):
                problems.append(line)

    if process.stdout is None or process.stderr is None:
        raise AssertionError("both are pipes")
    answer, _ = await asyncio.gather(process.stdout.read(), watch(process.stderr))
    return answer.decode(), list(problems)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill `go` and the compilers it started, when it still runs."""
    if process.returncode is not None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        go = psutil.Process(process.pid)
        for running in [go, *go.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                running.kill()
    await process.wait()


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _SURPRISES}
    return inherited | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}


def _explain(what: str, problems: Sequence[str]) -> str:
    text = " | ".join(problems)
    if "no space left on device" in text:
        return f"{what}: the disk is full: free 6 GB or move GOCACHE and BERTH_CACHE_DIR, then run again"
    if "requires go >=" in text or "invalid go version" in text:
        return f"{what}: this Go is too old: install Go 1.26 or newer and put `go` on PATH ({text})"
    return f"{what} failed: {text}: check the network and the disk, then run again"
