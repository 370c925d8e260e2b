"""Directory listings of FTP servers: MLSD (RFC 3659), else what LIST prints for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# -rw-r--r--   1 user     group      1048576 Nov 23 15:00 name
_UNIX = re.compile(
    r"(?P<kind>[-bcdlps])[-rwxsStTl]{9}[.+@]?\s+\d+\s+\S.*?\s+(?P<size>\d+)\s+"
    r"(?:[A-Za-z]{3}\s+\d{1,2}|\d{1,2}\s+[A-Za-z]{3}|\d{4}-\d\d-\d\d)\s+(?:\d{1,2}:\d\d|\d{4})"
    r" (?P<name>.+)"
)
# 11-23-26  03:00PM              1048576 name
_DOS = re.compile(
    r"\d\d-\d\d-\d{2,4}\s+\d\d:\d\d(?:[AP]M)?\s+(?:<DIR>\s+|(?P<size>\d+) )(?P<name>.+)"
)


@dataclass(frozen=True)
class Entry:
    """A file or directory; whatever else a directory holds is left out."""

    name: str
    is_directory: bool
    size: int
    identity: str = ""
    """The same for the same directory under another name, where the server tells."""


class NotUnderstood(ValueError):
    """A line that follows no format we know."""


def parse_mlsd(lines: Iterable[str]) -> Iterator[Entry]:
    """Entries of an MLSD listing, without the directory itself and its parent.

    Raises:
        NotUnderstood: a line is not one of MLSD's, or a file has no size.
    """
    for line in lines:
        given, space, name = line.partition(" ")
        if not space:
            raise NotUnderstood(line)
        pairs = (fact.partition("=") for fact in given.split(";") if fact)
        facts = {key.lower(): value for key, _, value in pairs}
        kind = facts.get("type", "").lower()
        if kind == "file" and not facts.get("size", "").isdecimal():
            raise NotUnderstood(line)
        if kind in ("file", "dir") and _is_plain(name):
            size = int(facts["size"]) if kind == "file" else 0
            yield Entry(name, kind == "dir", size, facts.get("unique", ""))


def parse_list(lines: Iterable[str]) -> Iterator[Entry]:
    """Entries of a LIST, as Unix and Windows servers print it; symbolic links are left out.

    Raises:
        NotUnderstood: a line is neither.
    """
    for line in lines:
        if not line or re.fullmatch(r"total \d+", line):
            continue
        unix, dos = _UNIX.fullmatch(line), _DOS.fullmatch(line)
        match = unix or dos
        if match is None:
            raise NotUnderstood(line)
        is_directory = unix["kind"] == "d" if unix else match["size"] is None
        if _is_plain(match["name"]) and (is_directory or not unix or unix["kind"] == "-"):
            yield Entry(match["name"], is_directory, 0 if is_directory else int(match["size"]))


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name
