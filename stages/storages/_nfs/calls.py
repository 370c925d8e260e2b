"""The procedures of NFS version 3 (RFC 1813): their arguments, and what their results say."""

from __future__ import annotations

from collections.abc import Callable

from stages.storages._nfs.rpc import Service
from stages.storages._nfs.types import Attributes, Call, Entry, Found, Limits, Page, Written
from stages.storages._nfs.xdr import (
    Buffer,
    Malformed,
    Unpacker,
    pack_hyper,
    pack_opaque,
    pack_uint,
)

NFS = Service(100003, 3)
REGULAR, DIRECTORY, LINK = 1, 2, 5
UNSTABLE, FILE_SYNC = 0, 2
MAX_BLOCK = 1 << 20
"""Bytes of one READ or WRITE at most; larger ones win nothing."""
_SMALL_BLOCK = 8 << 10
_GUARDED, _EXCLUSIVE = 1, 2
_SERVER_TIME = 1
_MAX_HANDLE = 64
_WCC_BEFORE = 24


def get_attributes(handle: bytes) -> Call[Attributes]:
    return Call(1, pack_opaque(handle), _attributes)


def settle(handle: bytes, mode: int) -> Call[None]:
    """Give a file that was made exclusively its mode, and times instead of the verifier."""
    return Call(2, pack_opaque(handle) + _settings(mode, _SERVER_TIME) + pack_uint(0), _nothing)


def lookup(directory: bytes, name: str) -> Call[Found]:
    return Call(3, _place(directory, name), lambda reply: Found(_handle(reply), _optional(reply)))


def read(handle: bytes, offset: int, count: int) -> Call[tuple[bytes, bool]]:
    """Gives what was read, possibly less than `count`, and whether the file ends there."""
    return Call(6, pack_opaque(handle) + pack_hyper(offset) + pack_uint(count), _read)


def write(handle: bytes, offset: int, data: Buffer, stability: int) -> Call[Written]:
    """Gives how much was written, and whether it needs a COMMIT."""
    size = len(data)
    where = pack_opaque(handle) + pack_hyper(offset)
    return Call(7, where + pack_uint(size, stability, size), _written, data)


def create_exclusive(directory: bytes, name: str, verifier: bytes) -> Call[Found]:
    """Make a file that must not exist; again, with the same verifier, is fine. Then `settle` it."""
    how = pack_uint(_EXCLUSIVE) + verifier
    return Call(8, _place(directory, name) + how, _created)


def create_guarded(directory: bytes, name: str, mode: int) -> Call[Found]:
    """Make a file that must not exist."""
    return Call(8, _place(directory, name) + pack_uint(_GUARDED) + _settings(mode), _created)


def make_directory(directory: bytes, name: str, mode: int) -> Call[Found]:
    return Call(9, _place(directory, name) + _settings(mode), _created)


def remove(directory: bytes, name: str) -> Call[None]:
    return Call(12, _place(directory, name), _nothing)


def remove_directory(directory: bytes, name: str) -> Call[None]:
    return Call(13, _place(directory, name), _nothing)


def rename(directory: bytes, name: str, to_name: str) -> Call[None]:
    """Within a directory; replaces what has the new name."""
    return Call(14, _place(directory, name) + _place(directory, to_name), _nothing)


def link(handle: bytes, directory: bytes, name: str) -> Call[None]:
    """Give a file one more name, unless that exists."""
    return Call(15, pack_opaque(handle) + _place(directory, name), _nothing)


def read_directory(directory: bytes, cookie: int, verifier: bytes, size: int) -> Call[Page]:
    """Names only. `cookie` and `verifier` are those of the page before, at first 0 and zeros."""
    where = pack_opaque(directory) + pack_hyper(cookie) + verifier
    return Call(16, where + pack_uint(size), lambda reply: _page(reply, _plain_entry))


def read_directory_plus(directory: bytes, cookie: int, verifier: bytes, size: int) -> Call[Page]:
    """Names with handles and attributes."""
    where = pack_opaque(directory) + pack_hyper(cookie) + verifier
    return Call(17, where + pack_uint(size, size), lambda reply: _page(reply, _full_entry))


def free_space(handle: bytes) -> Call[int]:
    """Bytes that we may still write."""
    return Call(18, pack_opaque(handle), _free_space)


def get_limits(handle: bytes) -> Call[Limits]:
    return Call(19, pack_opaque(handle), _limits)


def commit(handle: bytes, offset: int, count: int) -> Call[bytes]:
    """Have what was written reach the disk. Gives a verifier: what was written under another one
    may be lost.
    """
    return Call(21, pack_opaque(handle) + pack_hyper(offset) + pack_uint(count), _committed)


def encode_name(name: str) -> bytes:
    """A name as the server's file system has it: bytes, whatever they mean."""
    return name.encode("utf-8", "surrogateescape")


def _decode_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _place(directory: bytes, name: str) -> bytes:
    return pack_opaque(directory) + pack_opaque(encode_name(name))


def _settings(mode: int, times: int = 0) -> bytes:
    """`sattr3`: the mode and perhaps the times; owner, group and size are left alone."""
    return pack_uint(1, mode, 0, 0, 0, times, times)


def _nothing(reply: Unpacker) -> None:
    """What else a reply says about directories before and after does not matter to us."""


def _attributes(reply: Unpacker) -> Attributes:
    kind = reply.uint()
    reply.skip(16)  # mode, links, owner, group
    size = reply.hyper()
    reply.skip(16)  # space used, device
    reply.skip(8)  # file system
    number = reply.hyper()
    reply.skip(24)  # times
    return Attributes(kind, size, number)


def _optional(reply: Unpacker) -> Attributes | None:
    return _attributes(reply) if reply.boolean() else None


def _handle(reply: Unpacker) -> bytes:
    handle = reply.opaque()
    if len(handle) > _MAX_HANDLE:
        raise Malformed("a file handle is too long")
    return handle


def _optional_handle(reply: Unpacker) -> bytes | None:
    return _handle(reply) if reply.boolean() else None


def _created(reply: Unpacker) -> Found:
    return Found(_optional_handle(reply), _optional(reply))


def _skip_changes(reply: Unpacker) -> None:
    """`wcc_data`: a file before and after."""
    if reply.boolean():
        reply.skip(_WCC_BEFORE)
    _optional(reply)


def _read(reply: Unpacker) -> tuple[bytes, bool]:
    _optional(reply)
    reply.uint()
    is_end = reply.boolean()
    return reply.opaque(), is_end


def _written(reply: Unpacker) -> Written:
    _skip_changes(reply)
    return Written(reply.uint(), reply.uint() != UNSTABLE, reply.fixed(8))


def _committed(reply: Unpacker) -> bytes:
    _skip_changes(reply)
    return reply.fixed(8)


def _page(reply: Unpacker, take: Callable[[Unpacker], tuple[Entry, int]]) -> Page:
    _optional(reply)
    verifier, cookie, entries = reply.fixed(8), 0, []
    while reply.boolean():
        entry, cookie = take(reply)
        entries.append(entry)
    return Page(entries, verifier, cookie, reply.boolean())


def _plain_entry(reply: Unpacker) -> tuple[Entry, int]:
    reply.skip(8)
    return Entry(_decode_name(reply.opaque())), reply.hyper()


def _full_entry(reply: Unpacker) -> tuple[Entry, int]:
    reply.skip(8)
    name, cookie = _decode_name(reply.opaque()), reply.hyper()
    attributes, handle = _optional(reply), _optional_handle(reply)
    return Entry(name, handle, attributes), cookie


def _free_space(reply: Unpacker) -> int:
    _optional(reply)
    reply.skip(16)  # all of it, and what only root could use
    return reply.hyper()


def _limits(reply: Unpacker) -> Limits:
    _optional(reply)
    read_max, read_preferred, _, write_max, write_preferred = (reply.uint() for _ in range(5))
    return Limits(_block(read_preferred, read_max), _block(write_preferred, write_max))


def _block(preferred: int, maximum: int) -> int:
    return min(preferred or maximum or _SMALL_BLOCK, maximum or MAX_BLOCK, MAX_BLOCK)
