"""Archives read back: what they have, and whether they are whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bson import decode
from bson.errors import BSONError

from pipeline.context import Teardown
from pipeline.errors import SourceError
from stages.sources._mongodb import archive
from stages.sources._mongodb.catalog import Namespace

_CUT = "the archive is cut off"
_SMALLEST = 5
"""Bytes of an empty document."""


class Units:
    """The stream as documents and terminators, wherever its chunks are cut."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._data = b""
        self._at = 0

    def taken(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            SourceError: there are fewer.
        """
        if not self._has(size):
            raise SourceError(_CUT)
        self._at += size
        return self._data[self._at - size : self._at]

    def is_at_end(self) -> bool:
        return not self._has(1)

    def document(self) -> bytes | None:
        """The next document, or None at a terminator.

        Raises:
            SourceError: there is neither.
        """
        run = self._whole(1)
        return None if run is None else bytes(run)

    def run(self) -> memoryview | None:
        """As many documents as are at hand, one at least, or None at a terminator.

        Raises:
            SourceError: there is neither.
        """
        return self._whole(1 << 30)

    def _whole(self, most: int) -> memoryview | None:
        first = self._size(self._at) if self._has(4) else 0
        if first < 0:
            self._at += 4
            return None
        if not first or not self._has(first):
            raise SourceError(_CUT)
        start = end = self._at
        data, size = self._data, first
        while most and size > 0 and end + size <= len(data):
            end += size
            most -= 1
            size = self._size(end) if end + 4 <= len(data) else 0
        self._at = end
        return memoryview(data)[start:end]

    def _size(self, at: int) -> int:
        """Of the document there; less than 0 for a terminator."""
        size = int.from_bytes(self._data[at : at + 4], "little", signed=True)
        if size != -1 and not _SMALLEST <= size <= archive.LARGEST_DOCUMENT:
            raise SourceError("the archive is damaged: what should be a document is none")
        return size

    def _has(self, size: int) -> bool:
        while len(self._data) - self._at < size:
            more = next(self._chunks, b"")
            if not more:
                return False
            self._data = self._data[self._at :] + more
            self._at = 0
        return True


@dataclass(frozen=True)
class Prelude:
    """What an archive says it has."""

    server_version: str
    namespaces: list[Namespace]

    @property
    def databases(self) -> list[str]:
        return sorted({each.database for each in self.namespaces} - {""})

    @property
    def has_oplog(self) -> bool:
        return any(not each.database for each in self.namespaces)

    def stored(self, namespace: Namespace) -> set[str]:
        """The names that its documents may be under."""
        if namespace.kind == "timeseries":
            return {namespace.name, f"system.buckets.{namespace.name}"}
        return {namespace.name}


def prelude(units: Units) -> Prelude:
    """Read the front of an archive.

    Raises:
        SourceError: it is none.
    """
    if units.taken(len(archive.MAGIC)) != archive.MAGIC:
        raise SourceError("this is no archive of mongodump")
    header = _decoded(units.document())
    found = []
    while (document := units.document()) is not None:
        each = _decoded(document)
        found.append(Namespace(each["db"], each["collection"], str(each.get("type", ""))))
    return Prelude(str(header.get("server_version", "unknown")), found)


@dataclass
class _Progress:
    crc: int = 0
    ended: bool = False


@dataclass
class _Blocks:
    """What was seen of each namespace."""

    seen: dict[tuple[str, str], _Progress] = field(default_factory=dict)

    def read(self, units: Units) -> None:
        """One block.

        Raises:
            SourceError: it is damaged, or belongs to a namespace that had its last one.
        """
        header = _decoded(units.document())
        key = str(header["db"]), str(header["collection"])
        shown = f'"{key[0]}.{key[1]}"'
        progress = self.seen.setdefault(key, _Progress())
        if progress.ended:
            raise SourceError(f"the archive is damaged: {shown} goes on after its end")
        while (run := units.run()) is not None:
            progress.crc = archive.checksum(run, progress.crc)
        if header["EOF"]:
            progress.ended = True
            if header["CRC"] % (1 << 64) != progress.crc:
                raise SourceError(f"the archive is damaged: the checksum of {shown} does not fit")


def examine(chunks: Iterator[bytes], teardown: Teardown) -> str:
    """Read an archive through.

    Raises:
        SourceError: it is damaged, or not whole.
    """
    units = Units(chunks)
    front, blocks = prelude(units), _Blocks()
    while not units.is_at_end():
        teardown.check()
        blocks.read(units)
    ended = {key for key, progress in blocks.seen.items() if progress.ended}
    for namespace in front.namespaces:
        if not {(namespace.database, name) for name in front.stored(namespace)} & ended:
            raise SourceError(f"{_CUT}: {namespace.shown} has no end")
    if len(ended) < len(blocks.seen):
        raise SourceError(f"{_CUT}: not all that was begun has an end")
    number = len(front.namespaces)
    return f"a whole archive of {number} collection{'s' * (number != 1)}"


def _decoded(document: bytes | None) -> Mapping[str, Any]:
    if document is None:
        raise SourceError("the archive is damaged: a header is missing")
    try:
        return decode(document)
    except BSONError:
        raise SourceError("the archive is damaged: a header cannot be read") from None
