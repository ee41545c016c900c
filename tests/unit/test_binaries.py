"""How the sandbox gets its programs: each way once, and every way it can go wrong in one sentence."""

import asyncio
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from sandbox.binaries import BINARIES, Binary, cache_directory, ensure, kwok_stages
from sandbox.processes import SandboxError
from sandbox.progress import StepHandle

_PROGRAM = """package main

import "fmt"

var version = "unknown"

func main() { fmt.Println("greeter", version) }
"""


class Steps:
    """Progress that remembers the titles."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.expected: list[float | None] = []

    @contextmanager
    def step(self, title: str, expected_seconds: float | None = None) -> Iterator[StepHandle]:
        self.titles.append(title)
        self.expected.append(expected_seconds)
        yield self

    def update(self, text: str) -> None:
        """Not of interest."""


@pytest.fixture
def greeter(tmp_path: Path) -> Binary:
    """A program of ours, in its own module."""
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "go.mod").write_text("module berth.local/greeter\n\ngo 1.26.0\n")
    (folder / "main.go").write_text(_PROGRAM)
    return Binary(
        name="greeter",
        version="v1.2.3",
        module=str(folder),
        package="berth.local/greeter",
        expected_seconds=7,
        ldflags=("-X main.version=v1.2.3",),
        version_args=(),
        own=True,
    )


def _programs(*binaries: Binary) -> Mapping[str, Binary]:
    return {binary.name: binary for binary in binaries}


def _output(program: Path) -> str:
    return subprocess.run([program], check=True, capture_output=True, text=True, timeout=10).stdout


def _script(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


async def test_builds_once_then_takes_it_from_the_cache(tmp_path: Path, greeter: Binary) -> None:
    steps = Steps()
    first = await ensure(["greeter"], steps, cache=tmp_path, binaries=_programs(greeter))
    again = await ensure(["greeter"], steps, cache=tmp_path, binaries=_programs(greeter))
    assert first == again
    assert _output(first["greeter"]) == "greeter v1.2.3\n"
    assert steps.titles == ["Build greeter v1.2.3 from source"]
    assert steps.expected == [7]


async def test_a_change_of_our_own_source_makes_a_new_program(tmp_path: Path, greeter: Binary) -> None:
    before = await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))
    (greeter.folder / "main.go").write_text(_PROGRAM.replace('"greeter"', '"changed"'))
    after = await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))
    assert _output(before["greeter"]).startswith("greeter")
    assert _output(after["greeter"]).startswith("changed")


async def test_asked_for_several_each_has_its_step_and_the_order_is_the_declared_one(
    tmp_path: Path, greeter: Binary
) -> None:
    second = greeter.folder / "second"
    second.mkdir()
    (second / "main.go").write_text(_PROGRAM)
    twin = replace(greeter, name="twin", package="berth.local/greeter/second", expected_seconds=1)
    steps = Steps()
    found = await ensure(["twin", "greeter"], steps, cache=tmp_path, binaries=_programs(greeter, twin))
    assert steps.titles == ["Build greeter v1.2.3 from source", "Build twin v1.2.3 from source"]
    assert steps.expected == [7, 1]
    assert list(found) == ["greeter", "twin"]


async def test_an_unknown_name_is_not_passed_over(tmp_path: Path, greeter: Binary) -> None:
    with pytest.raises(SandboxError, match="no such program: typo: choose of greeter"):
        await ensure(iter(["greeter", "typo"]), Steps(), cache=tmp_path, binaries=_programs(greeter))


async def test_two_runs_at_once_build_once(tmp_path: Path, greeter: Binary) -> None:
    runs = [Steps(), Steps()]
    found = await asyncio.gather(
        *(ensure(["greeter"], steps, cache=tmp_path, binaries=_programs(greeter)) for steps in runs)
    )
    assert found[0] == found[1]
    titles = [title for steps in runs for title in steps.titles]
    assert sorted(titles) == ["Build greeter v1.2.3 from source", "Wait for another run that is building"]


async def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path, greeter: Binary) -> None:
    left = tmp_path / "bin" / ".build-left"
    left.mkdir(parents=True)
    (left / "greeter").write_bytes(b"half")
    found = await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {".lock", found["greeter"].name}


async def test_go_settings_of_the_caller_change_nothing(
    tmp_path: Path, greeter: Binary, monkeypatch: pytest.MonkeyPatch
) -> None:
    surprise = '//go:build surprise\n\npackage main\n\nfunc init() { version = "surprise" }\n'
    (greeter.folder / "surprise.go").write_text(surprise)
    monkeypatch.setenv("GOFLAGS", "-tags=surprise")
    monkeypatch.setenv("GOOS", "windows")
    monkeypatch.setenv("GOWORK", str(tmp_path / "go.work"))
    found = await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))
    assert _output(found["greeter"]) == "greeter v1.2.3\n"


@pytest.mark.parametrize(
    ("printed", "taken"),
    [
        ("greeter version v1.2.3", True),
        ("greeter 1.2.3 (go1.26.8)", True),
        ("v1.2.3+gabc", True),
        ("greeter v1.2.30", False),
        ("greeter v11.2.3", False),
        ("greeter v1.2.3-rc.1", False),
        ("", False),
    ],
)
async def test_an_installed_program_is_taken_when_its_version_is_right(
    tmp_path: Path, greeter: Binary, monkeypatch: pytest.MonkeyPatch, printed: str, taken: bool
) -> None:
    installed = tmp_path / "tools" / "greeter"
    _script(installed, f"echo '{printed}'")
    monkeypatch.setenv("PATH", f"{installed.parent}:{os.environ['PATH']}")
    found = await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))
    assert (found["greeter"] == installed) is taken


async def test_what_does_not_compile_is_told_and_leaves_nothing(tmp_path: Path, greeter: Binary) -> None:
    (greeter.folder / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(SandboxError, match="undefined: nonsense"):
        await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))
    assert [path.name for path in (tmp_path / "bin").iterdir()] == [".lock"]


async def test_without_go_one_sentence_says_what_to_install(
    tmp_path: Path, greeter: Binary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"^Go is not installed: install Go 1\.26"):
        await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("write /tmp/x: no space left on device", "the disk is full: free 6 GB"),
        ("go: go.mod requires go >= 1.26.0 (running go 1.22.1)", "too old: install Go 1.26"),
        ("go.mod:3: invalid go version '1.26.0': must match format 1.23", "too old: install Go 1.26"),
        ("dial tcp: lookup example.org: no such host", "check the network"),
    ],
)
async def test_what_go_says_becomes_a_remedy(
    tmp_path: Path, greeter: Binary, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    _script(tmp_path / "tools" / "go", f'echo "{said}" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    with pytest.raises(SandboxError, match=re.escape(told)):
        await ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter))


async def test_a_stopped_build_leaves_no_process(
    tmp_path: Path, greeter: Binary, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    _script(tmp_path / "tools" / "go", f'sleep 600 & echo "$$ $!" >{told}; wait')
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    run = asyncio.create_task(ensure(["greeter"], Steps(), cache=tmp_path, binaries=_programs(greeter)))
    pids = [int(pid) for pid in (await asyncio.to_thread(told.read_text)).split()]
    assert len(pids) == 2
    running = [psutil.Process(pid) for pid in pids]
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    _, alive = psutil.wait_procs(running, timeout=5)
    assert alive == []


async def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, greeter: Binary) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match="BERTH_CACHE_DIR"):
        await ensure(["greeter"], Steps(), cache=tmp_path / "file", binaries=_programs(greeter))


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BERTH_CACHE_DIR", raising=False)
    assert cache_directory() == tmp_path / "berth"
    monkeypatch.setenv("BERTH_CACHE_DIR", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"


async def test_kwok_gets_its_own_stages(tmp_path: Path) -> None:
    stages = await kwok_stages(tmp_path)
    found = {document["metadata"]["name"] for document in yaml.safe_load_all(stages.read_text())}
    assert found == {
        "node-initialize",
        "node-heartbeat-with-lease",
        "pod-ready",
        "pod-complete",
        "pod-delete",
    }
    assert stat.S_IMODE(stages.stat().st_mode) == 0o644
    assert await kwok_stages(tmp_path) == stages


@pytest.mark.parametrize("binary", BINARIES.values(), ids=lambda binary: binary.name)
def test_every_program_resolves_from_its_committed_module(binary: Binary) -> None:
    go = shutil.which("go")
    assert go is not None
    run = subprocess.run(
        [go, "list", "-mod=readonly", "-deps", binary.package],
        cwd=binary.folder,
        env={**os.environ, "GOFLAGS": "", "GOWORK": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert binary.package in run.stdout.split()
