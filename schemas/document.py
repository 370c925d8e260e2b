"""A YAML file as plain values with a place in the file for every key and value.

YAML 1.2 core schema: ``yes`` and ``2024-01-01`` are text. Keys are text and stand once; anchors,
aliases and merge keys work, but may not contain themselves nor blow the file up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from schemas.problems import Path, Position, Problems
from schemas.syntax import Shield, Unreadable, decode, events

MAX_DEPTH = 64
"""Levels of nesting, aliases followed."""
MAX_NODES = 15_000
"""Keys and values of a document, aliases followed: a bomb of aliases is refused, not built."""

_MAX_DIGITS = 100
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_CORE = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    _CORE + "str": (str,),
    _CORE + "int": (int,),
    _CORE + "float": (float, int),
    _CORE + "bool": (bool,),
    _CORE + "null": (type(None),),
    "!": (str,),
}
_NO_TAGS = "tags are not supported"
_NO_TAGS_HINT = "remove it; put a value that starts with ! in quotes"


@dataclass(eq=False)
class Scalar:
    """A single value."""

    at: Position
    value: str | int | float | bool | None
    text: str = field(default="", repr=False)
    """What stood there, before it was taken for a number."""
    raw: str = field(default="", repr=False)
    """How it stands in the file, for the places of references inside it."""
    origin: Literal["literal", "environment", "file"] = "literal"
    broken: bool = False
    """A problem was reported for it: its value means nothing, and nothing may follow from it."""
    nodes: int = 1
    height: int = 1


@dataclass(eq=False)
class Sequence:
    """A list."""

    at: Position
    items: list[Node] = field(default_factory=list)
    nodes: int = 1
    height: int = 1


@dataclass(eq=False)
class Mapping:
    """Keys and values, in the order of the file."""

    at: Position
    entries: dict[str, Entry] = field(default_factory=dict)
    nodes: int = 1
    height: int = 1


@dataclass(frozen=True, eq=False)
class Entry:
    """A value and the place of its key."""

    at: Position
    node: Node


Node = Scalar | Sequence | Mapping


def parse(data: bytes, file: str, problems: Problems) -> Node | None:
    """The root of a document, a null when it is empty; None when it is unreadable (reported)."""
    try:
        shield = Shield(decode(data, file, problems))
        return _Composer(shield, file, problems).document()
    except Unreadable:
        return None


def plain(node: Node) -> Any:
    """Dictionaries, lists and scalars, without places."""
    if isinstance(node, Mapping):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def scalars(node: Node) -> Iterator[Scalar]:
    """Every scalar of a tree; one that is reached through several aliases comes once."""
    seen: set[int] = set()
    waiting: list[Node] = [node]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, Scalar):
            yield current
        elif isinstance(current, Sequence):
            waiting.extend(current.items)
        else:
            waiting.extend(entry.node for entry in current.entries.values())


class _Composer:
    """Builds the tree of one document from parser events."""

    def __init__(self, shield: Shield, file: str, problems: Problems) -> None:
        self._shield = shield
        self._file = file
        self._problems = problems
        self._events = events(shield.text, file, problems)
        self._anchors: dict[str, Node | None] = {}

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    hint = "keep one document in a file"
                    self._stop(event, (), "a second document starts here", hint)
                root = self._node(next(self._events), (), 1)
        return Scalar(Position(self._file), None) if root is None else root

    def _node(self, event: Any, path: Path, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._stop(event, path, "is nested too deeply", f"at most {MAX_DEPTH} levels are read")
        if isinstance(event, AliasEvent):
            return self._alias(event, path, depth)
        if event.anchor is not None:
            # Open until it is complete: an alias inside it would make it contain itself.
            self._anchors[event.anchor] = None
        node = self._build(event, path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _build(self, event: Any, path: Path, depth: int) -> Node:
        if isinstance(event, MappingStartEvent):
            self._collection_tag(event, path, _CORE + "map")
            return self._mapping(event, path, depth)
        if isinstance(event, SequenceStartEvent):
            self._collection_tag(event, path, _CORE + "seq")
            return self._sequence(event, path, depth)
        return self._scalar(event, path)

    def _alias(self, event: AliasEvent, path: Path, depth: int) -> Node:
        at = self._at(event)
        node = self._anchors.get(event.anchor)
        if node is None:
            if event.anchor in self._anchors:
                message = "refers to the block it is part of"
                hint = "an alias cannot contain itself"
            else:
                message = "no anchor of this name stands above"
                hint = "put a value that starts with * in quotes"
            self._problems.add(at, path, message, hint)
            return Scalar(at, None, broken=True)
        if depth + node.height > MAX_DEPTH:
            self._stop(event, path, "is nested too deeply", f"at most {MAX_DEPTH} levels are read")
        return node

    def _sequence(self, start: Any, path: Path, depth: int) -> Sequence:
        sequence = Sequence(self._at(start))
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            item = self._node(event, (*path, len(sequence.items)), depth + 1)
            sequence.items.append(item)
            self._grow(sequence, item, event, path)
        return sequence

    def _mapping(self, start: Any, path: Path, depth: int) -> Node:
        mapping = Mapping(self._at(start))
        has_text_keys = True
        own: dict[str, Position] = {}
        merges: list[Node] = []
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            is_merge = (
                isinstance(event, ScalarEvent) and event.value == "<<" and event.style is None
            )
            key = self._key(event, path, depth)
            value_event = next(self._events)
            value = self._node(value_event, (*path, key or "?"), depth + 1)
            self._grow(mapping, value, value_event, path)
            if key is None:
                has_text_keys = False
                continue
            if key in own:
                self._twice(self._at(event), (*path, key), own[key])
                continue
            own[key] = self._at(event)
            if isinstance(value, Scalar) and _is_absent(value_event):
                value.at = own[key]
            if is_merge:
                merges.append(value)
            else:
                mapping.entries[key] = Entry(own[key], value)
        for value in merges:
            self._merge(mapping, value, path)
        return mapping if has_text_keys else Scalar(mapping.at, None, broken=True)

    def _key(self, event: Any, path: Path, depth: int) -> str | None:
        """A key, or None when there is none to work with."""
        node = self._node(event, path, depth + 1)
        if not isinstance(node, Scalar):
            message, hint = "a key cannot be a list or a mapping", "put what stands here in quotes"
            self._problems.add(self._at(event), path, message, hint)
            return None
        if node.broken or isinstance(node.value, str):
            return None if node.broken else str(node.value)
        self._problems.add(self._at(event), path, "a key must be text", "put it in quotes")
        return self._shield.lift(str(getattr(event, "value", ""))) or None

    def _twice(self, at: Position, path: Path, first: Position) -> None:
        hint = f"first written in line {first.line}; keep one of them"
        self._problems.add(at, path, "is written twice", hint)

    def _merge(self, mapping: Mapping, value: Node, path: Path) -> None:
        """``<<``: keys written here win, then those of an earlier mapping over a later one."""
        sources = value.items if isinstance(value, Sequence) else [value]
        for source in sources:
            if not isinstance(source, Mapping):
                if not (isinstance(source, Scalar) and source.broken):
                    message = "only a mapping can be merged"
                    self._problems.add(source.at, (*path, "<<"), message, "write <<: *name")
                continue
            for key, entry in source.entries.items():
                mapping.entries.setdefault(key, entry)

    def _scalar(self, event: ScalarEvent, path: Path) -> Scalar:
        at = self._at(event)
        text = self._shield.lift(event.value)
        tag = None if event.ctag is None else str(event.ctag)
        value = _resolve(text) if event.style is None and tag != "!" else text
        scalar = Scalar(at, value, text)
        if "$" in text:
            raw = self._shield.text[event.start_mark.index : event.end_mark.index]
            scalar.raw = self._shield.lift(raw)
        if tag is not None:
            self._apply_tag(scalar, text, tag, path)
        self._join_surrogates(scalar, path)
        return scalar

    def _join_surrogates(self, scalar: Scalar, path: Path) -> None:
        """Escapes may spell a character as two halves, as JSON does; a half alone is none."""
        if not isinstance(scalar.value, str) or not _SURROGATE.search(scalar.value):
            return
        try:
            halves = scalar.value.encode("utf-16-le", "surrogatepass")
            scalar.value = halves.decode("utf-16-le")
        except UnicodeDecodeError:
            scalar.value, scalar.broken = None, True
            message = "an escape for half a character"
            self._problems.add(scalar.at, path, message, "write both halves, or the character")

    def _apply_tag(self, scalar: Scalar, text: str, tag: str, path: Path) -> None:
        types = _SCALAR_TAGS.get(tag)
        scalar.value = text if types == (str,) else _resolve(text)
        if types is None:
            scalar.broken = True
            self._problems.add(scalar.at, path, _NO_TAGS, _NO_TAGS_HINT)
        elif type(scalar.value) not in types:
            scalar.broken = True
            self._problems.add(scalar.at, path, "does not fit its tag", "remove the tag")

    def _collection_tag(self, event: Any, path: Path, allowed: str) -> None:
        if event.ctag is not None and str(event.ctag) not in (allowed, "!"):
            self._problems.add(self._at(event), path, _NO_TAGS, _NO_TAGS_HINT)

    def _grow(self, parent: Sequence | Mapping, child: Node, event: Any, path: Path) -> None:
        parent.nodes += child.nodes
        parent.height = max(parent.height, child.height + 1)
        if parent.nodes > MAX_NODES:
            message = "has too many values, those of its aliases included"
            hint = (
                f"at most {MAX_NODES} are read from a file; put parts of it into files to include"
            )
            self._stop(event, path, message, hint)

    def _stop(self, event: Any, path: Path, message: str, hint: str) -> NoReturn:
        self._problems.add(self._at(event), path, message, hint)
        raise Unreadable

    def _at(self, event: Any) -> Position:
        mark = event.start_mark
        return Position(self._file, mark.line + 1, mark.column + 1)


def _is_absent(event: Any) -> bool:
    """Whether it is a value that is not there: the parser puts it at whatever follows."""
    return isinstance(event, ScalarEvent) and event.start_mark.index == event.end_mark.index


def _resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar in the YAML 1.2 core schema (yaml.org/spec/1.2.2, 10.3.2)."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text if base == 10 else text[2:], base)
    if _FLOAT.fullmatch(text):
        return float(text if text[-1] not in "fFnN" else text.replace(".", ""))
    return text
