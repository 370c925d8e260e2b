"""The index of a copy: every directory as it was, in the order of the walk, in little space.

A stream of zstd frames. The first holds a header (JSON), the last one a footer (JSON) with totals,
so that a stream that was cut is known; between them are blocks of some thousand entries each. A
block can be handed on as it is when nothing in it has changed, and reading needs the memory of one
block, however many there are.

Within a block the rows lie byte plane by byte plane, as bytes of the same weight resemble each
other. Inodes and change times are stored as the difference to the row before, times of modification
as the difference to the change time.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from pipeline.errors import SourceError
from stages.sources._files.listing import ROW, Listing

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 1
_FORMAT = "nxs-backup index of files"
_ENTRIES = 8192
"""A block is closed when it has this many, so that only a larger directory makes a larger one."""
_LEVEL = 3
_HEADER, _BLOCK, _FOOTER = b"H", b"B", b"F"
_SIZES = struct.Struct("<4I")
_COLUMNS = 5
"""Numbers of a directory in a block: lengths of path and names, three counts."""
_INO, _MTIME, _CTIME = 16, 32, 40
"""Where they lie in a row."""
_MAX_DOUBTS = 100_000

Doubts = Mapping[bytes, Collection[bytes] | None]
"""By directory: names of items that must be looked upon as changed; None: all of them."""


@dataclass(frozen=True)
class Header:
    """What an index belongs to."""

    settings: Mapping[str, str]
    """A digest of each setting that says what the copy is of."""


@dataclass(frozen=True)
class Footer:
    """What is known at the end only."""

    blocks: int
    directories: int
    entries: int
    doubts: Doubts
    """Items that could not be read although they were there."""
    all_in_doubt: bool = False
    """There were too many of them to be named."""


class Block:
    """Some directories, packed."""

    def __init__(self, frame: bytes, plain: bytes) -> None:
        self.frame = frame
        """As it lies in the index."""
        self._plain = plain

    def listings(self) -> list[Listing]:
        """The directories in it.

        Raises:
            SourceError: the index is damaged.
        """
        try:
            return _decode(memoryview(self._plain)[1:])
        except (struct.error, ValueError, IndexError, OverflowError) as error:
            raise _damaged() from error


class Writer:
    """Packs directories, which must come in the order of the walk.

    Args:
        keep: takes the index, frame by frame.
    """

    def __init__(self, keep: Callable[[bytes], None], header: Header) -> None:
        self._keep = keep
        self._pending: list[Listing] = []
        self._pending_entries = 0
        self._blocks = 0
        self._directories = 0
        self._entries = 0
        document = {"format": _FORMAT, "version": VERSION, "settings": dict(header.settings)}
        self._frame(_HEADER + json.dumps(document).encode())

    def add(self, listing: Listing) -> None:
        """One directory more."""
        self._pending.append(listing)
        self._pending_entries += 1 + sum(listing.counts)
        if self._pending_entries >= _ENTRIES:
            self._flush()

    def reuse(self, block: Block, listings: list[Listing]) -> None:
        """All directories of a block of an earlier index, in which nothing has changed."""
        if 0 < self._pending_entries < _ENTRIES // 4:
            # Or else blocks would become smaller and smaller from copy to copy.
            for listing in listings:
                self.add(listing)
            return
        self._flush()
        self._keep(block.frame)
        self._count(listings)

    def finish(self, doubts: Doubts) -> None:
        """Write what is pending, and the end."""
        self._flush()
        document: dict[str, object] = {
            "blocks": self._blocks,
            "directories": self._directories,
            "entries": self._entries,
        }
        if sum(1 + len(names or ()) for names in doubts.values()) > _MAX_DOUBTS:
            document["all_in_doubt"] = True
        else:
            document["doubts"] = [
                [os.fsdecode(path), None if names is None else sorted(map(os.fsdecode, names))]
                for path, names in sorted(doubts.items())
            ]
        self._frame(_FOOTER + json.dumps(document).encode())

    def _flush(self) -> None:
        if self._pending:
            self._frame(_BLOCK + encode(self._pending))
            self._count(self._pending)
            self._pending = []
            self._pending_entries = 0

    def _count(self, listings: list[Listing]) -> None:
        self._blocks += 1
        self._directories += len(listings)
        self._entries += sum(sum(listing.counts) for listing in listings)

    def _frame(self, plain: bytes) -> None:
        self._keep(zstd.compress(plain, _LEVEL))


class Reader:
    """Reads an index once, from its chunks; the footer is known when all blocks have been read.

    Raises:
        SourceError: it is damaged, incomplete, or of a newer version.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._frames = _frames(chunks)
        self.header = _header(next(self._frames, (b"", b""))[1])
        self.footer: Footer | None = None

    def blocks(self) -> Iterator[Block]:
        """The blocks, up to the footer."""
        count = 0
        for frame, plain in self._frames:
            if plain[:1] == _BLOCK:
                count += 1
                yield Block(frame, plain)
                continue
            self.footer = _footer(plain)
            break
        else:
            raise SourceError("the index is incomplete: it ends before its end mark")
        if self.footer.blocks != count or next(self._frames, None) is not None:
            raise _damaged()

    def read_footer(self) -> Footer:
        """Skip the blocks."""
        for _ in self.blocks():
            pass
        assert self.footer is not None
        return self.footer

    def listings(self) -> Iterator[Listing]:
        """All directories."""
        for block in self.blocks():
            yield from block.listings()


def encode(listings: list[Listing]) -> bytes:
    """Directories as the content of a block."""
    columns = zip(
        *((len(each.path), len(each.names), *each.counts) for each in listings),
        strict=True,
    )
    numbers = b"".join(_planes(array("I", column).tobytes(), 4) for column in columns)
    paths = b"".join([each.path for each in listings])
    names = b"".join([each.names for each in listings])
    rows = b"".join([each.rows for each in listings])
    sizes = _SIZES.pack(len(listings), len(paths), len(names), len(rows))
    return b"".join((sizes, numbers, paths, names, _pack_rows(rows)))


def _decode(plain: memoryview) -> list[Listing]:
    count, paths_size, names_size, rows_size = _SIZES.unpack_from(plain)
    at = _SIZES.size
    if len(plain) != at + 4 * _COLUMNS * count + paths_size + names_size + rows_size:
        raise ValueError
    columns = []
    for _ in range(_COLUMNS):
        columns.append(array("I", _unplanes(plain[at : at + 4 * count], 4)))
        at += 4 * count
    paths = bytes(plain[at : at + paths_size])
    names = bytes(plain[at + paths_size : at + paths_size + names_size])
    rows = _unpack_rows(plain[at + paths_size + names_size :])
    found = []
    path_at = name_at = row_at = 0
    for path, name, files, others, inner in zip(*columns, strict=True):
        size = ROW * (1 + files + others)
        found.append(
            Listing(
                paths[path_at : path_at + path],
                (files, others, inner),
                names[name_at : name_at + name],
                rows[row_at : row_at + size],
            )
        )
        path_at, name_at, row_at = path_at + path, name_at + name, row_at + size
    if (path_at, name_at, row_at) != (paths_size, names_size, rows_size):
        raise ValueError
    return found


def _planes(data: bytes, width: int) -> bytes:
    """All first bytes of the units, then all second ones, and so on."""
    return b"".join([data[at::width] for at in range(width)])


def _unplanes(planes: memoryview | bytes, width: int) -> bytes:
    count = len(planes) // width
    data = bytearray(len(planes))
    for at in range(width):
        data[at::width] = planes[at * count : (at + 1) * count]
    return bytes(data)


def _pack_rows(rows: bytes) -> bytes:
    count = len(rows) // ROW
    planes = [rows[at::ROW] for at in range(ROW)]
    ctime = _column(planes, _CTIME)
    _set_column(planes, _MTIME, _wrapped(ctime - _column(planes, _MTIME), count))
    _set_column(planes, _CTIME, _differences(ctime, count))
    _set_column(planes, _INO, _differences(_column(planes, _INO), count))
    return b"".join(planes)


def _unpack_rows(packed: memoryview) -> bytes:
    count = len(packed) // ROW
    planes = [bytes(packed[at * count : (at + 1) * count]) for at in range(ROW)]
    ctime = _sums(_column(planes, _CTIME), count)
    _set_column(planes, _CTIME, ctime.to_bytes(8 * count, "little"))
    _set_column(planes, _MTIME, _wrapped(ctime - _column(planes, _MTIME), count))
    ino = _sums(_column(planes, _INO), count)
    _set_column(planes, _INO, ino.to_bytes(8 * count, "little"))
    return _unplanes(b"".join(planes), ROW)


# A column of 64-bit numbers is handled as one long number: what would be a loop over all rows is
# then one addition or subtraction. That it carries from row to row is undone on the way back.


def _column(planes: list[bytes], at: int) -> int:
    return int.from_bytes(_unplanes(b"".join(planes[at : at + 8]), 8), "little")


def _set_column(planes: list[bytes], at: int, data: bytes) -> None:
    planes[at : at + 8] = [data[byte::8] for byte in range(8)]


def _wrapped(number: int, count: int) -> bytes:
    return (number & ((1 << 64 * count) - 1)).to_bytes(8 * count, "little")


def _differences(column: int, count: int) -> bytes:
    return _wrapped(column - (column << 64), count)


def _sums(column: int, count: int) -> int:
    """The inverse: twice as many rows are summed up with each step."""
    mask = (1 << 64 * count) - 1
    shift = 64
    while shift < 64 * count:
        column = (column + (column << shift)) & mask
        shift *= 2
    return column


def _frames(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Each frame as it was stored, and its content."""
    decoder = zstd.ZstdDecompressor()
    stored: list[bytes] = []
    plain: list[bytes] = []
    for chunk in chunks:
        rest = chunk
        while rest:
            try:
                plain.append(decoder.decompress(rest))
            except zstd.ZstdError as error:
                raise _damaged() from error
            if not decoder.eof:
                stored.append(rest)
                break
            left = decoder.unused_data
            stored.append(rest[: len(rest) - len(left)])
            yield b"".join(stored), b"".join(plain)
            decoder, stored, plain, rest = zstd.ZstdDecompressor(), [], [], left
    if stored:
        raise SourceError("the index is incomplete: it ends within a block")


def _header(plain: bytes) -> Header:
    try:
        document = json.loads(plain[1:]) if plain[:1] == _HEADER else {}
        if document.get("format") != _FORMAT:
            raise SourceError("this is not an index of files")
        version, settings = document["version"], document["settings"]
        if not isinstance(version, int) or not isinstance(settings, dict):
            raise TypeError
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise _damaged() from error
    if version > VERSION:
        raise SourceError("the index was written by a newer version of this program")
    return Header(settings)


def _footer(plain: bytes) -> Footer:
    if plain[:1] != _FOOTER:
        raise _damaged()
    try:
        document = json.loads(plain[1:])
        doubts = {
            os.fsencode(path): None if names is None else set(map(os.fsencode, names))
            for path, names in document.get("doubts", [])
        }
        blocks, directories, entries = (
            int(document[key]) for key in ("blocks", "directories", "entries")
        )
        return Footer(blocks, directories, entries, doubts, bool(document.get("all_in_doubt")))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise _damaged() from error


def _damaged() -> SourceError:
    return SourceError("the index is damaged")
