"""Reads a pax archive from a stream of chunks: members and their data, nothing kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.errors import SourceError
from stages.sources._files import tar as _tar
from stages.sources._files.dumpdir import KEY as _DUMPDIR
from stages.sources._files.names import printable

_MAX_RECORDS = 256 << 20
"""The names in a directory of millions fit."""
_MAX_EXTENTS = 16 << 20
_SECOND = 10**9


@dataclass
class Member:
    """What a header and its pax records say."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    user: bytes
    group: bytes
    mtime_ns: int
    size: int
    """Of the file; holes count."""
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    acls: dict[bytes, bytes] = field(default_factory=dict)
    """Texts by record name."""
    extents: list[tuple[int, int]] = field(default_factory=list)
    """(offset, length) of the data that follows."""
    dumpdir: bytes | None = None
    """What a directory of an increment says about what is in it; see `dumpdir`."""

    @property
    def shown(self) -> str:
        return printable(self.name)


class TarReader:
    """Iterates over members; the data of each must be taken before the next.

    Raises:
        SourceError: the archive is damaged, incomplete, or of a kind that we do not write.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        records: dict[bytes, bytes] = {}
        while (block := self._exactly(_tar.BLOCK)).strip(b"\0"):
            if _number(block[148:156]) != _tar.header_sum(block):
                raise SourceError("the archive is damaged: a header has the wrong checksum")
            kind = block[156:157]
            if kind in (_tar.PAX, _tar.PAX_GLOBAL):
                records = self._records(_number(block[124:136]))
                continue
            member = self._member(block, kind, records)
            records = {}
            yield member
            if self._left:
                raise AssertionError("the data of a member was not taken")
        self._drain()

    def data(self) -> Iterator[memoryview]:
        """The stored bytes of the current member, in pieces."""
        while self._left:
            piece = self._some(self._left)
            self._left -= len(piece)
            yield piece
        self._exactly(self._padding)
        self._padding = 0

    def _member(self, block: bytes, kind: bytes, records: dict[bytes, bytes]) -> Member:
        prefix, name = _text(block[345:500]), _text(block[:100])
        name = prefix + b"/" + name if prefix else name
        member = Member(
            name=records.get(b"GNU.sparse.name") or records.get(b"path") or name,
            kind=_tar.REGULAR if kind == b"\0" else kind,
            mode=_number(block[100:108]) & 0o7777,
            uid=_integer(records, b"uid", block[108:116]),
            gid=_integer(records, b"gid", block[116:124]),
            user=records.get(b"uname") or _text(block[265:297]),
            group=records.get(b"gname") or _text(block[297:329]),
            mtime_ns=_time(records.get(b"mtime"), block[136:148]),
            size=_integer(records, b"size", block[124:136]),
            link=records.get(b"linkpath") or _text(block[157:257]),
            dumpdir=records.get(_DUMPDIR),
        )
        if kind in (_tar.CHARACTER, _tar.BLOCK_DEVICE):
            member.device = (_number(block[329:337]), _number(block[337:345]))
        _add_attributes(member, records)
        self._left = member.size if member.kind == _tar.REGULAR else 0
        self._padding = -self._left % _tar.BLOCK
        self._locate_data(member, records)
        return member

    def _locate_data(self, member: Member, records: dict[bytes, bytes]) -> None:
        if b"GNU.sparse.major" not in records:
            member.extents = [(0, member.size)] if member.size else []
            return
        if (records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
            raise SourceError(f'"{member.shown}" is stored in an unknown sparse format')
        member.size = _decimal(records.get(b"GNU.sparse.realsize", b""))
        member.extents = self._sparse_map(member)

    def _sparse_map(self, member: Member) -> list[tuple[int, int]]:
        # Whole blocks only, as the map is padded to them; the first holds the number of extents.
        blocks: list[bytes] = []
        lines, wanted = 0, 1
        while lines < wanted:
            if self._left < _tar.BLOCK or wanted > 2 * _MAX_EXTENTS:
                raise _bad_map(member)
            blocks.append(self._exactly(_tar.BLOCK))
            self._left -= _tar.BLOCK
            lines += blocks[-1].count(b"\n")
            if len(blocks) == 1:
                wanted = 1 + 2 * _decimal(blocks[0].partition(b"\n")[0])
        numbers = [_decimal(line) for line in b"".join(blocks).split(b"\n", wanted)[1:wanted]]
        extents = list(zip(numbers[::2], numbers[1::2], strict=True))
        position = 0
        for offset, length in extents:
            if offset < position:
                raise _bad_map(member)
            position = offset + length
        if position > member.size or sum(length for _, length in extents) != self._left:
            raise _bad_map(member)
        return [extent for extent in extents if extent[1]]

    def _records(self, size: int) -> dict[bytes, bytes]:
        if size > _MAX_RECORDS:
            raise SourceError("the archive is damaged: a header is too large")
        text = self._exactly(size)
        self._exactly(-size % _tar.BLOCK)
        records = {}
        position = 0
        while position < size:
            blank = text.find(b" ", position, position + 20)
            end = position + _decimal(text[position:blank]) if blank > 0 else 0
            key, equals, value = text[blank + 1 : end - 1].partition(b"=")
            if not blank < end <= size or text[end - 1 : end] != b"\n" or not equals:
                raise SourceError("the archive is damaged: a pax record cannot be read")
            records[key] = value
            position = end
        return records

    def _some(self, most: int) -> memoryview:
        while not self._buffer:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise SourceError("the archive is incomplete: it ends before its end mark")
            self._buffer = memoryview(chunk)
        piece = self._buffer[:most]
        self._buffer = self._buffer[len(piece) :]
        return piece

    def _exactly(self, size: int) -> bytes:
        if len(self._buffer) >= size:
            piece = self._buffer[:size]
            self._buffer = self._buffer[size:]
            return piece.tobytes()
        parts = []
        while size:
            parts.append(self._some(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _drain(self) -> None:
        # Whoever checks a digest or waits for an exit code does so at the end of the stream.
        self._buffer = memoryview(b"")
        for _ in self._chunks:
            pass


def _add_attributes(member: Member, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key.startswith(_tar.XATTR_RECORD):
            name = key[len(_tar.XATTR_RECORD) :].replace(b"%3D", b"=").replace(b"%25", b"%")
            member.xattrs[name.decode("utf-8", "surrogateescape")] = value
        elif key in _tar.ACL_RECORDS.values():
            member.acls[key] = value


def _bad_map(member: Member) -> SourceError:
    return SourceError(f'the archive is damaged: the map of holes of "{member.shown}" is wrong')


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int:
    """An octal field."""
    try:
        return int(raw.strip(b" \0") or b"0", 8)
    except ValueError:
        raise SourceError("the archive is damaged: a header field is not a number") from None


def _decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 20:
        raise SourceError("the archive is damaged: a pax record is not a number")
    return int(raw)


def _integer(records: dict[bytes, bytes], key: bytes, raw: bytes) -> int:
    return _decimal(records[key]) if key in records else _number(raw)


def _time(record: bytes | None, raw: bytes) -> int:
    """Nanoseconds since 1970, without going through a float."""
    if record is None:
        return _number(raw) * _SECOND
    negative = record.startswith(b"-")
    seconds, _, rest = record[negative:].partition(b".")
    nanoseconds = _decimal(seconds) * _SECOND + _decimal(rest[:9].ljust(9, b"0"))
    return -nanoseconds if negative else nanoseconds
