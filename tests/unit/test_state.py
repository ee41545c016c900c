from pathlib import Path

import pytest

from scripts.state import environment_file, from_environment_or_demo


@pytest.fixture(autouse=True)
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A running demo's file, which names one secret by file and one setting by value."""
    monkeypatch.setenv("BERTH_STATE_DIR", str(tmp_path))
    (tmp_path / "key").write_text("sk_test_demo\n")
    environment_file().parent.mkdir()
    environment_file().write_text(f"BERTH_KEY_FILE={tmp_path / 'key'}\nBERTH_URL=http://demo\n")
    return tmp_path


def test_a_demos_secrets_are_read_from_the_files_it_names() -> None:
    assert from_environment_or_demo("BERTH_KEY") == "sk_test_demo"
    assert from_environment_or_demo("BERTH_URL") == "http://demo"
    assert from_environment_or_demo("BERTH_OTHER") is None


def test_the_environment_goes_first(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_KEY", "sk_test_own")
    assert from_environment_or_demo("BERTH_KEY") == "sk_test_own"
    (demo / "mine").write_text("http://mine")
    monkeypatch.setenv("BERTH_URL_FILE", str(demo / "mine"))
    assert from_environment_or_demo("BERTH_URL") == "http://mine"
