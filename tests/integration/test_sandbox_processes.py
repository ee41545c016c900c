"""Daemons: found again after any accident, and never mistaken for somebody else's process."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from sandbox.processes import Daemon, SandboxError, kill_strays, run

SLEEP = ["sleep", "300"]


async def always() -> bool:
    return True


async def never() -> bool:
    return False


async def test_start_is_idempotent_and_stop_ends_it(tmp_path: Path) -> None:
    daemon = Daemon("sleeper", SLEEP, tmp_path)
    first = daemon.start()
    assert daemon.start() == first
    assert daemon.is_running()
    await daemon.stop()
    assert not daemon.is_running()
    assert not _lives(first)
    assert not daemon.pid_file.exists()


async def test_recycled_pid_of_a_stranger_is_neither_ours_nor_killed(tmp_path: Path) -> None:
    stranger = await asyncio.create_subprocess_exec(*SLEEP)
    daemon = Daemon("sleeper", SLEEP, tmp_path)
    os.kill(daemon.start(), signal.SIGKILL)
    identity = json.loads(daemon.pid_file.read_text())
    daemon.pid_file.write_text(
        json.dumps({**identity, "pid": stranger.pid, "started": identity["started"] - 10_000})
    )
    assert not daemon.is_running()
    await daemon.stop()
    await kill_strays(tmp_path)
    assert _lives(stranger.pid)
    stranger.kill()
    await stranger.wait()


async def test_pid_of_an_earlier_boot_is_not_ours(tmp_path: Path) -> None:
    daemon = Daemon("sleeper", SLEEP, tmp_path)
    pid = daemon.start()
    identity = json.loads(daemon.pid_file.read_text())
    daemon.pid_file.write_text(json.dumps({**identity, "boot": "another"}))
    assert not daemon.is_running()
    await daemon.stop()
    assert _lives(pid)
    assert await kill_strays(tmp_path) == 1


@pytest.mark.parametrize("leader", ["trap '' TERM", "trap 'exit 0' TERM"], ids=["stubborn", "obedient"])
async def test_stop_ends_children_that_ignore_it(tmp_path: Path, leader: str) -> None:
    ready = tmp_path / "ready"
    child = f"trap '' TERM; echo $BASHPID > {ready}.new; mv {ready}.new {ready}; sleep 300"
    daemon = Daemon("leader", ["bash", "-c", f"({child}) & {leader}; wait"], tmp_path)
    daemon.start()

    async def child_is_there() -> bool:
        return ready.exists()

    await daemon.wait_ready(child_is_there, timeout_seconds=10)
    await daemon.stop(grace_seconds=0.5)
    assert not _lives(int(ready.read_text()))


async def test_a_lost_pid_file_does_not_hide_a_process(tmp_path: Path) -> None:
    mine, others = Daemon("mine", SLEEP, tmp_path / "mine"), Daemon("other", SLEEP, tmp_path / "other")
    mine.start()
    others.start()
    mine.pid_file.unlink()
    assert not mine.is_running()
    assert await kill_strays(mine.folder) == 1
    assert others.is_running()
    assert await kill_strays(tmp_path) == 1


async def test_outlives_the_program_that_started_it_and_its_interrupt(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from sandbox.processes import Daemon;"
        f"Daemon('sleeper', {SLEEP!r}, Path({str(tmp_path)!r})).start();"
        "os.killpg(0, signal.SIGINT)"
    )
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, start_new_session=True, stderr=asyncio.subprocess.DEVNULL
    )
    await starter.wait()
    daemon = Daemon("sleeper", SLEEP, tmp_path)
    assert daemon.is_running()
    await daemon.stop()


async def test_an_early_end_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    daemon = Daemon("broken", ["sh", "-c", "echo no such port >&2; exit 3"], tmp_path)
    daemon.start()
    with pytest.raises(SandboxError, match="broken ended while starting: no such port"):
        await daemon.wait_ready(never, timeout_seconds=20)


async def test_lateness_is_told(tmp_path: Path) -> None:
    daemon = Daemon("slow", SLEEP, tmp_path)
    daemon.start()
    with pytest.raises(SandboxError, match="slow was not ready within 0 s"):
        await daemon.wait_ready(never, timeout_seconds=0.1)
    await daemon.wait_ready(always, timeout_seconds=0.1)
    await daemon.stop()


def test_a_missing_command_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no-such-program is missing: run `berth sandbox install`"):
        Daemon("none", ["no-such-program"], tmp_path).start()


def test_inherits_no_environment_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://example.invalid")
    daemon = Daemon("sleeper", SLEEP, tmp_path, environment={"COLOUR": "blue"})
    variables = Path(f"/proc/{daemon.start()}/environ").read_bytes().split(b"\0")
    assert b"COLOUR=blue" in variables
    assert not any(variable.startswith(b"HTTPS_PROXY") for variable in variables)
    asyncio.run(daemon.stop())


async def test_run_tells_what_a_command_said(tmp_path: Path) -> None:
    assert await run(["echo", "hello"]) == "hello\n"
    with pytest.raises(SandboxError, match=f"failed: .*{tmp_path.name}"):
        await run(["ls", tmp_path / "nothing"])
    with pytest.raises(SandboxError, match="took over 0 s"):
        await run(SLEEP, timeout_seconds=0.1)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
