"""The pax record `GNU.dumpdir`, by which a directory of an increment tells what was in it.

A body is a list of entries, each a letter, a name and a zero byte: `Y` for what is in this archive,
`N` for what exists and is not in it, `D` for a directory. GNU tar searches it by bisection, so it
is sorted by bytes. On restore, whatever has no entry is removed, and so is a directory that is `Y`
and anything else that is `D`. Pairs of `R` (old path) and `T` (new path) follow, which are carried
out first, in their order, by rename(2). A zero byte ends it. (GNU tar manual, "Dumpdir".)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import SourceError
from stages.sources._files.tar import record

KEY = b"GNU.dumpdir"


@dataclass(frozen=True)
class Dumpdir:
    """What a directory says about itself."""

    entries: dict[bytes, bytes]
    """Letter by name."""
    renames: list[tuple[bytes, bytes]]
    """Old and new paths, as member names."""

    def keeps(self, name: bytes, is_directory: bool) -> bool:
        """Whether an existing item may stay."""
        letter = self.entries.get(name)
        return letter == b"N" or letter == (b"D" if is_directory else b"Y")


def pax_record(
    dumped: Collection[bytes],
    kept: Iterable[bytes],
    directories: Iterable[bytes],
    renames: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """The record of a directory.

    Args:
        dumped: names of what is in this archive.
        kept: names of what is not, and exists.
        directories: names of subdirectories.
        renames: old and new member names.
    """
    entries = [(name, b"Y") for name in dumped]
    entries += [(name, b"N") for name in kept]
    entries += [(name, b"D") for name in directories]
    entries.sort()
    parts = [letter + name for name, letter in entries]
    for old, new in renames:
        parts += (b"R" + old, b"T" + new)
    return record(KEY, b"\0".join([*parts, b"\0"]) if parts else b"\0")


def parse(body: bytes) -> Dumpdir:
    """The content of a record.

    Raises:
        SourceError: it cannot be understood.
    """
    entries: dict[bytes, bytes] = {}
    renames: list[tuple[bytes, bytes]] = []
    old: bytes | None = None
    if not body.endswith(b"\0"):
        raise _damaged()
    for part in body[:-1].split(b"\0")[:-1]:
        letter, name = part[:1], part[1:]
        if not name or (letter == b"T") != (old is not None):
            raise _damaged()
        if letter in (b"Y", b"N", b"D") and b"/" not in name:
            entries[name] = letter
        elif letter == b"R":
            old = name
        elif letter == b"T" and old is not None:
            renames.append((old, name))
            old = None
        else:
            raise _damaged()
    if old is not None:
        raise _damaged()
    return Dumpdir(entries, renames)


def _damaged() -> SourceError:
    return SourceError("the archive is damaged: the list of a directory cannot be read")
