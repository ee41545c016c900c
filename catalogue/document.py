"""Reads one YAML file into plain values and remembers on which line each of them stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import yaml
from yaml.events import AliasEvent, Event
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from catalogue.problems import KeyPath, Problem, dotted

LARGEST_BYTES: Final = 1024 * 1024
LARGEST_NODES: Final = 20_000
DEEPEST: Final = 20

_TAG: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(r"[+-]?(0|[1-9](_?\d){0,30})", re.ASCII)
_FLOAT: Final = re.compile(r"[+-]?(\d{1,30}\.\d{0,30}|\.\d{1,30})", re.ASCII)
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its values, the line of each key path (from 1), and what is wrong with the YAML itself."""

    file: str
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...] = ()

    def line(self, path: KeyPath) -> int:
        """Return the line of `path`, or of the nearest key above it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: KeyPath, what: str, remedy: str) -> Problem:
        """Say what is wrong at `path`."""
        return Problem(self.file, self.line(path), dotted(path), what, remedy)


def read_document(file: Path) -> Document:
    """Read `file`; whatever is wrong with it stands in the document's `problems`."""
    try:
        text = _read_text(file)
        root = _compose(text)
    except _UnreadableError as error:
        return Document(file.name, {}, {}, (Problem(file.name, error.line, "", error.what, error.remedy),))
    return _Builder(file.name).build(root)


class _UnreadableError(Exception):
    def __init__(self, line: int, what: str, remedy: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what
        self.remedy = remedy


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise _UnreadableError(1, f"cannot be read ({error.strerror})", "correct its permissions") from error
    if len(content) > LARGEST_BYTES:
        raise _UnreadableError(1, f"is larger than {LARGEST_BYTES // 1024} KiB", "split the product up")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(line, "is not UTF-8", "save the file as UTF-8") from error


class _Loader(yaml.SafeLoader):
    """Refuses aliases (one line of them can stand for gigabytes) and what is too deep or too much."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:  # noqa: ANN401 -- as in PyYAML
        event: Event = self.peek_event()  # type: ignore[no-untyped-call]  # untyped in PyYAML's stubs
        line = event.start_mark.line + 1 if event.start_mark else 1
        if self.check_event(AliasEvent):
            raise _UnreadableError(line, "uses a YAML alias (*name)", "write the value out again")
        self._nodes += 1
        self._depth += 1
        if self._nodes > LARGEST_NODES:
            raise _UnreadableError(line, f"holds over {LARGEST_NODES} values", "split the product up")
        if self._depth > DEEPEST:
            raise _UnreadableError(line, f"is nested over {DEEPEST} levels deep", "make it flatter")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: str) -> Node:
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _explain(error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _UnreadableError(
            line, f"holds a control character (U+{ord(text[error.position]):04X})", "remove it"
        ) from error
    if root is None:
        raise _UnreadableError(1, "is empty", "describe a product, as in mindroom.yaml, or remove the file")
    return root


def _explain(error: yaml.MarkedYAMLError) -> _UnreadableError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    problem = error.problem or "is no YAML"
    if "'\\t'" in problem:
        return _UnreadableError(line, "a tab indents this line", "indent with spaces")
    if "another document" in problem or "single document" in str(error.context):
        return _UnreadableError(line, "begins a second YAML document", "give each product a file of its own")
    return _UnreadableError(line, f"is no YAML ({problem})", "correct the line, or quote the text in it")


@dataclass(slots=True)
class _Builder:
    """Turns nodes into plain values; collects problems instead of stopping at the first."""

    file: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def build(self, root: Node) -> Document:
        data: dict[str, Any] = {}
        if isinstance(root, MappingNode):
            data = self._mapping(root, ())
        else:
            self._refuse(root, (), "is not a mapping of keys to values", "begin with 'product: name'")
        return Document(self.file, data, self.lines, tuple(self.problems))

    def _refuse(self, node: Node, path: KeyPath, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, dotted(path), what, remedy))

    def _value(self, node: Node, path: KeyPath) -> object:
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(cast("ScalarNode", node), path)

    def _item(self, node: Node, path: KeyPath) -> object:
        self.lines[path] = node.start_mark.line + 1
        return self._value(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._refuse(key_node, path, "a key is not plain text", "write 'key: value'")
                continue
            below = (*path, key := str(key_node.value))
            if key in values:
                what = f"stands twice, first on line {self.lines[below]}"
                self._refuse(key_node, below, what, "remove or rename one of the two")
                continue
            self.lines[below] = key_node.start_mark.line + 1
            values[key] = self._value(value_node, below)
        return values

    def _scalar(self, node: ScalarNode, path: KeyPath) -> object:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "str" | "timestamp":
                return text
            case "null":
                return None
            case "bool" if text in _TRUE | _FALSE:
                return text in _TRUE
            case "int" if _INTEGER.fullmatch(text):
                return int(text)
            case "float" if _FLOAT.fullmatch(text):
                return float(text)
            case "bool" | "int" | "float":
                self._refuse(node, path, f"'{text[:40]}' means something else in YAML", "put it in quotes")
            case _:
                self._refuse(node, path, f"has the tag {node.tag[:80]}", "write a plain value")
        return text
