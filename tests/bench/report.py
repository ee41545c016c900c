"""A benchmark's figures, for the terminal and for docs/benchmarks.md."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"

HEAD = """# Benchmarks
Written by `make bench`; do not edit. Each figure stands beside its reference,
measured in the same run on the same machine.

Last run {when}, {machine}.

| benchmark | Berth | reference | ratio | what is compared |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement. For a rate, more is better; for a time, less: `ratio` is Berth over reference."""

    name: str
    unit: str
    ours: float
    reference: float
    compared: str

    @property
    def ratio(self) -> float:
        """Berth's figure divided by the reference's."""
        return self.ours / self.reference

    def row(self) -> str:
        """Return the table row."""
        ours, reference = f"{self.ours:.2f} {self.unit}", f"{self.reference:.2f} {self.unit}"
        return f"| {self.name} | {ours} | {reference} | {self.ratio:.2f} | {self.compared} |"


def write(figures: list[Figure]) -> str:
    """Write docs/benchmarks.md and return its text."""
    system = f"{platform.system()} {platform.release()}"
    machine = f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"
    head = HEAD.format(when=f"{datetime.now(UTC):%Y-%m-%d}", machine=machine)
    text = head + "".join(f"{figure.row()}\n" for figure in figures)
    DOCUMENT.write_text(text, encoding="utf-8")
    return text
