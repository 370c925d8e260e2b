"""The format xbstream, as mariadb-backup and xtrabackup write it: a look at it as it passes.

A stream is a row of chunks, each a part of some file::

    "XBSTCK01" | flags (1) | kind (1) | length of the path (4) | path
    kind P:  size (8) | offset in the file (8) | CRC-32 (4) | content
    kind E:  nothing: the file is complete

Numbers are little endian. Seen in streams of mariadb-backup 10.11; other kinds (xtrabackup 8 writes
sparse ones) end the look, not the stream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection

from pipeline.errors import SourceError

MAGIC = b"XBSTCK01"
_HEAD = struct.Struct("<8sBcI")
_PART = struct.Struct("<QQI")
_LONGEST_PATH = 4096
_LARGEST_KEPT = 1 << 20


class Xbstream:
    """Follows a stream; gives it chunks of any size.

    Args:
        wanted: names of small files at its root whose contents are kept.
        prove: compute the CRC-32 of each chunk.

    Raises:
        SourceError: from `feed` and `finish`: it is damaged, or not whole.
    """

    def __init__(self, wanted: Collection[str] = (), prove: bool = False) -> None:
        self.files = 0
        """That are complete."""
        self.contents: dict[str, bytes] = {}
        """Of the wanted files."""
        self.is_understood = True
        self._wanted = {name.encode() for name in wanted}
        self._prove = prove
        self._open: set[bytes] = set()
        self._header = b""
        self._path = b""
        self._left = 0
        self._sum = self._expected = 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes."""
        view, at = memoryview(chunk), 0
        while at < len(view) and self.is_understood:
            if self._left:
                at += self._content(view[at : at + self._left])
            else:
                at += self._head(view[at:])

    def _content(self, part: memoryview) -> int:
        self._left -= len(part)
        if self._prove:
            self._sum = zlib.crc32(part, self._sum)
        if self._path in self._wanted:
            name = self._path.decode()
            kept = self.contents.get(name, b"")
            self.contents[name] = (kept + bytes(part))[:_LARGEST_KEPT]
        if not self._left and self._prove and self._sum != self._expected:
            raise SourceError("the xbstream is damaged: a checksum is wrong")
        return len(part)

    def _head(self, view: memoryview) -> int:
        """Take bytes up to the end of a header, piece by piece as its parts get known."""
        need = self._needed() - len(self._header)
        taken = bytes(view[:need])
        self._header += taken
        if len(self._header) == self._needed():
            self._begin()
        return len(taken)

    def _needed(self) -> int:
        """Bytes of the header, as far as that is known."""
        if len(self._header) < _HEAD.size:
            return _HEAD.size
        magic, _, kind, length = _HEAD.unpack_from(self._header)
        if magic != MAGIC or length > _LONGEST_PATH:
            raise SourceError("this is no xbstream, or it is damaged")
        return _HEAD.size + int(length) + (_PART.size if kind == b"P" else 0)

    def _begin(self) -> None:
        """A header is complete."""
        _, _, kind, length = _HEAD.unpack_from(self._header)
        self._path = self._header[_HEAD.size : _HEAD.size + length]
        if kind == b"P":
            size, _, self._expected = _PART.unpack_from(self._header, _HEAD.size + length)
            self._left, self._sum = size, 0
            self._open.add(self._path)
        elif kind == b"E":
            self._open.discard(self._path)
            self.files += 1
        else:
            self.is_understood = False
        self._header = b""

    def finish(self) -> None:
        """The stream has ended."""
        if self.is_understood and (self._left or self._header or self._open or not self.files):
            raise SourceError("the xbstream is cut off")
