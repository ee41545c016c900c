"""berth from anywhere, and what it says when the machine is not as it should be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.state import CHECKOUT

BERTH = Path(sys.executable).with_name("berth")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_works_from_any_folder(tmp_path: Path) -> None:
    done = run(BERTH, "catalogue", "check", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "ok": True,
        "products": ["mindroom", "paycraft", "synthstack", "voxflow"],
    }
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_help_and_groups_have_examples(tmp_path: Path) -> None:
    for words in (
        ["--help"],
        ["instances", "list", "--help"],
        ["queue", "retry", "--help"],
        ["demo", "--help"],
        ["sandbox", "stripe", "--help"],
    ):
        done = run(BERTH, *words, cwd=tmp_path)
        assert done.returncode == 0
        assert "Example" in done.stdout, words


@as_root
def test_works_from_a_read_only_checkout(tmp_path: Path, database_url: str) -> None:
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    inside: list[str | Path] = ["unshare", "--mount", "sh", "-euc", script, "sh", CHECKOUT, BERTH]
    settings = {"BERTH_DATABASE_URL": database_url, "BERTH_STATE_DIR": str(tmp_path / "state")}
    for words, expected in (
        (["migrate"], "applied"),
        (["catalogue", "check"], "mindroom"),
        (["instances", "list"], "no instances"),
        (["sandbox", "status"], "stopped"),
    ):
        done = run(*inside, *words, cwd=tmp_path, **settings)
        assert expected in done.stdout, done.stderr


def test_no_database_is_one_sentence_with_a_remedy(tmp_path: Path) -> None:
    done = run(BERTH, "instances", "list", cwd=tmp_path, BERTH_STATE_DIR=str(tmp_path / "state"))
    assert_sentence(done, "BERTH_DATABASE_URL", "berth demo")


def test_an_unreachable_database_is_one_sentence_with_a_remedy(tmp_path: Path) -> None:
    url = "postgresql://berth:secret-word@127.0.0.1:1/berth"
    done = run(BERTH, "queue", "list", cwd=tmp_path, BERTH_DATABASE_URL=url)
    assert_sentence(done, "cannot be reached", "BERTH_DATABASE_URL")
    assert "secret-word" not in done.stderr


def test_an_unknown_instance_names_the_nearest(tmp_path: Path, database_url: str) -> None:
    done = run(BERTH, "instances", "show", "acme", cwd=tmp_path, BERTH_DATABASE_URL=database_url)
    assert_sentence(done, "no instance 'acme'", "berth instances list")


def test_a_missing_tool_is_named_with_its_remedy(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("env", "sh", "setpriv"):
        (tools / tool).symlink_to(shutil.which(tool) or f"/usr/bin/{tool}")
    settings = {
        "PATH": str(tools),
        "BERTH_SIMULATED": "1",
        "BERTH_STATE_DIR": str(tmp_path / "state"),
        "BERTH_CACHE_DIR": str(tmp_path / "cache"),
        "BERTH_RELEASES": "off",
    }
    done = run(BERTH, "sandbox", "up", "--name", "nothing", cwd=tmp_path, **settings)
    assert_sentence(done, "Go")


@as_root
def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", state], check=True)
    try:
        done = run(BERTH, "demo", cwd=tmp_path, BERTH_STATE_DIR=str(state), BERTH_SIMULATED="1")
    finally:
        subprocess.run(["umount", state], check=True)
    assert_sentence(done, "make room", "BERTH_STATE_DIR")


def assert_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2
    for word in words:
        assert word in done.stderr
