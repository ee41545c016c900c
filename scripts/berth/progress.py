"""The sandbox's long steps as a person sees them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar


class _ExpectationColumn(ProgressColumn):
    """A bar of the elapsed against the expected time; it waits at nine tenths for a step that is late."""

    def render(self, task: Task) -> ProgressBar:
        expected = task.fields["expected"]
        done = 0.0 if expected is None else min((task.elapsed or 0.0) / expected, 0.9)
        return ProgressBar(total=1.0, completed=done, width=20, pulse=expected is None)


class StepLine:
    """The line of one running step."""

    def __init__(self, progress: Progress, task: TaskID, title: str) -> None:
        self._progress = progress
        self._task = task
        self._title = title

    def update(self, text: str) -> None:
        """Say what the step is doing now."""
        self._progress.update(self._task, description=escape(f"{self._title}: {text}"))


class RichProgress:
    """Shows each running step against its expected time, and a line for each that is done.

    Steps may run at once and from several threads. Without a terminal only the lines are printed.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._running = 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            _ExpectationColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[hint]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    @contextmanager
    def step(self, title: str, expected_seconds: float | None = None) -> Iterator[StepLine]:
        """Show one step while the block runs; `expected_seconds` None when nobody knows."""
        hint = "" if expected_seconds is None else f"about {_duration(expected_seconds)}"
        if not self._console.is_terminal and expected_seconds is not None and expected_seconds >= 10:
            self._console.print(f"  … {escape(title)} ({hint})")
        task = self._progress.add_task(escape(title), total=None, expected=expected_seconds, hint=hint)
        started = time.monotonic()
        self._enter()
        try:
            yield StepLine(self._progress, task, title)
        except BaseException:
            self._console.print(f"  [red]✗[/] {escape(title)}")
            raise
        else:
            self._console.print(
                f"  [green]✓[/] {escape(title)} [dim]{_duration(time.monotonic() - started)}[/]"
            )
        finally:
            self._progress.remove_task(task)
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._progress.start()

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self._progress.stop()


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.1f} s"
        if seconds < 10
        else f"{seconds:.0f} s"
    )
