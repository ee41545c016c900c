"""The embedded Postgres server: started again and again, killed, half made, in the way of others."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox import postgres
from sandbox.processes import SandboxError
from scripts.demo.ports import free_port

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder whose server was started once and stopped."""
    state = tmp_path_factory.mktemp("made")
    postgres.start(state, free_port(), durable=False)
    postgres.stop(state)
    yield state
    postgres.stop(state)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def state(made: Path) -> Iterator[Path]:
    """That folder, for a test that leaves it usable; its server is stopped afterwards."""
    yield made
    postgres.stop(made)


@pytest.fixture
def fresh() -> Iterator[Path]:
    """A private folder with nothing in it, and a long name: no socket's path may depend on it."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / ("a long name with spaces " * 4) / "postgres"
        yield state
        postgres.stop(state)


def ask(url: str, query: str) -> tuple[Any, ...] | None:
    with psycopg.connect(url, connect_timeout=10) as conn:
        return conn.execute(query.encode()).fetchone()


def kill(state: Path) -> None:
    pid = postgres.status(state).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_new_server_answers_at_its_url_and_only_there(fresh: Path, port: int) -> None:
    assert not postgres.status(fresh).running
    url = postgres.start(fresh, port)
    assert postgres.status(fresh).port == port
    assert ask(url, "SELECT current_user, current_database(), current_setting('fsync')") == (
        "berth",
        "berth",
        "on",
    )
    assert ask(url, "SHOW listen_addresses") == ("127.0.0.1",)
    assert f".s.PGSQL.{port}" not in Path("/proc/net/unix").read_text()
    assert ask(url, "SHOW max_connections") == ("200",)
    assert ask(url, "SHOW server_encoding") == ("UTF8",)
    assert postgres.start(fresh, port) == url
    postgres.stop(fresh)
    assert not postgres.status(fresh).running
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url, connect_timeout=5)


def test_starting_twice_is_starting_once(state: Path, port: int) -> None:
    url = postgres.start(state, port, durable=False)
    pid = postgres.status(state).pid
    assert postgres.start(state, port, durable=False) == url
    assert postgres.status(state).pid == pid


def test_several_programs_at_once_start_one_server(state: Path, port: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(lambda _: postgres.start(state, port, durable=False), range(4)))
    assert len(urls) == 1
    assert len(processes_of(state)) == 1


def processes_of(state: Path) -> list[int]:
    """The main processes that name the data folder on their command line."""
    wanted = os.fsencode(state / "data")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words:
                found.append(int(entry.name))
    return found


def test_another_port_or_durability_restarts_it_with_its_data(state: Path, port: int) -> None:
    url = postgres.start(state, port, durable=False)
    ask_nothing(url, "CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS number")
    assert ask(url, "SHOW fsync") == ("off",)
    url = postgres.start(state, port, durable=True)
    assert ask(url, "SELECT number, current_setting('fsync') FROM kept") == (1, "on")
    other = free_port()
    url = postgres.start(state, other)
    assert f":{other}/" in url
    assert ask(url, "SELECT number FROM kept") == (1,)


def ask_nothing(url: str, statement: str) -> None:
    with psycopg.connect(url, connect_timeout=10) as conn:
        conn.execute(statement.encode())


def test_the_password_is_asked_for_and_kept_private(state: Path, port: int) -> None:
    url = postgres.start(state, port, durable=False)
    file = state / "password"
    password = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(password) >= 32
    assert password in url
    for wrong in (url.replace(password, "wrong"), url.replace("berth:", "postgres:", 1)):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong, connect_timeout=5)
    pid = postgres.status(state).pid
    assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert password.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert password not in (state / "postgres.log").read_text()


def test_the_role_is_no_superuser_and_can_do_what_berth_needs(state: Path, port: int) -> None:
    url = postgres.start(state, port, durable=False)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as conn:
        row = conn.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'berth'"
        )
        assert row.fetchone() == (False, True, True)
        conn.execute("CREATE DATABASE made_by_berth")
        conn.execute("DROP DATABASE made_by_berth")
        conn.execute("CREATE ROLE made_by_berth")
        conn.execute("DROP ROLE made_by_berth")


@pytest.mark.skipif(not ROOT, reason="only root has rights to give up")
def test_it_runs_unprivileged_behind_private_folders(fresh: Path, port: int) -> None:
    fresh.parent.mkdir(parents=True)
    fresh.parent.parent.chmod(0o700)
    postgres.start(fresh, port, durable=False)
    pid = postgres.status(fresh).pid
    fields = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    nobody = pwd.getpwnam("nobody")
    assert fields["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert fields["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert fields["Groups"].split() == []
    assert int(fields["CapEff"], 16) in {0, 1 << 2}
    assert fields["NoNewPrivs"] == "1"


def test_a_killed_server_comes_back_with_what_was_committed(state: Path, port: int) -> None:
    url = postgres.start(state, port)
    with psycopg.connect(url, connect_timeout=10) as conn:
        conn.execute("CREATE TABLE committed AS SELECT 42 AS number")
        conn.commit()
        kill(state)
    assert postgres.start(state, port) == url
    assert ask(url, "SELECT number FROM committed") == (42,)


def test_a_recycled_pid_is_not_taken_for_the_server(state: Path, port: int) -> None:
    """After a reboot the pid in postmaster.pid may be anybody's: here, this test's."""
    postgres.start(state, port, durable=False)
    kill(state)
    pid_file = state / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    (state / "postgres.pid").unlink()
    assert not postgres.status(state).running
    url = postgres.start(state, port, durable=False)
    assert ask(url, "SELECT 1") == (1,)


def test_a_server_whose_pid_file_is_lost_is_found_again(state: Path, port: int) -> None:
    postgres.start(state, port, durable=False)
    pid = postgres.status(state).pid
    (state / "postgres.pid").unlink()
    assert postgres.status(state).pid == pid
    postgres.start(state, port, durable=False)
    assert postgres.status(state).pid == pid
    postgres.stop(state)
    assert processes_of(state) == []


def test_stopping_ends_even_sessions_that_stay_open(state: Path, port: int) -> None:
    url = postgres.start(state, port, durable=False)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as conn:
        conn.execute("SELECT 1")
        began = time.monotonic()
        postgres.stop(state)
        assert time.monotonic() - began < postgres._FAST_STOP_SECONDS, "it was asked to, not killed"
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
    assert processes_of(state) == []
    postgres.stop(state)


def test_stopping_what_never_was_does_nothing(tmp_path: Path) -> None:
    postgres.stop(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_half_made_data_folder_is_made_anew(fresh: Path, port: int) -> None:
    half = fresh / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (fresh / "password").write_text("of the attempt before")
    url = postgres.start(fresh, port, durable=False)
    assert ask(url, "SELECT 1") == (1,)
    assert not half.exists()


def test_a_port_in_use_is_named_and_the_next_run_goes_on(state: Path, port: int) -> None:
    with socket.socket() as taken:
        taken.bind((postgres.HOST, port))
        taken.listen()
        with pytest.raises(
            SandboxError, match=rf"port {port} on 127.0.0.1 is not free .*choose another port"
        ):
            postgres.start(state, port, durable=False)
    assert ask(postgres.start(state, port, durable=False), "SELECT 1") == (1,)


def test_a_lost_password_is_told_with_the_remedy(state: Path, port: int) -> None:
    kept = (state / "password").rename(state / "kept")
    try:
        with pytest.raises(SandboxError, match=r"password file .* is gone: .*move .* away"):
            postgres.start(state, port, durable=False)
    finally:
        kept.rename(state / "password")


def test_a_password_that_does_not_fit_is_told_at_once(state: Path, port: int) -> None:
    file = state / "password"
    password = file.read_text()
    file.write_text("wrong")
    try:
        with pytest.raises(SandboxError, match=r"does not fit the data .*move .* away"):
            postgres.start(state, port, durable=False)
    finally:
        file.write_text(password)


def test_data_of_another_version_is_refused(state: Path, port: int) -> None:
    file = state / "data" / "PG_VERSION"
    version = file.read_text()
    file.write_text("9\n")
    try:
        with pytest.raises(SandboxError, match=r"made by Postgres 9 .*move the folder away"):
            postgres.start(state, port, durable=False)
    finally:
        file.write_text(version)


def test_a_server_that_cannot_start_says_why(state: Path, port: int) -> None:
    control = state / "data" / "global" / "pg_control"
    content = control.read_bytes()
    control.write_bytes(b"")
    try:
        with pytest.raises(SandboxError, match=r"Postgres ended while starting: .*pg_control"):
            postgres.start(state, port, durable=False)
    finally:
        control.write_bytes(content)
    assert ask(postgres.start(state, port, durable=False), "SELECT 1") == (1,)


def test_a_file_in_the_folders_place_is_one_sentence(tmp_path: Path, port: int) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(SandboxError, match=r"cannot use .*state.*give another folder"):
        postgres.start(tmp_path / "state", port)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB: enough to begin a server, too little to finish it."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        not ROOT
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    postgres.stop(folder / "postgres")
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_room_is_the_remedy(small_disk: Path, port: int) -> None:
    state = small_disk / "postgres"
    with pytest.raises(SandboxError, match=r"the disk that holds .* is full: make room"):
        postgres.start(state, port, durable=False)
    subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
    assert ask(postgres.start(state, port, durable=False), "SELECT 1") == (1,)
    filler = small_disk / "filler"
    postgres.stop(state)
    room = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(room))
    with pytest.raises(SandboxError, match=r"the disk that holds .* is full: make room"):
        postgres.start(state, port, durable=False)
    filler.unlink()
    assert ask(postgres.start(state, port, durable=False), "SELECT 1") == (1,)
