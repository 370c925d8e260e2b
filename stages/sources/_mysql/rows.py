r"""Rows to INSERT statements, at the speed of the socket.

The server sends each row as one text, `1,'one',NULL`, in a packet of its own::

    size (3 bytes) | number (1) | length of the text (1, 3 or 4) | text

Where a packet begins, its 5, 7 or 8 bytes are overwritten with what stands between two rows,
`),\n(` and spaces: a megabyte of packets becomes a megabyte of SQL in the buffer it was received
into, with a few steps per row and none per value.

The format is that of the client/server protocol of MySQL, "ProtocolText::ResultsetRow".
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pymysql  # type: ignore[import-untyped]

from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from stages.sources._mysql.columns import MARK, NO_VALUE, NULL, QUOTE, Large
from stages.sources._mysql.link import Link

_FULL_PACKET = 0xFFFFFF
_NULL_BYTE, _TWO_BYTES, _THREE_BYTES, _EIGHT_BYTES, _ERROR = 251, 252, 253, 254, 255
_LENGTH_SIZES = {_TWO_BYTES: 2, _THREE_BYTES: 3, _EIGHT_BYTES: 8}
_HEADER = struct.Struct("<I").unpack_from
_HEAD = 8
"""Bytes before the text of a row at most; after a row, more than these follow in any case."""
_PUT_5 = struct.Struct("5s").pack_into
_PIECE = 256 << 10
_SEPARATOR = b"),\n"
_SPARE = 512 << 10
_ROOM = 128 << 10
"""With less room than this at the end of the buffer, what is held moves to the front."""
_ESCAPES = (
    *((b"\\", b"\\\\"), (b"'", b"\\'"), (b"\0", b"\\0"), (b"\x1a", b"\\Z")),
    # The plain client turns CR LF into LF, even between quotes.
    (b"\r", b"\\r"),
)


@dataclass(frozen=True)
class Select:
    """A SELECT of formatted rows, see `columns.row_format`."""

    sql: str
    head: bytes
    """`INSERT INTO ... VALUES` and a line feed."""
    large: Sequence[Large] = ()
    what: str = ""
    """What messages call the table."""
    quoted: int = 0
    """Columns between quotes, see `columns.RowFormat`."""


class Inserts:
    """The statements for the rows of a SELECT.

    Args:
        size: rows are joined until a statement has so many bytes.
    """

    def __init__(self, link: Link, select: Select, size: int) -> None:
        self.rows = 0
        """Read so far."""
        self.largest = 0
        """Bytes of the largest statement."""
        self._link = link
        self._select = select
        self._limit = size
        self._buffer = bytearray(2 * size + _SPARE)
        self._view = memoryview(self._buffer)
        self._start = self._at = self._end = 0
        self._blocked = 0
        """Rows in blocks so far."""
        self._extra = len(select.large)
        self._blanks = b" " * self._extra
        self._receive: Callable[[memoryview], int]

    def statements(self) -> Iterator[bytes]:
        """Whole statements, except that a very large row comes in pieces.

        Raises:
            SourceError: the rows are not complete, or the server has warned of a value.
        """
        first, self._receive = self._link.begin_rows(self._select.sql)
        self._buffer[: len(first)] = first
        self._end = len(first)
        while True:
            is_odd = self._scan()
            is_full = self._at - self._start >= self._limit
            if is_odd or is_full:
                yield from self._block()
            if is_odd:
                if self._is_end():
                    return
                yield from self._large_row()
            elif not is_full:  # Else there may be all the rest in the buffer already.
                self._fill()

    def _scan(self) -> bool:
        """Pass whole rows, writing separators; whether it stopped at a packet that is no such row.

        Columns that may hold large values are NULL, one byte each, where they do not.
        """
        buffer, at, extra = self._buffer, self._at, self._extra
        last = min(self._end - _HEAD, self._start + self._limit - 1)
        rows, odd = 0, False
        while at <= last:
            size = _HEADER(buffer, at)[0] & 0xFFFFFF
            after = at + 4 + size
            kind = buffer[at + 4]
            if kind >= _NULL_BYTE:
                width = self._width(at, size)
            else:
                width = 5 if kind + 1 + extra == size else 0
            odd = not width
            if odd or after > self._end:
                break
            if width == 5:
                _PUT_5(buffer, at, b"),\n( ")
            else:
                buffer[at : at + width] = b"),\n(    "[:width]
            if extra:
                buffer[after - extra : after] = self._blanks
            at = after
            rows += 1
        self._at = at
        self.rows += rows
        return odd

    def _width(self, at: int, size: int) -> int:
        """Bytes before the text of a row of more than 250 bytes; 0 when it is no whole row."""
        width = 4 + _LENGTH_SIZES.get(self._buffer[at + 4], 8) + 1
        length = int.from_bytes(self._buffer[at + 5 : at + width], "little")
        is_whole = width <= _HEAD and width - 4 + length + self._extra == size
        return width if is_whole and size < _FULL_PACKET else 0

    def _block(self) -> Iterator[bytes]:
        """The rows that were passed since the last block, as a statement."""
        if self._at == self._start:
            return
        rows = bytes(self._view[self._start + len(_SEPARATOR) : self._at])
        quoted = (self.rows - self._blocked) * self._select.quoted
        block = b"".join((self._select.head, self._written(rows, quoted), b");\n"))
        self._start, self._blocked = self._at, self.rows
        self.largest = max(self.largest, len(block))
        yield block

    def _written(self, rows: bytes, quoted: int) -> bytes:
        """The text of rows with so many quoted values in all, with escapes and quotes.

        Raises:
            SourceError: what stands for quotes is also part of a value.
        """
        for plain, escape in _ESCAPES:
            if rows.find(plain) >= 0:
                rows = rows.replace(plain, escape)
        is_valid = rows.count(QUOTE) == 2 * quoted
        if rows.find(NULL) >= 0:
            rows = rows.replace(NO_VALUE, b"NULL")
            is_valid = is_valid and rows.find(NULL) < 0
        if not is_valid:
            raise SourceError(
                f"{self._select.what} holds text that is not valid in its character set",
                "mend it, or use `method: client`",
            )
        return rows.replace(QUOTE, b"'")

    def _fill(self) -> None:
        """Receive more; what is not part of a block yet moves to the front."""
        held = self._end - self._start
        need = held + 5
        if self._end - self._at >= 4:
            size = _HEADER(self._buffer, self._at)[0] & 0xFFFFFF
            need = max(need, self._at - self._start + 4 + min(size, _FULL_PACKET - 1))
        if self._start + max(need, held + _ROOM) > len(self._buffer):
            self._move(max(need + _SPARE, len(self._buffer)))
        self._end += self._received(self._view[self._end :])

    def _move(self, size: int) -> None:
        """What is held, to the front of a buffer of this size."""
        held = bytes(self._view[self._start : self._end])
        if size > len(self._buffer):
            self._buffer = bytearray(size)
            self._view = memoryview(self._buffer)
        self._view[: len(held)] = held
        self._at -= self._start
        self._start, self._end = 0, len(held)

    def _received(self, into: memoryview) -> int:
        try:
            size = self._receive(into)
        except OSError as error:
            raise self._link.explain(error) from None
        if not size:
            raise self._link.explain(EOFError("closed by the server in the middle of a table"))
        return size

    def _is_end(self) -> bool:
        """Whether the odd packet ends the rows well.

        Raises:
            SourceError: it is an error, or a value could not be formatted.
        """
        while self._end - self._at < 4 + min(9, _HEADER(self._buffer, self._at)[0] & 0xFFFFFF):
            self._fill()
        at = self._at
        size, kind = _HEADER(self._buffer, at)[0] & 0xFFFFFF, self._buffer[at + 4]
        if kind == _ERROR:
            raise self._link.explain(self._error(size))
        if kind == _NULL_BYTE:
            raise SourceError(f"a row of {self._select.what} is too large for the server to format")
        if kind != _EIGHT_BYTES or size >= 9:
            return False
        warnings = int.from_bytes(self._buffer[at + 5 : at + 7], "little")
        self._start = self._at = at + 4 + size
        self._link.end_rows()
        if warnings:
            said = self._link.query("SHOW WARNINGS LIMIT 1")
            text = said[0][2] if said else "no reason given"
            raise SourceError(f"the server warns that {self._select.what} is not whole: {text}")
        return True

    def _error(self, size: int) -> Exception:
        while self._end - self._at < 4 + size:
            self._fill()
        data = bytes(self._view[self._at + 4 : self._at + 4 + size])
        try:
            pymysql.err.raise_mysql_exception(data)
        except pymysql.err.MySQLError as error:
            found: Exception = error
            return found
        raise AssertionError("it always raises")

    # -- rows with values that are too large to be formatted by the server ------------------------

    def _large_row(self) -> Iterator[bytes]:
        """A row of its own, in pieces: however large it is, no more than a piece is held."""
        payload = _Payload(self)
        text = payload.read(payload.length() or 0)
        quoted = self._select.quoted - text.count(MARK)
        parts = self._written(text, quoted).split(MARK)
        total = 0
        for piece in _joined(self._pieces(payload, parts)):
            total += len(piece)
            yield piece
        payload.finish()
        self._start = self._at
        self.rows += 1
        self._blocked += 1
        self.largest = max(self.largest, total)

    def _pieces(self, payload: _Payload, parts: list[bytes]) -> Iterator[bytes]:
        yield self._select.head + b"(" + parts[0]
        used = 1
        for large in self._select.large:
            length = payload.length()
            if length is None:
                continue
            if used == len(parts):
                raise SourceError(f"a row of {self._select.what} has more values than expected")
            yield large.opening
            for piece in payload.pieces(length):
                yield binascii.hexlify(piece) if large.as_hex else _escaped(piece)
            yield b"'" + parts[used]
            used += 1
        if used != len(parts):
            raise SourceError(f"a row of {self._select.what} has fewer values than expected")
        yield b");\n"

    def take(self, size: int) -> bytes:
        """Up to so many bytes from the buffer, which is filled when it is empty."""
        if self._at == self._end:
            self._start = self._at = self._end = 0
            self._end = self._received(self._view)
        found = bytes(self._view[self._at : min(self._end, self._at + size)])
        self._at += len(found)
        return found


class _Payload:
    """The content of a row that may span several packets: full ones are continued."""

    def __init__(self, inserts: Inserts) -> None:
        self._inserts = inserts
        self._left = 0
        self._continued = True

    def _some(self, size: int) -> bytes:
        while not self._left:
            if not self._continued:
                raise SourceError("a packet of the server ends in the middle of a value")
            self._next()
        found = self._inserts.take(min(size, self._left))
        self._left -= len(found)
        return found

    def _next(self) -> None:
        header = b""
        while len(header) < 4:
            header += self._inserts.take(4 - len(header))
        self._left = _HEADER(header, 0)[0] & 0xFFFFFF
        self._continued = self._left == _FULL_PACKET

    def pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._some(min(size, _PIECE))
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def length(self) -> int | None:
        """A length-encoded integer; None for NULL."""
        first = self.read(1)[0]
        if first == _NULL_BYTE:
            return None
        width = _LENGTH_SIZES.get(first)
        return int.from_bytes(self.read(width), "little") if width else first

    def finish(self) -> None:
        while self._continued and not self._left:
            self._next()
        if self._left:
            raise SourceError("a packet of the server has more than its values")


def _escaped(data: bytes) -> bytes:
    for plain, escape in _ESCAPES:
        data = data.replace(plain, escape)
    return data


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces as chunks of half a MiB or more."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK // 2:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
