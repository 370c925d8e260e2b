"""Exclude patterns, compiled once into two regular expressions.

`*` and `?` do not cross a slash, `**` does. A pattern without a slash is matched against every
name, one with a slash against the whole path; when it does not begin with one, it may begin
anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_TOKEN = re.compile(
    rb"(?P<any_depth>(?<![^/])\*\*/)|(?P<all>\*\*)|(?P<star>\*)|(?P<one>\?)|(?P<set>\[!?\]?[^\]]*\])",
    re.DOTALL,
)


class Excludes:
    """Decides which items are left out."""

    def __init__(self, patterns: Sequence[str]) -> None:
        stripped = [os.fsencode(pattern).rstrip(b"/") for pattern in patterns]
        self._name = _union([p for p in stripped if b"/" not in p])
        self._path = _union([p if p[:1] == b"/" else b"/**/" + p for p in stripped if b"/" in p])

    def __bool__(self) -> bool:
        return bool(self._name or self._path)

    def match(self, directory: bytes, name: bytes) -> bool:
        """Whether `name` in `directory` (whole path without a slash at its end) is left out."""
        if self._name and self._name.fullmatch(name):
            return True
        return bool(self._path and self._path.fullmatch(b"%b/%b" % (directory, name)))

    def keep(self, directory: bytes, names: list[bytes]) -> list[bytes]:
        """The names of a directory that are not left out."""
        return [name for name in names if not self.match(directory, name)]


def _union(patterns: list[bytes]) -> re.Pattern[bytes] | None:
    expressions = [b"(?:%b)" % _translate(pattern) for pattern in patterns if pattern]
    return re.compile(b"|".join(expressions), re.DOTALL) if expressions else None


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
    simple = {"any_depth": b"(?:.*/)?", "all": b".*", "star": b"[^/]*", "one": b"[^/]"}
    kind = token.lastgroup or ""
    if kind in simple:
        return simple[kind]
    members = token[0][1:-1]
    negated = members[:1] == b"!"
    # A range keeps its dash; everything else in the set stands for itself.
    ranges = b"-".join(re.escape(part) for part in members[negated:].split(b"-"))
    return b"(?!/)[%b%b]" % (b"^" if negated else b"", ranges)
