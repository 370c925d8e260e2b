"""The stream of an RDB file: how it is transferred, and whether it is whole.

Transfer: https://redis.io/docs/latest/operate/oss_and_stack/management/replication/ and
`readSyncBulkPayload` of replication.c. File: https://rdb.fnordig.de/file_format.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import anycrc

from pipeline.errors import SourceError
from pipeline.stage import CHUNK

_MARK = 40
_MAGIC = 9
_END = 0xFF
_TRAILER = 9
"""The end of the content, and a checksum of 8 bytes, little-endian; 0 when it is turned off."""
_WITHOUT_CHECKSUM = {f"REDIS000{number}" for number in range(1, 5)}
"""Redis 2.4 and older."""
_CRC = anycrc.Model("CRC64-REDIS")

Receive = Callable[[memoryview], int]
"""Reads what there is into a buffer; 0 when the other side has closed the connection."""


def transfer(head: bytes, receive: Receive) -> Iterator[bytes]:
    """The chunks of a file that a primary sends after `head`, the line that announces it.

    `$<length>` is followed by so many bytes, `$EOF:<mark>` by bytes up to a random mark, after
    which a server that takes us for a replica goes on with commands.

    Raises:
        SourceError: the connection ended too early, or `head` is something else.
    """
    if head.startswith(b"$EOF:") and len(head) == 5 + _MARK:
        return _up_to_mark(head[5:], receive)
    size = announced_size(head)
    if size is not None:
        return _so_many(size, receive)
    raise SourceError("the server announced no dump", "is it a Redis server")


def announced_size(head: bytes) -> int | None:
    """The bytes of the file that follows; None when nobody knows before its end."""
    return int(head[1:]) if re.fullmatch(rb"\$\d{1,19}", head) else None


def _so_many(left: int, receive: Receive) -> Iterator[bytes]:
    buffer = memoryview(bytearray(CHUNK))
    while left:
        filled, wanted = 0, min(left, CHUNK)
        while filled < wanted:
            filled += _some(receive, buffer[filled:wanted])
        left -= filled
        yield bytes(buffer[:filled])


def _up_to_mark(mark: bytes, receive: Receive) -> Iterator[bytes]:
    buffer = bytearray(CHUNK + _MARK)
    view = memoryview(buffer)
    filled = 0
    while True:
        before = filled
        filled += _some(receive, view[filled:])
        found = buffer.find(mark, max(0, before - _MARK), filled)
        if found >= 0:
            yield from filter(None, [bytes(view[:found])])
            return
        if filled == len(buffer):
            # The mark may have begun in the last bytes.
            yield bytes(view[:-_MARK])
            view[:_MARK] = view[-_MARK:]
            filled = _MARK


def _some(receive: Receive, room: memoryview) -> int:
    received = receive(room)
    if not received:
        raise SourceError("the server closed the connection in the middle of the dump")
    return received


def without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The output of `redis-cli --rdb -` without the mark of the transfer that it writes at the end.

    What is taken away is proved to be none of the file by its checksum, see `proved`.
    """
    held = b""
    for chunk in chunks:
        whole = held + chunk
        yield from filter(None, [whole[:-_MARK]])
        held = whole[-_MARK:]
    if not re.fullmatch(rb"[0-9a-f]{40}", held):
        yield from filter(None, [held])


class Proof:
    """Watches a file pass by.

    Attributes:
        version: of its format, such as `REDIS0011`.
        has_checksum: whether the server has computed one (see its setting `rdbchecksum`).
    """

    def __init__(self) -> None:
        self.version = ""
        self.has_checksum = False

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks; when they have come to an end, they are a whole file.

        Raises:
            SourceError: they are not.
        """
        last, value = b"", 0
        for chunk in chunks:
            whole = last + chunk
            if not self.version and len(whole) >= _MAGIC:
                self.version = _version(whole[:_MAGIC])
            value = _CRC.calc(memoryview(whole)[:-_TRAILER], value)
            last = whole[-_TRAILER:]
            yield chunk
        self._prove(last, value)

    def _prove(self, last: bytes, value: int) -> None:
        if not self.version:
            raise SourceError("the dump is too short to be one")
        if self.version in _WITHOUT_CHECKSUM:
            if last[-1] != _END:
                raise SourceError("the dump is cut off")
            return
        stored = int.from_bytes(last[1:], "little")
        self.has_checksum = stored != 0
        if last[0] != _END or (stored and stored != _CRC.calc(last[:1], value)):
            raise SourceError("the dump is damaged or cut off: its checksum does not fit")


def _version(head: bytes) -> str:
    if not re.fullmatch(rb"REDIS\d{4}|VALKEY\d{3}", head):
        raise SourceError("the server sent something else than a dump")
    return head.decode()
