"""One directory as an index remembers it: the names in it, and a row of numbers for each."""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

_PACK = struct.Struct("<4I2Q2q")
ROW = _PACK.size
"""Bytes of a row."""
Numbers = tuple[int, int, int, int, int, int, int, int]
"""What becomes a `Row`."""
_UNKNOWN = bytes(ROW)
_NUMBERS: Callable[[os.stat_result], Any] = attrgetter(
    "st_mode",
    "st_uid",
    "st_gid",
    "st_nlink",
    "st_ino",
    "st_size",
    "st_mtime_ns",
    "st_ctime_ns",
)
_TYPE = 0o170000
_pack = _PACK.pack
RACY_NS = 2 * 10**9
"""Items that changed so shortly before may change again within the same tick of the clock that
their times come from; some file systems count in steps of two seconds."""
_UNSURE = bytes(4)
DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


class Row(NamedTuple):
    """What is known of an item."""

    mode: int
    """With the type; 0 says that the item must be looked upon as changed."""
    uid: int
    gid: int
    nlink: int
    ino: int
    size: int
    """Of a device node its number; of a directory the number of the device it is on."""
    mtime_ns: int
    ctime_ns: int

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)


class Listing(NamedTuple):
    """A directory and what is in it. Two that are equal in all but `racy` have not changed."""

    path: bytes
    """Whole path."""
    counts: tuple[int, int, int]
    """Regular files, other items that are no directories, subdirectories."""
    names: bytes
    """Of all of these in this order, each kind sorted, with zero bytes between them."""
    rows: bytes
    """Of the directory itself, then of files and others in the same order."""
    racy: tuple[int, ...] = ()
    """Which rows are of items that may change again without showing another time."""

    @property
    def own(self) -> Row:
        return unpack(self.rows[:ROW])

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        own = self.own
        return own.size, own.ino

    @property
    def has_links(self) -> bool:
        """Whether there is an item with several names."""
        return any(unpack(row).nlink > 1 for _, row in self.items())

    def split(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """The names of files, others and subdirectories."""
        files, others, _ = self.counts
        names = self.names.split(b"\0") if self.names else []
        return names[:files], names[files : files + others], names[files + others :]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Name and packed row of what is no directory."""
        files, others, _ = self.counts
        names = self.names.split(b"\0") if files + others else []
        rows = self.rows
        for at in range(files + others):
            start = ROW + ROW * at
            yield names[at], rows[start : start + ROW]


def unpack(row: bytes) -> Row:
    """A row from its packed form."""
    return Row(*_PACK.unpack(row))


def pack(row: Row) -> bytes:
    """The packed form of a row."""
    return _pack(*row)


def is_socket(row: bytes) -> bool:
    """Whether a packed row is of a socket, which has no content to be saved."""
    return stat.S_ISSOCK(int.from_bytes(row[:4], "little"))


def order(path: bytes) -> bytes:
    """Sorts paths as a walk visits them: a directory, then all that is in it."""
    return path.replace(b"/", b"\0")


class RacyRow(bytes):
    """The packed row of an item that may change again without showing another time."""

    __slots__ = ()


def look(entries: Sequence[os.DirEntry[str]]) -> list[bytes | None]:
    """The packed row of each item, which is no directory.

    Raises:
        OSError: one of them has vanished.
    """
    # The change time alone counts: no program can set it, while a time of modification may lie in
    # the future for ever.
    racy_since = time.time_ns() - RACY_NS
    rows: list[bytes | None] = []
    # This runs for every file: nothing is done here that can be done elsewhere.
    for entry in entries:
        found = entry.stat(follow_symlinks=False)
        numbers: Numbers = _NUMBERS(found)
        if numbers[0] & _TYPE in DEVICES:
            numbers = (*numbers[:5], found.st_rdev, *numbers[6:])
        row = _pack(*numbers)
        rows.append(row if numbers[7] < racy_since else RacyRow(row))
    return rows


def make(
    path: bytes,
    own: os.stat_result,
    names: tuple[Sequence[bytes], Sequence[bytes], Sequence[bytes]],
    rows: Sequence[bytes | None],
) -> Listing:
    """The listing of a directory that has just been read.

    Args:
        own: of the directory.
        names: of files, others and subdirectories.
        rows: of files and others; None for what could not be looked at, which counts as changed.
    """
    first: Numbers = _NUMBERS(own)
    mine = _pack(*first[:5], own.st_dev, *first[6:])
    packed = b"".join([mine, *[row or _UNKNOWN for row in rows]])
    racy: tuple[int, ...] = ()
    if RacyRow in map(type, rows):
        racy = tuple(at for at, row in enumerate(rows, 1) if type(row) is RacyRow)
    counts = (len(names[0]), len(names[1]), len(names[2]))
    return Listing(path, counts, b"\0".join([*names[0], *names[1], *names[2]]), packed, racy)


def mark(listing: Listing, names: Collection[bytes], own: bool = False) -> Listing:
    """The same for an index: what is named, or the directory itself, will count as changed."""
    if not names and not own:
        return listing
    rows = bytearray(listing.rows)
    if own:
        rows[:4] = _UNSURE
    files, others, _ = listing.split()
    for at, name in enumerate([*files, *others], 1):
        if name in names:
            rows[ROW * at : ROW * at + 4] = _UNSURE
    return listing._replace(rows=bytes(rows))


def settled(listing: Listing) -> Listing:
    """The same for an index: rows that are racy will count as changed."""
    if not listing.racy:
        return listing
    rows = bytearray(listing.rows)
    for at in listing.racy:
        rows[ROW * at : ROW * at + 4] = _UNSURE
    return listing._replace(rows=bytes(rows), racy=())
