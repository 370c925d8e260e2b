"""Patterns in the manner of gitignore, compiled into few regular expressions.

`*`, `?` and sets such as `[a-z]` or `[!0-9]` stay within one part of a path, `**` crosses slashes,
a backslash takes the meaning from what follows. A pattern without a slash is matched against every
name; one that begins with a slash against the whole path; any other (`./` in front is allowed, and
makes one of a single name) against the path below the root that is backed up. A slash at the end
limits it to directories. `!` in front turns the pattern round; the last one that matches counts.

Unlike in git, a slash in front means the root of the file system: a list that several backups
share must not leave out `/srv/tmp` because of `/tmp`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

_TOKEN = re.compile(
    rb"\\(?P<escaped>.)|(?P<any_depth>(?<![^/])\*\*/)|(?P<all>\*\*)|(?P<star>\*)|(?P<one>\?)"
    rb"|(?P<set>\[[!^]?\]?[^\]]*\])",
    re.DOTALL,
)
_SIMPLE = {"any_depth": b"(?:.*/)?", "all": b".*", "star": b"[^/]*", "one": b"[^/]"}


@dataclass(frozen=True)
class Pattern:
    """One line of a list."""

    text: bytes
    """What is to be matched: a name, or a path that begins with a slash."""
    negated: bool
    directories_only: bool
    is_name: bool
    """It has no slash, and is matched against every name."""
    below_root: bool
    """Its path begins at the root that is backed up, not at that of the file system."""


def parse(text: str) -> Pattern:
    """A pattern as a user writes it."""
    rest = os.fsencode(text)
    negated = rest.startswith(b"!")
    rest = rest[negated:]
    path = rest.rstrip(b"/")
    directories_only = path != rest
    below = path.startswith(b"./")
    path = path[2:] if below else path
    is_name = not below and b"/" not in path
    absolute = path.startswith(b"/") and not below
    return Pattern(
        path if is_name or absolute else b"/" + path.lstrip(b"/"),
        negated,
        directories_only,
        is_name,
        not is_name and not absolute,
    )


class PatternList:
    """Patterns of one list for one root.

    Args:
        root: whole path of what is backed up, empty for the root of the file system.
    """

    def __init__(self, patterns: Sequence[Pattern], root: bytes = b"") -> None:
        self._files = _groups([p for p in patterns if not p.directories_only], root)
        self._directories = _groups(patterns, root)
        wanted = [pattern for pattern in patterns if not pattern.negated]
        self._anywhere = any(pattern.is_name for pattern in wanted)
        self._above = _union(_above(p, root) for p in wanted if not p.is_name)

    def verdict(self, directory: bytes, name: bytes, is_directory: bool) -> bool | None:
        """What the last pattern that matches says about `name` in `directory`; None without one."""
        for group in self._directories if is_directory else self._files:
            if group.match(directory, name):
                return group.positive
        return None

    def may_match_below(self, path: bytes) -> bool:
        """Whether anything inside of the directory can match."""
        return self._anywhere or bool(self._above and self._above.fullmatch(path))


@dataclass(frozen=True)
class _Group:
    """Neighbours in the list that all say the same."""

    positive: bool
    names: re.Pattern[bytes] | None
    paths: re.Pattern[bytes] | None

    def match(self, directory: bytes, name: bytes) -> bool:
        if self.names and self.names.fullmatch(name):
            return True
        return bool(self.paths and self.paths.fullmatch(b"%b/%b" % (directory, name)))


def _groups(patterns: Sequence[Pattern], root: bytes) -> list[_Group]:
    """From the last to the first, so that the first group that matches decides."""
    groups = []
    for negated, members in groupby(reversed(patterns), key=lambda pattern: pattern.negated):
        each = list(members)
        names = _union(_translate(p.text) for p in each if p.is_name)
        paths = _union(_base(p, root) + _translate(p.text) for p in each if not p.is_name)
        groups.append(_Group(not negated, names, paths))
    return groups


def _base(pattern: Pattern, root: bytes) -> bytes:
    return re.escape(root) if pattern.below_root else b""


def _union(expressions: Iterable[bytes]) -> re.Pattern[bytes] | None:
    whole = b"|".join(b"(?:%b)" % expression for expression in expressions)
    return re.compile(whole, re.DOTALL) if whole else None


def _above(pattern: Pattern, root: bytes) -> bytes:
    """Matches the directories in which a pattern with a slash may find something."""
    *parts, last = pattern.text.split(b"/")[1:]
    expression = b".*" if b"**" in last else b""
    for part in reversed(parts):
        deeper = b".*" if b"**" in part else b"/" + _translate(part) + expression
        expression = b"(?:%b)?" % deeper
    return _base(pattern, root) + expression


def _translate(pattern: bytes) -> bytes:
    parts = []
    position = 0
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[position : token.start()]))
        parts.append(_expression(token))
        position = token.end()
    parts.append(re.escape(pattern[position:]))
    return b"".join(parts)


def _expression(token: re.Match[bytes]) -> bytes:
    kind = token.lastgroup or ""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind == "escaped":
        return re.escape(token[kind])
    members = token[0][1:-1]
    negated = members[:1] in (b"!", b"^")
    # A range keeps its dash; everything else in the set stands for itself.
    ranges = b"-".join(re.escape(part) for part in members[negated:].split(b"-"))
    return b"(?!/)[%b%b]" % (b"^" if negated else b"", ranges)
