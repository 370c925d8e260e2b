"""Follows the members of a base backup's archive that passes by, piece by piece, without copying.

The archives of a server are plain ustar: no extended headers, names of at most 100 bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import SourceError
from stages.sources._postgres_physical.manifest import NAME, WAL, ManifestCheck

BLOCK = 512
TABLESPACES = b"tablespaces"
"""Folder, beside the files of the data directory, with those of tablespaces by their number."""
_REGULAR = (b"0", b"\0")
_PREFIX = slice(345, 500)
_SUM = slice(148, 156)


class Scan:
    """Tells each file to a check, and can move all names into a folder.

    Args:
        tablespace: number of the tablespace whose archive passes by; None for the data directory.
        keep: takes the content of the backup manifest when that is a member.
    """

    def __init__(
        self,
        check: ManifestCheck,
        tablespace: bytes | None = None,
        keep: Callable[[memoryview], None] | None = None,
    ) -> None:
        self._check = check
        self._tablespace = tablespace
        self._keep = keep
        self._header = b""
        self._data = 0
        """Bytes of the current file that are still to come."""
        self._padding = 0
        self._name: bytes | None = None
        """Of the current file, when it has to be in the manifest."""
        self._size = 0
        self._hasher = check.hasher()
        self._is_manifest = False
        self.ended = False
        """The end mark was seen: a block of zeros."""
        self.files = 0

    def feed(self, data: memoryview, out: list[bytes | memoryview]) -> None:
        """Take the next piece; append what belongs into the joint archive: all but the end mark."""
        while data:
            if self._data:
                piece = data[: self._data]
                self._take(piece)
                out.append(piece)
            elif self._padding:
                piece = data[: self._padding]
                self._padding -= len(piece)
                out.append(piece)
            else:
                piece = data[: BLOCK - len(self._header)]
                self._header += piece
                if len(self._header) == BLOCK:
                    self._begin(self._header, out)
                    self._header = b""
            data = data[len(piece) :]

    def finish(self) -> None:
        """Say that nothing more comes.

        Raises:
            SourceError: the archive was cut off.
        """
        if self._data or self._padding or self._header:
            raise SourceError("the archive of the server was cut off")

    def _take(self, piece: memoryview) -> None:
        if self._hasher is not None and self._name is not None:
            self._hasher.update(piece)
        if self._is_manifest and self._keep:
            self._keep(piece)
        self._data -= len(piece)
        if not self._data:
            self._end()

    def _begin(self, header: bytes, out: list[bytes | memoryview]) -> None:
        if not header.strip(b"\0"):
            self.ended = True
            return
        if self.ended or int(header[_SUM].strip(b" \0") or b"0", 8) != _sum(header):
            raise SourceError("the archive of the server is damaged")
        out.append(_moved(header, self._tablespace) if self._tablespace else header)
        if header[156:157] not in _REGULAR:
            return
        self._size = self._data = _size(header)
        self._padding = -self._size % BLOCK
        name = _manifest_name(header, self._tablespace)
        self._is_manifest = name == NAME
        listed = not self._is_manifest and not name.startswith(WAL)
        self._name = name if listed else None
        self._hasher = self._check.hasher() if listed else None
        self.files += 1
        if not self._data:
            self._end()

    def _end(self) -> None:
        if self._name is not None:
            self._check.add(self._name, self._size, self._hasher)
            self._name = None


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _manifest_name(header: bytes, tablespace: bytes | None) -> bytes:
    """What the manifest calls a member."""
    folder, name = _text(header[_PREFIX]), _text(header[:100]).removeprefix(b"./")
    if folder.startswith(TABLESPACES + b"/"):
        tablespace = folder.partition(b"/")[2]
    return b"pg_tblspc/%b/%b" % (tablespace, name) if tablespace else name


def _moved(header: bytes, tablespace: bytes) -> bytes:
    """The header with its name in a folder: ustar has a field of its own for that."""
    if _text(header[_PREFIX]):
        raise SourceError("the server has sent a name that is too long")
    folder = (TABLESPACES + b"/" + tablespace).ljust(155, b"\0")
    changed = header[:345] + folder + header[500:]
    return changed[:148] + b"%06o\0 " % _sum(changed) + changed[156:]


def _sum(header: bytes) -> int:
    return sum(header[:148]) + 8 * 32 + sum(header[156:])


def _size(header: bytes) -> int:
    raw = header[124:136]
    if raw[0] & 0x80:  # Base 256: more than 8 GiB.
        return int.from_bytes(raw[1:], "big")
    return int(raw.strip(b" \0") or b"0", 8)
