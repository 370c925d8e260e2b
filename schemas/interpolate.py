"""References in scalars: ``${VAR}``, ``${VAR:-default}``, ``${VAR:?message}``, ``${file:/path}``.

They are resolved after the YAML is parsed, so what a variable or a file holds can never add a key.
A default and the path of a file may hold references of their own. What was put in is not looked at
again. A dollar sign is ``$$``; one before anything but a brace stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Literal, NoReturn

from schemas.document import Mapping as MappingNode
from schemas.document import Node, Scalar, Sequence
from schemas.problems import Path, Position, Problems

MAX_FILE = 1 << 20
"""Bytes of a file that is read for ``${file:...}``."""

_MAX_NESTING = 10
_TOKEN = re.compile(r"\$\$|\$\{|\}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-|:\?)(.*))?", re.DOTALL)
_FORMS = "write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}; a dollar sign is $$"


class _Wrong(Exception):
    def __init__(self, offset: int, message: str, hint: str | None) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.hint = hint


class Interpolator:
    """Resolves the references of whole trees, in place.

    After a problem a scalar is marked as broken and keeps no value.
    """

    def __init__(self, environ: Mapping[str, str], problems: Problems) -> None:
        self._environ = environ
        self._problems = problems
        self._folder = FilePath()
        self._origin: Literal["literal", "environment", "file"] = "literal"
        self._wrong: list[_Wrong] = []
        self._done: set[int] = set()
        self.file_values: set[str] = set()
        """What was read from files: secrets, all of them."""

    def resolve(self, root: Node, folder: FilePath) -> None:
        """Resolve every reference below `root`; relative files are looked for in `folder`."""
        self._folder = folder
        self._walk(root, ())

    def _walk(self, node: Node, path: Path) -> None:
        if id(node) in self._done:
            return
        self._done.add(id(node))
        if isinstance(node, MappingNode):
            for key, entry in node.entries.items():
                self._walk(entry.node, (*path, key))
        elif isinstance(node, Sequence):
            for index, item in enumerate(node.items):
                self._walk(item, (*path, index))
        elif isinstance(node.value, str) and "$" in node.value:
            self._scalar(node, node.value, path)

    def _scalar(self, scalar: Scalar, text: str, path: Path) -> None:
        self._origin = "literal"
        self._wrong = []
        try:
            scalar.value = self._expand(text, 0, len(text), 0)
        except _Wrong as wrong:
            self._wrong.append(wrong)
        scalar.origin = self._origin
        if self._wrong:
            scalar.value = None
            scalar.broken = True
        for found in self._wrong:
            at = _place(scalar, text, found.offset)
            self._problems.add(at, path, found.message, found.hint)

    def _expand(self, text: str, start: int, end: int, depth: int) -> str:
        """`text[start:end]` with its references resolved."""
        if depth > _MAX_NESTING:
            raise _Wrong(
                start,
                "references are nested too deeply",
                f"at most {_MAX_NESTING} levels are resolved",
            )
        pieces: list[str] = []
        position = start
        while token := _TOKEN.search(text, position, end):
            pieces.append(text[position : token.start()])
            position = token.end()
            if token[0] == "${":
                close = _closing(text, token.start(), end)
                position = close + 1
                try:
                    pieces.append(self._reference(text, token.end(), close, depth))
                except _Wrong as wrong:
                    # The references that follow are looked at all the same.
                    self._wrong.append(wrong)
            else:
                pieces.append("$" if token[0] == "$$" else token[0])
        pieces.append(text[position:end])
        return "".join(pieces)

    def _reference(self, text: str, start: int, end: int, depth: int) -> str:
        """The value of the reference whose inside is `text[start:end]`."""
        dollar = start - 2
        if text.startswith("file:", start, end):
            name = self._expand(text, start + len("file:"), end, depth + 1)
            return self._read(name, dollar)
        match = _VARIABLE.fullmatch(text, start, end)
        if match is None:
            raise _Wrong(dollar, '"${...}" is not a reference', _FORMS)
        name, operator = match[1], match[2]
        value = self._environ.get(name)
        if value or (value is not None and operator is None):
            self._origin = "environment" if self._origin == "literal" else self._origin
            return value
        if operator == ":-":
            return self._expand(text, match.start(3), end, depth + 1)
        if operator == ":?":
            message = match[3].strip() or "it must be set"
            raise _Wrong(
                dollar,
                f'variable "{name}" is not set or empty: {message}',
                "set it before the start",
            )
        raise _Wrong(
            dollar, f'variable "{name}" is not set', f"set it, or give a default: ${{{name}:-...}}"
        )

    def _read(self, name: str, offset: int) -> str:
        self._origin = "file"
        if not name or "\0" in name:
            raise _Wrong(offset, '"${file:...}" names no file', "write ${file:/path}")
        try:
            with open(self._folder / name, "rb") as file:
                data = file.read(MAX_FILE + 1)
        except UnicodeError:
            raise _Wrong(offset, '"${file:...}" names no file', "write ${file:/path}") from None
        except OSError as error:
            _refuse(offset, error)
        if len(data) > MAX_FILE:
            raise _Wrong(
                offset, 'the file of "${file:...}" is larger than 1MiB', "it should hold one value"
            )
        try:
            value = data.decode("utf-8")
        except UnicodeDecodeError:
            raise _Wrong(offset, 'the file of "${file:...}" is not UTF-8 text', None) from None
        value = value[:-1] if value.endswith("\n") else value
        value = value[:-1] if value.endswith("\r") else value
        self.file_values.add(value)
        return value


def _refuse(offset: int, error: OSError) -> NoReturn:
    # Only the system's own words: the path is a value of the configuration.
    reason = (error.strerror or "unknown error").lower()
    hint = "a relative path starts at the folder of this configuration file"
    raise _Wrong(offset, f'the file of "${{file:...}}" cannot be read: {reason}', hint) from None


def _closing(text: str, start: int, end: int) -> int:
    """The index of the brace that closes the reference starting at `start`."""
    depth = 0
    for token in _TOKEN.finditer(text, start, end):
        if token[0] == "${":
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                return token.start()
    raise _Wrong(start, '"${" without its "}"', "close it, or write $$ for a dollar sign")


def _place(scalar: Scalar, text: str, offset: int) -> Position:
    """Where in the file the dollar sign at `offset` stands: counted in the source."""
    starts = [found.start() for found in re.finditer(r"\$", scalar.raw)]
    nth = text.count("$", 0, offset)
    if len(starts) != text.count("$") or nth >= len(starts):
        return scalar.at
    before = scalar.raw[: starts[nth]]
    newlines = before.count("\n")
    if not newlines:
        return Position(scalar.at.file, scalar.at.line, scalar.at.column + len(before))
    return Position(scalar.at.file, scalar.at.line + newlines, len(before) - before.rfind("\n"))
