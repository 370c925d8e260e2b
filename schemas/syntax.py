"""Bytes of a YAML file to parser events, with every complaint of the parser in our own words.

The parser's own messages hold pieces of the file, which may be secrets; none of them is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from schemas.problems import Position, Problems

_UNPRINTABLE = re.compile(
    r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_REFERENCE = re.compile(
    r"""\$\{ ( [A-Za-z_][A-Za-z0-9_]* (?: :[-?] [^{}\n"',]* )? | file: [^{}\n"',]* ) \}""",
    re.VERBOSE,
)
_NO_CHARACTER = re.compile(r"\\U(?!000|0010)[0-9A-Fa-f]{8}")
_CONFLICT = re.compile(r"^<{7}( |$)", re.MULTILINE)
_NESTING = 10
_QUOTES = "put the value in quotes"
_IN_BRACKETS = f"{_QUOTES} if this is part of it; the bracket was opened in line LINE"

# What the parser complains about (a part of its text): our message, our hint, and whether its
# context (where the construct began) is the better place to point at. The first match counts.
_COMPLAINTS: tuple[tuple[str, str, str | None, bool], ...] = (
    ("found character '\\t'", "a tab cannot be used for indentation", "use spaces", False),
    (
        "that cannot start any token",
        "a value cannot start with this character",
        f"{_QUOTES}: @, ` and % have a meaning of their own in YAML",
        False,
    ),
    (
        "mapping values are not allowed here",
        'a second ": " in one line, or a wrong indentation',
        'put a value that holds ": " in quotes; a key ends with a colon and a space; '
        "keys of one mapping start in the same column",
        False,
    ),
    (
        "sequence entries are not allowed here",
        "a list cannot start in this place",
        'start the first "- " in a line of its own',
        False,
    ),
    (
        "could not find expected ':'",
        'a key without its ":"',
        "write key: value, with a space after the colon",
        True,
    ),
    (
        "found unexpected end of stream",
        "a quote is opened here and never closed",
        "add the closing quote",
        True,
    ),
    (
        "found unknown escape character",
        "an unknown escape after a backslash, inside double quotes",
        "use single quotes, or write the backslash twice",
        False,
    ),
    (
        "but got '<stream end>'",
        "a bracket is opened here and never closed",
        "add the closing ] or }",
        True,
    ),
    (
        "expected ',' or ']'",
        "expected a comma or the closing ] of the list",
        _IN_BRACKETS,
        False,
    ),
    (
        "expected ',' or '}'",
        "expected a comma or the closing } of the mapping",
        _IN_BRACKETS,
        False,
    ),
    (
        "but found '<scalar>'",
        "text follows a value that has ended",
        "inside single quotes write a quote twice, inside double quotes a backslash before it",
        False,
    ),
    (
        "expected <block end>",
        "this does not continue what stands above it",
        'keys of one mapping, and the "- " of one list, start in the same column',
        False,
    ),
    (
        "expected the node content",
        "a value is missing before this character",
        _QUOTES + " if it belongs to one",
        False,
    ),
    (
        "expected chomping or indentation",
        "text cannot follow | or > in the same line",
        "start it in the next line",
        False,
    ),
    (
        "undefined tag handle",
        "tags are not supported",
        "put a value that starts with ! in quotes",
        False,
    ),
    (
        "version 1.* is required",
        "this version of YAML is not supported",
        "remove the %YAML line",
        False,
    ),
)


class Unreadable(Exception):
    """The text has no structure; the problem has been reported."""


def decode(data: bytes, file: str, problems: Problems) -> str:
    """Text of a YAML file.

    Raises:
        Unreadable: it is not UTF-8, or holds characters that no YAML file may hold.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "ignore")
        problems.add(_position(file, before), (), "is not UTF-8 text", "save the file as UTF-8")
        raise Unreadable from None
    found = _UNPRINTABLE.search(text)
    if found:
        at = _position(file, text[: found.start()])
        problems.add(at, (), "a control character, which YAML does not allow", "remove it")
        raise Unreadable
    return text


class Shield:
    """Lets ``${...}`` stand in a plain value everywhere.

    Inside ``{key: ${NAME}}`` YAML takes the inner braces for a mapping. They are exchanged for two
    characters that have no meaning to it, one for one, so that every position stays true; `lift`
    brings them back.
    """

    def __init__(self, text: str) -> None:
        free = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
        self._open, self._close = next(free), next(free)
        self._back = str.maketrans({self._open: "{", self._close: "}"})
        # Inside out: a default may hold a reference of its own.
        for _ in range(_NESTING):
            text, count = _REFERENCE.subn(rf"${self._open}\1{self._close}", text)
            if not count:
                break
        self.text = text

    def lift(self, value: str) -> str:
        return value.translate(self._back)


def events(text: str, file: str, problems: Problems) -> Iterator[Any]:
    """The parser's events, lazily.

    Raises:
        Unreadable: a syntax error, which has been reported.
    """
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        _report(error, text, file, problems)
        raise Unreadable from None
    except (ValueError, OverflowError):
        # The scanner does not look at the code of an escape before it makes a character of it.
        found = _NO_CHARACTER.search(text)
        at = _position(file, text[: found.start()]) if found else Position(file)
        problems.add(at, (), "an escape for a character that does not exist", "remove it")
        raise Unreadable from None
    except YAMLError:
        problems.add(Position(file), (), "is not YAML")
        raise Unreadable from None


def _report(error: MarkedYAMLError, text: str, file: str, problems: Problems) -> None:
    conflict = _CONFLICT.search(text)
    if conflict:
        problems.add(
            _position(file, text[: conflict.start()]),
            (),
            "a conflict of a merge is left in the file",
            "keep what is right of both sides; remove the lines <<<<<<<, ======= and >>>>>>>",
        )
        return
    message, hint, at_context = _complaint(error.problem or "")
    mark = (error.context_mark if at_context else None) or error.problem_mark or error.context_mark
    if mark is None:
        problems.add(Position(file), (), message, hint)
        return
    if text[max(0, mark.index - 1) : mark.index + 1] == "${":
        message = '"${" is not a complete reference'
        hint = f"{_QUOTES}, or close it: ${{NAME}}"
    if hint and error.context_mark:
        hint = hint.replace("LINE", str(error.context_mark.line + 1))
    problems.add(Position(file, mark.line + 1, mark.column + 1), (), message, hint)


def _complaint(text: str) -> tuple[str, str | None, bool]:
    for part, message, hint, at_context in _COMPLAINTS:
        if part in text:
            return message, hint, at_context
    return "is not valid YAML from here on", None, False


def _position(file: str, before: str) -> Position:
    line = before.count("\n") + 1
    return Position(file, line, len(before) - (before.rfind("\n") + 1) + 1)
