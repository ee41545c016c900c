"""The programs the sandbox runs, and how each is had: cached, installed, released or built from source."""

import asyncio
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TextIO

from sandbox.gobuild import GoCommand
from sandbox.inventory import BINARIES, Binary
from sandbox.processes import SandboxError
from sandbox.progress import Progress, StepHandle
from sandbox.releases import ReleaseDownloads, ReleaseUnavailableError, https_client

__all__ = ["BINARIES", "KWOK_STAGES", "Binary", "cache_directory", "ensure", "install", "kwok_stages"]

_VERSION_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.5
_LOCK_ATTEMPTS = 7200
_SCRATCH = ".build-"

KWOK_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
"""Folders of kwok's own stages that make simulated nodes and pods ready at once."""


def cache_directory() -> Path:
    """Where programs and images are kept between runs: BERTH_CACHE_DIR, or `berth` in the user's cache."""
    chosen = os.environ.get("BERTH_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth"


async def ensure(
    names: Iterable[str],
    progress: Progress,
    *,
    cache: Path | None = None,
    binaries: Mapping[str, Binary] = BINARIES,
) -> Mapping[str, Path]:
    """Have each named program, by the cheapest way that works, and say where it is.

    A run that is stopped at any moment leaves nothing half-made, and the next one goes on from there.
    A second run at the same time waits for the first.

    Args:
        names: of `binaries`.
        progress: told of each download and build.
        cache: the folder to keep programs in; `cache_directory()` when None.
        binaries: what can be had.

    Raises:
        SandboxError: one cannot be had here; says what to do.
    """
    folder = (cache or cache_directory()) / "bin"
    asked = set(names)
    if unknown := asked - binaries.keys():
        raise SandboxError(f"no such program: {', '.join(sorted(unknown))}: choose of {', '.join(binaries)}")
    wanted = [binary for name, binary in binaries.items() if name in asked]
    with _clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        found = await _find(wanted, folder)
        if len(found) < len(wanted):
            async with _locked(folder, progress), https_client() as client:
                _remove_scratch(folder)
                found |= await _find(_without(wanted, found), folder)
                found |= await _download(_without(wanted, found), folder, ReleaseDownloads(client), progress)
                found |= await _build(_without(wanted, found), folder, progress)
    return {binary.name: found[binary.name] for binary in wanted}


async def kwok_stages(cache: Path | None = None) -> Path:
    """A file for kwok's --config: its own module's stages that make nodes and pods ready at once.

    Raises:
        SandboxError: the module cannot be downloaded, or Go is missing.
    """
    kwok = BINARIES["kwok"]
    folder = cache or cache_directory()
    stages = folder / f"kwok-stages-{kwok.version}.yaml"
    if stages.exists():
        return stages
    source = await GoCommand.find().module_directory(kwok.folder, "sigs.k8s.io/kwok")
    files = [
        file
        for stage in KWOK_STAGES
        for file in sorted((source / "kustomize" / "stage" / stage).glob("*.yaml"))
        if file.name != "kustomization.yaml"
    ]
    text = "---\n".join(file.read_text().rstrip() + "\n" for file in files)
    with _clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        install(text.encode(), stages, mode=0o644)
    return stages


def install(content: bytes, target: Path, mode: int) -> None:
    """Write `target` whole or not at all.

    Raises:
        OSError: it cannot be written; `target` is as it was.
    """
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _without(wanted: Sequence[Binary], found: Mapping[str, Path]) -> list[Binary]:
    return [binary for binary in wanted if binary.name not in found]


async def _find(wanted: Sequence[Binary], folder: Path) -> dict[str, Path]:
    """Those that are cached or installed."""
    found: dict[str, Path] = {}
    for binary in wanted:
        cached = folder / binary.file_name
        path = cached if cached.is_file() else await _installed(binary)
        if path is not None:
            found[binary.name] = path
    return found


async def _installed(binary: Binary) -> Path | None:
    path = None if binary.version_args is None else shutil.which(binary.name)
    if path is None or binary.version_args is None:
        return None
    output = await _output([path, *binary.version_args])
    number = re.escape(binary.version.removeprefix("v"))
    same = re.search(rf"(?<![\d.]){number}(?![\d.-])", output)
    return Path(path) if same else None


async def _output(command: Sequence[str]) -> str:
    """What a program prints within a few seconds; nothing when it cannot be run."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(_VERSION_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace")


async def _download(
    wanted: Sequence[Binary], folder: Path, downloads: ReleaseDownloads, progress: Progress
) -> dict[str, Path]:
    """Those whose official release can be reached."""
    found: dict[str, Path] = {}
    for binary in wanted:
        if binary.release is None:
            continue
        target = folder / binary.file_name
        with progress.step(f"Download {binary.name} {binary.version}") as step:
            try:
                content = await downloads.fetch(binary.release, binary.version)
            except ReleaseUnavailableError as error:
                step.update(f"{error}: building from source")
                break
            install(content, target, mode=0o755)
        found[binary.name] = target
    return found


async def _build(wanted: Sequence[Binary], folder: Path, progress: Progress) -> dict[str, Path]:
    """Build the rest one after the other; the modules of the next are downloaded meanwhile."""
    found: dict[str, Path] = {}
    if not wanted:
        return found
    go = GoCommand.find()
    modules = dict.fromkeys(binary.folder for binary in wanted)
    async with _downloading(go, modules) as downloaded:
        for binary in wanted:
            title = f"Build {binary.name} {binary.version} from source"
            with progress.step(title, binary.expected_seconds) as step:
                step.update("downloading Go modules")
                await downloaded[binary.folder]
                step.update("compiling")
                found[binary.name] = await _build_one(go, binary, folder, step)
    return found


@asynccontextmanager
async def _downloading(
    go: GoCommand, modules: Iterable[Path]
) -> AsyncIterator[Mapping[Path, asyncio.Task[None]]]:
    """Download modules one after the other in the background; each one's task ends with its download."""

    async def download(module: Path, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await earlier
        await go.download(module)

    tasks: dict[Path, asyncio.Task[None]] = {}
    earlier = None
    for module in modules:
        earlier = tasks[module] = asyncio.create_task(download(module, earlier))
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _build_one(go: GoCommand, binary: Binary, folder: Path, step: StepHandle) -> Path:
    target = folder / binary.file_name
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
        built = Path(scratch) / binary.name
        await go.build(
            binary.folder,
            binary.package,
            binary.ldflags,
            built,
            lambda count: step.update(f"{count} packages compiled"),
        )
        _settle(built, target)
    return target


def _settle(built: Path, target: Path) -> None:
    """Move a program to its place once the disk holds all of it."""
    with built.open("rb") as file:
        os.fsync(file.fileno())
    built.replace(target)


def _remove_scratch(folder: Path) -> None:
    """Remove what a killed run left; only under the lock."""
    for left in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


@asynccontextmanager
async def _locked(folder: Path, progress: Progress) -> AsyncIterator[None]:
    """Let one run at a time change `folder`; the kernel frees the lock of a killed one."""
    with (folder / ".lock").open("w") as lock:
        if not _try_lock(lock):
            with progress.step("Wait for another run that is building"):
                await _wait_for(lock)
        yield


async def _wait_for(lock: TextIO) -> None:
    for _ in range(_LOCK_ATTEMPTS):
        if _try_lock(lock):
            return
        await asyncio.sleep(_LOCK_POLL_SECONDS)
    raise SandboxError(f"another run has held {lock.name} for an hour: stop it and run again")


def _try_lock(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full: free 6 GB, or set BERTH_CACHE_DIR to a folder on another disk"
        else:
            remedy = f"{error}: set BERTH_CACHE_DIR to a folder you can write to"
        raise SandboxError(f"cannot keep programs in {folder}: {remedy}") from error
