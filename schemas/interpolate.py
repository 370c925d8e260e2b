"""References in scalars: ``${VAR}``, ``${VAR:-default}``, ``${VAR:?message}``, ``${file:/path}``,
``${cred:NAME}`` (a credential of systemd), ``${cmd:...}`` (what a program prints; only when that is
allowed). A variable that is not set is looked for in the file that ``VAR_FILE`` names.

They are resolved after the YAML is parsed, so what a variable or a file holds can never add a key.
A default and the path of a file may hold references of their own. What was put in is not looked at
again. A dollar sign is ``$$``; one before anything but a brace stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Literal

from schemas import outside
from schemas.document import Mapping as MappingNode
from schemas.document import Node, Scalar, Sequence
from schemas.outside import NoValue
from schemas.problems import Path, Position, Problems

_MAX_NESTING = 10
_MAX_REPORTED = 20
"""Problems of one value; those behind them are not looked for."""
_TOKEN = re.compile(r"\$\$|\$\{|\}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-|:\?)(.*))?", re.DOTALL)
_FILE = 'the file of "${file:...}"'
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

    Args:
        allow_commands: whether ``${cmd:...}`` may run programs.
    """

    def __init__(
        self, environ: Mapping[str, str], problems: Problems, allow_commands: bool = False
    ) -> None:
        self._environ = environ
        self._problems = problems
        self._allow_commands = allow_commands
        self._printed: dict[tuple[str, ...], str] = {}
        self._folder = FilePath()
        self._origin: Literal["literal", "environment", "file"] = "literal"
        self._wrong: list[_Wrong] = []
        self._done: set[int] = set()
        self.outside_values: set[str] = set()
        """What was read from files, credentials and programs: secrets, all of them."""

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
                    if len(self._wrong) == _MAX_REPORTED:
                        break
            else:
                pieces.append("$" if token[0] == "$$" else token[0])
        pieces.append(text[position:end])
        return "".join(pieces)

    def _reference(self, text: str, start: int, end: int, depth: int) -> str:
        """The value of the reference whose inside is `text[start:end]`."""
        dollar = start - 2
        if text.startswith("file:", start, end):
            name = self._expand(text, start + len("file:"), end, depth + 1)
            return self._outside(dollar, lambda: self._file(name))
        match = _VARIABLE.fullmatch(text, start, end)
        if match is None:
            return self._special(text[start:end], dollar)
        name, operator = match[1], match[2]
        value = self._variable(name, dollar)
        if value or (value is not None and operator is None):
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

    def _variable(self, name: str, offset: int) -> str | None:
        """A variable, or the content of the file that the variable with ``_FILE`` names."""
        value = self._environ.get(name)
        file = self._environ.get(f"{name}_FILE")
        if value is None and file:
            what = f'the file that "{name}_FILE" names'
            return self._outside(offset, lambda: outside.of_file(FilePath(file), what, None))
        if value:
            self._origin = "environment" if self._origin == "literal" else self._origin
        return value

    def _special(self, inside: str, offset: int) -> str:
        """``cred:NAME`` and ``cmd:...``."""
        kind, colon, rest = inside.partition(":")
        if colon and kind == "cred":
            return self._outside(offset, lambda: outside.of_credential(rest, self._environ))
        if colon and kind == "cmd":
            return self._outside(offset, lambda: self._command(rest.strip()))
        raise _Wrong(offset, '"${...}" is not a reference', _FORMS)

    def _outside(self, offset: int, read: Callable[[], str]) -> str:
        self._origin = "file"
        try:
            value = read()
        except NoValue as problem:
            raise _Wrong(offset, problem.message, problem.hint) from None
        self.outside_values.add(value)
        return value

    def _file(self, name: str) -> str:
        hint = "a relative path starts at the folder of this configuration file"
        try:
            os.fsencode(name)
        except UnicodeError:
            name = ""
        if not name or "\0" in name:
            raise NoValue('"${file:...}" names no file', "write ${file:/path}")
        return outside.of_file(self._folder / name, _FILE, hint)

    def _command(self, text: str) -> str:
        if not self._allow_commands:
            raise NoValue(
                '"${cmd:...}" would run a program', "give --allow-commands when you trust this file"
            )
        if "${" in text.replace("$$", ""):
            hint = "the program has the same environment; write $$ for a dollar sign"
            raise NoValue('"${cmd:...}" takes no references', hint)
        from schemas.commands import printed_by, words_of  # only who uses it waits for it

        argv = tuple(words_of(text.replace("$$", "$")))
        if argv not in self._printed:
            self._printed[argv] = printed_by(argv, self._folder, self._environ, self.outside_values)
        return self._printed[argv]


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
