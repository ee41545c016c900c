"""How the sandbox tells a person what it is doing; who draws it decides how it looks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class StepHandle(Protocol):
    """One running step."""

    def update(self, text: str) -> None:
        """Say what the step is doing now."""


class Progress(Protocol):
    """Receives the long steps as they begin and end; steps may run at once and from several threads."""

    def step(self, title: str, expected_seconds: float | None = None) -> AbstractContextManager[StepHandle]:
        """Announce a step that lasts as long as the block; `expected_seconds` None when nobody knows."""
        ...


class _SilentStep:
    def update(self, text: str) -> None:
        del text


class QuietProgress:
    """Shows nothing."""

    @contextmanager
    def step(self, title: str, expected_seconds: float | None = None) -> Iterator[StepHandle]:
        """Do nothing around the block."""
        del title, expected_seconds
        yield _SilentStep()
