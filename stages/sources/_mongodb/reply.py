"""The reply to `find` and `getMore`: where its documents are, without decoding any."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import SourceError

_INT = struct.Struct("<i").unpack_from
_LONG = struct.Struct("<q").unpack_from
_FIXED = {
    0x01: 8,  # double
    0x06: 0,  # undefined
    0x07: 12,  # object id
    0x08: 1,  # bool
    0x09: 8,  # date
    0x0A: 0,  # null
    0x10: 4,  # int32
    0x11: 8,  # timestamp
    0x12: 8,  # int64
    0x13: 16,  # decimal128
}
_DOCUMENT, _ARRAY, _STRING, _BINARY = 0x03, 0x04, 0x02, 0x05


@dataclass(frozen=True)
class Batch:
    """Documents of a cursor."""

    cursor: int
    """What to ask for more with; 0 at the end."""
    collection: str
    """What to ask for more from."""
    documents: list[memoryview]


def parse(reply: bytes) -> Batch:
    """The batch that a reply has.

    Raises:
        SourceError: it is not such a reply.
    """
    try:
        whole = {key: (at, size) for key, at, size in _elements(reply, 4, len(reply))}
        start, size = whole[b"cursor"]
        parts = {key: (at, size) for key, at, size in _elements(reply, start + 4, start + size)}
        at, size = parts.get(b"firstBatch") or parts[b"nextBatch"]
        cursor = int(_LONG(reply, parts[b"id"][0])[0])
        name, length = parts[b"ns"]
        namespace = reply[name + 4 : name + length - 1].decode()
        return Batch(cursor, namespace.partition(".")[2], _split(reply, at + 4, at + size - 1))
    except (KeyError, IndexError, ValueError, struct.error):
        raise SourceError("the server sent a reply that is not understood") from None


def _elements(reply: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Key, place and size of the value of each element."""
    while at < end - 1:
        kind, stop = reply[at], reply.index(b"\0", at + 1)
        key, at = reply[at + 1 : stop], stop + 1
        if kind in (_DOCUMENT, _ARRAY):
            size = _INT(reply, at)[0]
        elif kind == _STRING:
            size = 4 + _INT(reply, at)[0]
        elif kind == _BINARY:
            size = 5 + _INT(reply, at)[0]
        else:
            size = _FIXED[kind]
        yield key, at, size
        at += size


def _split(reply: bytes, at: int, end: int) -> list[memoryview]:
    """The elements of an array are a type, an index in decimal digits, a zero and a document."""
    view, found = memoryview(reply), list[memoryview]()
    add, read = found.append, _INT
    digits, more_digits, number = 1, 10, 0
    while at < end:
        if number == more_digits:
            more_digits *= 10
            digits += 1
        start = at + 2 + digits
        at = start + read(reply, start)[0]
        add(view[start:at])
        number += 1
    if at != end:
        raise ValueError
    return found
