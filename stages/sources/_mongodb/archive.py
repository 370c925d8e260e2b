"""The archive format 0.1 of mongodump.

A magic number, a header, a document of metadata for each namespace and a terminator; then blocks,
those of several namespaces in any order. A block is a header, documents and a terminator; the last
one of a namespace has a checksum instead of documents. All of it is BSON, integers are
little-endian. Format: `common/archive` of https://github.com/mongodb/mongo-tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anycrc
from bson import Int64, encode

MAGIC = b"\x6d\xe2\x99\x81"
END = b"\xff\xff\xff\xff"
"""The terminator; no document begins like this."""
LARGEST_DOCUMENT = 16 * (1 << 20) + (16 << 10)
"""Bytes that a document may have at most, with what the server may add to those of users."""
_VERSION = "0.1"
_TOOL = "nxs-backup"
_CRC = anycrc.Model("CRC64-XZ")


def prelude(concurrent: int, server_version: str, metadata: Sequence[Mapping[str, Any]]) -> bytes:
    """What comes before the blocks.

    Args:
        concurrent: namespaces whose blocks may be mixed; mongorestore reads so many at once.
        metadata: see `described`.
    """
    header = {
        "concurrent_collections": concurrent,
        "version": _VERSION,
        "server_version": server_version,
        "tool_version": _TOOL,
    }
    return b"".join([MAGIC, encode(header), *map(encode, metadata), END])


def described(database: str, collection: str, metadata: str, kind: str) -> dict[str, Any]:
    """The metadata of a namespace.

    Args:
        metadata: options and indexes as canonical Extended JSON.
        kind: `collection`, `view` or `timeseries`; empty when the server did not tell.
    """
    return {
        "db": database,
        "collection": collection,
        "metadata": metadata,
        "size": 0,
        "type": kind,
    }


class Blocks:
    """Makes the blocks of one namespace."""

    def __init__(self, database: str, collection: str) -> None:
        self._name = {"db": database, "collection": collection}
        self._head = self._header(False, 0)
        self._crc = 0

    def block(self, documents: Sequence[memoryview]) -> bytes:
        """A block of documents, of which there must be one or more."""
        whole = b"".join([self._head, *documents, END])
        self._crc = checksum(memoryview(whole)[len(self._head) : -len(END)], self._crc)
        return whole

    def last(self) -> bytes:
        """The block that ends the namespace."""
        return self._header(True, self._crc) + END

    def _header(self, is_last: bool, crc: int) -> bytes:
        signed = crc - (1 << 64) if crc >> 63 else crc
        return encode({**self._name, "EOF": is_last, "CRC": Int64(signed)})


def checksum(data: bytes | memoryview, value: int = 0) -> int:
    """CRC-64/XZ, which Go calls ECMA; of what follows on data with the checksum `value`."""
    result: int = _CRC.calc(data, value)
    return result
