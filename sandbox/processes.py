"""Long-lived processes that outlast the program that started them, and that can always be found again."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

_MARKER = "BERTH_SANDBOX_DAEMON"
"""Environment variable naming the daemon's pid file: finds processes whose pid file was lost."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOG_TAIL_LINES = 5
_LOG_TAIL_BYTES = 16 * 1024
_POLL_SECONDS = 0.05
# A network namespace takes the kernel a while, a hundred of them half a minute.
_KILL_SECONDS = 120.0


class SandboxError(Exception):
    """Something a person must know or do: one sentence and the remedy."""


@dataclass(frozen=True)
class Daemon:
    """A process in its own session, with a log file and a pid file `<folder>/<name>.{log,pid}`.

    The pid file holds the process's start time too, so that a recycled pid is never taken for ours.

    Attributes:
        name: unique within `folder`.
        argv: the command; its first word is looked up on PATH when it is not a path.
        folder: where the log and the pid file live; created when missing.
        environment: added to a minimal environment (PATH, HOME, LANG): nothing else is inherited.
        working_directory: where the process runs; must exist.
    """

    name: str
    argv: Sequence[str | Path]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path = Path("/")

    @property
    def log_file(self) -> Path:
        """Where standard output and error go (appended)."""
        return self.folder / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Where the process's identity is kept while it runs."""
        return self.folder / f"{self.name}.pid"

    def pid(self) -> int | None:
        """The running process's id, or None; reaps it when it was our child and has ended."""
        identity = _read_identity(self.pid_file)
        return identity.pid if identity is not None and _alive(identity) else None

    def is_running(self) -> bool:
        """Whether the very process that was started is alive."""
        return self.pid() is not None

    def start(self) -> int:
        """Start the process unless it runs already, and return its id.

        Raises:
            SandboxError: the command is missing, or the folder cannot be written.
        """
        running = self.pid()
        if running is not None:
            return running
        command = shutil.which(str(self.argv[0]), path=_PATH)
        if command is None:
            raise SandboxError(f"{self.argv[0]} is missing: run `berth sandbox install`")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            pid = self._spawn(command)
            fields = _stat(pid)
            if fields is not None:
                _write_identity(self.pid_file, _identity(pid, fields))
        except OSError as error:
            raise SandboxError(
                f"cannot start {self.name}: {error}: make room or give another folder"
            ) from error
        return pid

    def _spawn(self, command: str) -> int:
        environment = {
            "PATH": _PATH,
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            **self.environment,
            _MARKER: str(self.pid_file),
        }
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        # env only changes the folder and becomes the command: posix_spawn cannot, and needs no fork handlers.
        return os.posix_spawnp(
            "env",
            ["env", f"--chdir={self.working_directory}", command, *map(str, self.argv[1:])],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log_file), log_flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD),
        )

    async def wait_ready(
        self,
        ready: Callable[[], Awaitable[bool]],
        timeout_seconds: float,
        interval_seconds: float = _POLL_SECONDS,
    ) -> None:
        """Wait until `ready()` is true.

        Raises:
            SandboxError: the process ended, or `timeout_seconds` passed; says what the log's end says.
        """
        deadline = time.monotonic() + timeout_seconds
        while not await ready():
            if not self.is_running():
                raise SandboxError(f"{self.name} ended while starting: {self.log_tail()}")
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"{self.name} was not ready within {timeout_seconds:.0f} s: {self.log_tail()}"
                )
            await asyncio.sleep(interval_seconds)

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """End the process and its process group: asked first, killed after `grace_seconds`.

        Raises:
            SandboxError: it could not be killed (a task stuck in the kernel).
        """
        identity = _read_identity(self.pid_file)
        if identity is not None and _alive(identity):
            await _end_group(identity, grace_seconds)
        self.pid_file.unlink(missing_ok=True)

    def log_tail(self) -> str:
        """The last lines of the log, for an error's text, and where the rest is."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(0, self.log_file.stat().st_size - _LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return " | ".join([*lines[-_LOG_TAIL_LINES:], f"see {self.log_file}"])


async def kill_strays(folder: Path) -> int:
    """Kill every process that a `Daemon` in or below `folder` started, pid file or not; returns how many.

    A process is recognised by an environment variable only `Daemon` sets, so none of a stranger is hit.

    Raises:
        SandboxError: one could not be killed (a task stuck in the kernel).
    """
    strays = list(_strays(folder))
    for identity in strays:
        _signal(identity.pid, signal.SIGKILL)
    await until(lambda: not any(map(_alive, strays)), _KILL_SECONDS, f"processes of {folder}")
    return len(strays)


@dataclass(frozen=True)
class _Identity:
    """A process for all time: its id, its start in clock ticks after boot, and which boot."""

    pid: int
    started: int
    boot: str


def _strays(folder: Path) -> Iterator[_Identity]:
    prefix = f"{_MARKER}=".encode()
    for pid in _all_pids():
        identity = _identify(pid)
        if identity is None or pid == os.getpid():
            continue
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            if not variable.startswith(prefix):
                continue
            pid_file = Path(os.fsdecode(variable.removeprefix(prefix)))
            if pid_file.is_relative_to(folder):
                yield identity


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """What proc(5) calls fields 3 and up of a process's stat, or None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _identify(pid: int) -> _Identity | None:
    """Who runs under `pid` now, or None for nobody or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else _identity(pid, fields)


def _identity(pid: int, fields: list[str]) -> _Identity:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _Identity(pid, started=int(fields[19]), boot=boot)


def _alive(identity: _Identity) -> bool:
    fields = _stat(identity.pid)
    if fields is None or _identity(identity.pid, fields) != identity:
        return False
    if fields[0] not in "ZX":
        return True
    with suppress(ChildProcessError):
        os.waitpid(identity.pid, os.WNOHANG)
    return False


def _read_identity(pid_file: Path) -> _Identity | None:
    try:
        content = json.loads(pid_file.read_text())
        return _Identity(int(content["pid"]), int(content["started"]), str(content["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_identity(pid_file: Path, identity: _Identity) -> None:
    whole = pid_file.with_suffix(".pid.new")
    whole.write_text(json.dumps(asdict(identity)))
    whole.replace(pid_file)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


async def _end_group(leader: _Identity, grace_seconds: float) -> None:
    group = leader.pid
    _signal_group(group, signal.SIGTERM)
    try:
        await until(lambda: not _alive(leader) and not _members(group), grace_seconds, f"process {group}")
    except SandboxError:
        _signal_group(group, signal.SIGKILL)
        await until(lambda: not _alive(leader) and not _members(group), _KILL_SECONDS, f"process {group}")


def _members(group: int) -> bool:
    """Whether a process group has a living member; zombies that nobody reaps do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    stats = (_stat(pid) for pid in _all_pids())
    return any(fields[0] not in "ZX" and int(fields[2]) == group for fields in stats if fields is not None)


async def until(done: Callable[[], bool], timeout_seconds: float, what: str) -> None:
    """Wait until `done()` is true of something that is ending.

    Raises:
        SandboxError: it was not within `timeout_seconds`; names `what`.
    """
    deadline = time.monotonic() + timeout_seconds
    while not done():
        if time.monotonic() > deadline:
            raise SandboxError(f"{what} did not end within {timeout_seconds:.0f} s: look at it with ps")
        await asyncio.sleep(_POLL_SECONDS)


async def run(argv: Sequence[str | Path], timeout_seconds: float = 30.0) -> str:
    """Run a short command to its end and return its standard output.

    Raises:
        SandboxError: it is missing, failed or took too long; says what it wrote to standard error.
    """
    words = list(map(str, argv))
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SandboxError(f"cannot run {words[0]}: {error}: run `berth sandbox install`") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        raise SandboxError(f"`{' '.join(words)}` took over {timeout_seconds:.0f} s: try again") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise SandboxError(f"`{' '.join(words)}` failed: {errors.decode(errors='replace').strip()}")
    return output.decode(errors="replace")
