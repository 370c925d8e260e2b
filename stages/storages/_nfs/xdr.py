"""XDR (RFC 4506): how the fields of an RPC message are laid out; as much of it as NFSv3 needs."""

from __future__ import annotations

import struct

Buffer = bytes | bytearray | memoryview

_UINT = struct.Struct(">I")
_HYPER = struct.Struct(">Q")


class Malformed(Exception):
    """A message that ends before its fields do, or makes no sense."""


def pack_uint(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def pack_hyper(value: int) -> bytes:
    return _HYPER.pack(value)


def pack_opaque(data: bytes) -> bytes:
    """Bytes of any number, after their number."""
    return b"".join((_UINT.pack(len(data)), data, padding(len(data))))


def padding(size: int) -> bytes:
    """What has to follow `size` bytes: every field ends at a multiple of 4."""
    return bytes(-size % 4)


class Unpacker:
    """Takes the fields off a message, one after the other.

    All methods raise `Malformed` when the message is too short for what they are to take.
    """

    def __init__(self, message: Buffer) -> None:
        self._view = memoryview(message)
        self._at = 0

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._view):
            raise Malformed(f"a message of {len(self._view)} bytes ends too early")
        view = self._view[self._at : end]
        self._at = end
        return view

    def uint(self) -> int:
        value: int = _UINT.unpack(self._take(4))[0]
        return value

    def hyper(self) -> int:
        value: int = _HYPER.unpack(self._take(8))[0]
        return value

    def boolean(self) -> bool:
        return self.uint() != 0

    def fixed(self, size: int) -> bytes:
        """Bytes whose number both sides know; a multiple of 4."""
        return bytes(self._take(size))

    def opaque(self) -> bytes:
        size = self.uint()
        data = bytes(self._take(size))
        self._take(-size % 4)
        return data

    def skip(self, size: int) -> None:
        self._take(size)
