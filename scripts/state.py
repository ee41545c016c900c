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


def from_environment_or_demo(name: str) -> str | None:
    """Return setting `name` from the environment (or its file), else from a running demo."""
    if file := os.environ.get(f"{name}_FILE"):
        return Path(file).read_text(encoding="utf-8").strip()
    return os.environ.get(name) or dotenv_values(environment_file()).get(name)
