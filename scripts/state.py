"""Where the sandbox keeps its state, and how other commands find a running one."""

import os
from pathlib import Path

from dotenv import dotenv_values

CHECKOUT = Path(__file__).resolve().parents[1]


def state_root() -> Path:
    """Return the user's state folder for Berth: `BERTH_STATE_DIR`, else the XDG state folder."""
    if explicit := os.environ.get("BERTH_STATE_DIR"):
        return Path(explicit).expanduser().resolve()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().resolve() / "berth"


def environment_file() -> Path:
    """Return the file in which a running demo leaves what a person needs to poke at it."""
    return state_root() / "demo" / "demo.env"


def is_in_environment(name: str) -> bool:
    """Whether the environment itself has setting `name`, or names its file; a running demo does not count."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def from_environment_or_demo(name: str) -> str | None:
    """Return setting `name` from the environment (or the file it names), else so from a running demo."""
    for settings in (os.environ, dotenv_values(environment_file())):
        if file := settings.get(f"{name}_FILE"):
            return Path(file).read_text(encoding="utf-8").strip()
        if value := settings.get(name):
            return value
    return None
