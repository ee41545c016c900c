"""What is wrong with a catalogue, in words a person can act on."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KeyPath = tuple[str | int, ...]


class RefusedError(ValueError):
    """A value that will not do: what is wrong with it, and what to write instead."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to correct.

    Attributes:
        file: the file's name.
        line: counted from 1.
        key: the dotted path of the key, such as `plans.pro.size.memory`; empty for the file as a whole.
        what: what is wrong.
        remedy: what to do, with the nearest known key where a key is unknown.
    """

    file: str
    line: int
    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """Return one line, beginning as compilers do, so that editors can jump to it."""
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.what}: {self.remedy}"


class CatalogueError(Exception):
    """The catalogue cannot be used; `problems` is everything that is wrong with all of its files."""

    def __init__(self, problems: "Sequence[Problem]") -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def dotted(path: KeyPath) -> str:
    """Write a key's path as a person would: `plans.pro.prices`, `secrets[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, known: "Iterable[str]") -> str:
    """Suggest the known word nearest to `word`, else name them all."""
    words = sorted(known)
    close = get_close_matches(word, words, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known here: {', '.join(words)}" if words else "nothing is known here"
