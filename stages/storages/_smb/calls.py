"""The requests we send, and how their answers are read ([MS-SMB2] 2.2, [MS-FSCC] 2.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntFlag
from typing import TypeVar

from stages.storages._smb.types import Call, Command, Entry, Malformed, Opened
from stages.storages._tcp import Buffer

T = TypeVar("T")

HEADER_SIZE = 64
MAX_NAME = 255
"""UTF-16 units that a part of a path may have."""


class Access(IntFlag):
    """What one wants to do with a file or directory."""

    READ_DATA = 0x1
    WRITE_DATA = 0x2
    READ_ATTRIBUTES = 0x80
    DELETE = 0x10000
    SYNCHRONIZE = 0x100000


class Option(IntFlag):
    """How a file or directory is opened."""

    DIRECTORY = 0x1
    SEQUENTIAL = 0x4
    NON_DIRECTORY = 0x40
    DELETE_ON_CLOSE = 0x1000


class Disposition(IntFlag):
    """What to do when it is there, or not there."""

    OPEN = 1
    CREATE = 2
    OPEN_OR_CREATE = 3


DIRECTORY_ATTRIBUTE, REPARSE_ATTRIBUTE = 0x10, 0x400
_NORMAL_ATTRIBUTE = 0x80
SHARE_ALL, ALONE = 7, 0
"""Whoever has a file open lets others read, write, rename and delete it, as on Unix; or not."""
_IMPERSONATION = 2
_CREATED = 2
_RESTART_SCANS = 1
_INFO_FILE, _INFO_FILESYSTEM = 1, 2
_DIRECTORY_INFO, _STANDARD_INFO, _INTERNAL_INFO, _RENAME_INFO, _FULL_SIZE_INFO = 1, 5, 6, 10, 7


def unpack(layout: str, message: memoryview, offset: int) -> tuple[int, ...]:
    """Integers of a message.

    Raises:
        Malformed: it is too short.
    """
    try:
        return struct.unpack_from(layout, message, offset)
    except struct.error:
        raise Malformed(f"a message of {len(message)} bytes ends too early") from None


def cut(message: memoryview, offset: int, size: int) -> memoryview:
    """A part of a message; raises like `unpack`."""
    if offset + size > len(message):
        raise Malformed(f"a message of {len(message)} bytes ends too early")
    return message[offset : offset + size]


def encode(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def nothing(message: memoryview) -> None:
    """Decodes answers that say no more than that it worked."""
    del message


def open_file(
    path: str,
    access: Access,
    disposition: Disposition,
    options: Option,
    share: int = SHARE_ALL,
) -> Call[Opened]:
    """CREATE. `path` is relative to the share, with backslashes; "" is the share itself."""
    name = encode(path)
    body = struct.pack(
        "<HBBI8s8sIIIIIHHII",
        57,
        0,
        0,  # No oplock: nothing is kept from others.
        _IMPERSONATION,
        bytes(8),
        bytes(8),
        access | Access.SYNCHRONIZE,
        0 if options & Option.DIRECTORY else _NORMAL_ATTRIBUTE,
        share,
        disposition,
        options,
        HEADER_SIZE + 56,
        len(name),
        0,
        0,
    )
    return Call(Command.CREATE, body + (name or bytes(1)), _opened)


def _opened(message: memoryview) -> Opened:
    (action,) = unpack("<I", message, HEADER_SIZE + 4)
    (size,) = unpack("<Q", message, HEADER_SIZE + 48)
    return Opened(bytes(cut(message, HEADER_SIZE + 64, 16)), size, action == _CREATED)


def close(file_id: bytes) -> Call[None]:
    return Call(Command.CLOSE, struct.pack("<HHI16s", 24, 0, 0, file_id), nothing)


def flush(file_id: bytes) -> Call[None]:
    """Have what was written reach the disk."""
    return Call(Command.FLUSH, struct.pack("<HHI16s", 24, 0, 0, file_id), nothing)


def write(file_id: bytes, offset: int, data: Buffer) -> Call[int]:
    """Gives the number of bytes that were written."""
    body = struct.pack(
        "<HHIQ16sIIHHI", 49, HEADER_SIZE + 48, len(data), offset, file_id, 0, 0, 0, 0, 0
    )
    return Call(Command.WRITE, body, lambda message: unpack("<I", message, 68)[0], data)


def read(file_id: bytes, offset: int, size: int) -> Call[bytes]:
    """Gives what is there, `size` bytes at most."""
    body = struct.pack(
        "<HBBIQ16sIIIHHB", 49, HEADER_SIZE + 16, 0, size, offset, file_id, 1, 0, 0, 0, 0, 0
    )
    return Call(Command.READ, body, _read_data, expects=size)


def _read_data(message: memoryview) -> bytes:
    offset, _, size = unpack("<BBI", message, HEADER_SIZE + 2)
    return bytes(cut(message, offset, size))


def list_directory(file_id: bytes, restart: bool, size: int) -> Call[list[Entry]]:
    """Gives the next entries, `size` bytes of them at most."""
    pattern = encode("*")
    body = struct.pack(
        "<HBBI16sHHI",
        33,
        _DIRECTORY_INFO,
        _RESTART_SCANS * restart,
        0,
        file_id,
        HEADER_SIZE + 32,
        len(pattern),
        size,
    )
    return Call(
        Command.QUERY_DIRECTORY,
        body + pattern,
        lambda message: list(_entries(_output(message))),
        expects=size,
    )


def _output(message: memoryview) -> memoryview:
    offset, size = unpack("<HI", message, HEADER_SIZE + 2)
    return cut(message, offset, size)


def _entries(block: memoryview) -> Iterator[Entry]:
    at = 0
    while True:
        (following,) = unpack("<I", block, at)
        size, _, attributes, name_size = unpack("<QQII", block, at + 40)
        name = bytes(cut(block, at + 64, name_size)).decode("utf-16-le", "surrogatepass")
        yield Entry(name, size, attributes)
        if not following:
            return
        at += following


def get_state(file_id: bytes) -> Call[tuple[int, bool]]:
    """Gives the size of a file, and whether it goes away when it is closed."""

    def decode(info: memoryview) -> tuple[int, bool]:
        size, _, is_deleted = unpack("<QIB", info, 8)
        return size, bool(is_deleted)

    return _query(file_id, _INFO_FILE, _STANDARD_INFO, 24, decode)


def get_number(file_id: bytes) -> Call[int]:
    """Gives what tells files of a file system apart: on Unix the inode."""
    return _query(file_id, _INFO_FILE, _INTERNAL_INFO, 8, lambda info: unpack("<Q", info, 0)[0])


def free_space(file_id: bytes) -> Call[int]:
    """Gives the bytes that we may still write, to the file system of a file or directory."""

    def decode(info: memoryview) -> int:
        available, _, sectors, sector_size = unpack("<QQII", info, 8)
        return available * sectors * sector_size

    return _query(file_id, _INFO_FILESYSTEM, _FULL_SIZE_INFO, 32, decode)


def _query(
    file_id: bytes, kind: int, info_class: int, size: int, decode: Callable[[memoryview], T]
) -> Call[T]:
    body = struct.pack(
        "<HBBIHHIII16s", 41, kind, info_class, size, HEADER_SIZE + 40, 0, 0, 0, 0, file_id
    )
    return Call(Command.QUERY_INFO, body, lambda message: decode(_output(message)), expects=size)


def rename(file_id: bytes, path: str) -> Call[None]:
    """Fails when there is something of that name: nothing is ever replaced."""
    name = encode(path)
    info = struct.pack("<B7xQI", 0, 0, len(name)) + name
    body = struct.pack(
        "<HBBIHHI16s",
        33,
        _INFO_FILE,
        _RENAME_INFO,
        len(info),
        HEADER_SIZE + 32,
        0,
        0,
        file_id,
    )
    return Call(Command.SET_INFO, body + info, nothing)
