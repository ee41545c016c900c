"""Debian packages: asked for by name, once, and never a service started."""

import os
import subprocess
from pathlib import Path

import pytest

from sandbox import packages
from sandbox.packages import Package, ensure_packages, missing_packages
from sandbox.processes import SandboxError
from sandbox.progress import QuietProgress

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")


def _apt(folder: Path, body: str) -> Path:
    """An apt-get that notes its arguments; the file it notes them in."""
    called = folder / "called"
    script = folder / "apt-get"
    script.write_text(f'#!/bin/sh\necho "$@" >>{called}\n{body}\n')
    script.chmod(0o755)
    return called


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_a_package_is_missing_when_anything_of_it_is(tmp_path: Path) -> None:
    half = Package("half", ("sh", str(tmp_path / "none")))
    whole = Package("whole", ("sh", str(tmp_path)))
    assert missing_packages([half, whole]) == ["half"]


@needs_root
async def test_old_package_lists_are_read_again(tools: Path) -> None:
    wanted = Package("thing", (str(tools / "thing"),))
    called = _apt(
        tools, f"[ $1 = update ] && touch {tools}/lists; [ -e {tools}/lists ] && touch {tools}/thing"
    )
    await ensure_packages(QuietProgress(), [wanted])
    install = "install --yes --no-install-recommends thing"
    assert called.read_text().splitlines() == [install, "update", install]
    await ensure_packages(QuietProgress(), [wanted])
    assert len(called.read_text().splitlines()) == 3, "what is there is not asked for again"


@needs_root
async def test_a_failure_names_the_packages_and_the_reason(tools: Path) -> None:
    _apt(tools, "echo 'E: no such host'; exit 100")
    wanted = Package("thing", (str(tools / "thing"),))
    with pytest.raises(SandboxError, match=r"no such host.*install the Debian packages thing"):
        await ensure_packages(QuietProgress(), [wanted])


async def test_elsewhere_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="install the Debian packages thing"):
        await ensure_packages(QuietProgress(), [Package("thing", (str(tmp_path / "thing"),))])


def test_services_are_denied_only_meanwhile(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with packages._services_stay_off(policy):
        assert subprocess.run([policy, "containerd", "start"], check=False).returncode == 101
    assert not policy.exists()
    policy.write_text("somebody's own")
    with packages._services_stay_off(policy):
        assert policy.read_text() == "somebody's own"
    assert policy.read_text() == "somebody's own"
