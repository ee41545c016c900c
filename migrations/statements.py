"""Splits SQL text into statements, the way psql does, so that each can be run alone and found by its line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# What a semicolon or a word inside of does not count; an unclosed one runs to the end of the text.
_TOKEN = re.compile(
    r"""
    (?P<space>\s+ | --[^\n]*)
  | (?P<comment>/\*)
  | (?P<quoted>
        \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)
      | '(?:[^']|'')*(?:'|\Z)
      | "(?:[^"]|"")*(?:"|\Z)
      | (?<![\w$])\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][\w]*)?)\$.*?(?:\$(?P=tag)\$|\Z)
    )
  | (?P<word>[^\W\d][\w$]*)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_ROUTINE = re.compile(r"create (?:or replace )?(?:function|procedure)\b")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its semicolon; `line` (from 1) is where its first word, `keyword`, stands."""

    text: str
    line: int
    keyword: str

    def line_of(self, position: str | None) -> int:
        """Return the line of Postgres's error `position` (characters from 1), or the statement's own."""
        return self.line + self.text.count("\n", 0, int(position) - 1 if position else 0)


def split(sql: str) -> Iterator[Statement]:
    """Yield the statements of `sql`; text that is only blank or comment yields none."""
    start: int | None = None
    words: list[str] = []
    parentheses = bodies = position = 0
    while position < len(sql):
        kind, piece, end = _next(sql, position)
        if kind != "space" and start is None and piece != ";":
            start = position
        if kind == "word":
            words.append(piece.lower())
            bodies += _body(words)
        parentheses += {"(": 1, ")": -1}.get(piece, 0)
        if piece == ";" and parentheses <= 0 and bodies == 0:
            if start is not None:
                yield _statement(sql, start, position, words)
            start, words, parentheses = None, [], 0
        position = end
    if start is not None:
        yield _statement(sql, start, len(sql), words)


def _next(sql: str, position: int) -> tuple[str, str, int]:
    match = _TOKEN.match(sql, position)
    if match is None:
        raise ValueError("the pattern's last branch takes any character")
    if match.lastgroup == "comment":
        return "space", "", _end_of_comment(sql, position)
    return str(match.lastgroup), match[0], match.end()


def _end_of_comment(sql: str, position: int) -> int:
    """Comments nest in Postgres."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(sql, position):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)


def _body(words: list[str]) -> int:
    """How the last word changes the depth of BEGIN ATOMIC … END, a routine's body with semicolons in it."""
    if not _ROUTINE.match(" ".join(words[:4])):
        return 0
    if words[-1] == "atomic" and words[-2] == "begin":
        return 1
    if "atomic" in words and words[-1] in {"case", "end"}:
        return 1 if words[-1] == "case" else -1
    return 0


def _statement(sql: str, start: int, end: int, words: list[str]) -> Statement:
    pair = " ".join(words[:2])
    keyword = pair if pair == "prepare transaction" else next(iter(words), "")
    return Statement(sql[start:end].rstrip(), sql.count("\n", 0, start) + 1, keyword)
