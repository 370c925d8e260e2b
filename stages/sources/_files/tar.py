"""Tar members as bytes: pure functions of names, numbers and records, no I/O.

POSIX.1-2001 pax over ustar, with the records of GNU tar and Schilling's star for what POSIX lacks:
`SCHILY.xattr.*`, `SCHILY.acl.*` (text, since GNU tar ignores the raw form) and `GNU.sparse.*`
(format 1.0).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from zlib import adler32

BLOCK = 512
RECORD = 20 * BLOCK
"""Archives end on a multiple of this, as GNU tar writes them to a pipe."""
PADDING = [bytes(-size % BLOCK) for size in range(BLOCK)]
"""What follows `size` bytes of data, by `size % BLOCK`."""

REGULAR, HARD_LINK, SYMLINK, CHARACTER = b"0", b"1", b"2", b"3"
BLOCK_DEVICE, DIRECTORY, FIFO = b"4", b"5", b"6"
PAX, PAX_GLOBAL = b"x", b"g"

ACL_RECORDS = {
    "system.posix_acl_access": b"SCHILY.acl.access",
    "system.posix_acl_default": b"SCHILY.acl.default",
}
"""Extended attribute of an ACL -> record of its text."""
XATTR_RECORD = b"SCHILY.xattr."

_SECOND = 10**9
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777
_MAX_OWNERS = 4096
_NO_DEVICE = b"0000000\x000000000\0"
_ACL_VERSION = 2
_ACL_TAGS = {
    1: b"user::",
    2: b"user:%d:",
    4: b"group::",
    8: b"group:%d:",
    16: b"mask::",
    32: b"other::",
}


class Inode(Protocol):
    """The part of `os.stat_result` that goes into a header."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...


def record(key: bytes, value: bytes) -> bytes:
    """A pax record, `LENGTH KEY=VALUE` and a newline, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def time_record(mtime_ns: int) -> bytes:
    """The exact modification time, which may lie before 1970."""
    seconds, rest = divmod(abs(mtime_ns), _SECOND)
    sign = b"-" if mtime_ns < 0 else b""
    return record(b"mtime", b"%b%d.%09d" % (sign, seconds, rest))


def xattr_record(name: str, value: bytes) -> bytes:
    """An extended attribute; ACLs become text.

    Raises:
        ValueError: the value is not an ACL that we can read.
    """
    acl = ACL_RECORDS.get(name)
    if acl is not None:
        return record(acl, acl_text(value))
    key = name.encode("utf-8", "surrogateescape").replace(b"%", b"%25").replace(b"=", b"%3D")
    return record(XATTR_RECORD + key, value)


def acl_text(raw: bytes) -> bytes:
    """The kernel's form of an ACL as text, `user::rw-,user:2:r--,...`: users and groups by number.

    Raises:
        ValueError: an unknown version or entry.
    """
    if len(raw) < 4 or len(raw) % 8 != 4 or struct.unpack_from("<I", raw) != (_ACL_VERSION,):
        raise ValueError("unknown form of ACL")
    entries = []
    for tag, permissions, number in struct.iter_unpack("<HHI", raw[4:]):
        if tag not in _ACL_TAGS:
            raise ValueError("unknown entry in ACL")
        who = _ACL_TAGS[tag]
        letters = bytes(
            letter if permissions & bit else ord("-")
            for letter, bit in zip(b"rwx", (4, 2, 1), strict=True)
        )
        entries.append((who % number if b"%" in who else who) + letters)
    return b",".join(entries)


def sparse_records(name: bytes, real_size: int) -> bytes:
    """The records of a file with holes whose body starts with `sparse_map`."""
    return (
        record(b"GNU.sparse.major", b"1")
        + record(b"GNU.sparse.minor", b"0")
        + record(b"GNU.sparse.name", name)
        + record(b"GNU.sparse.realsize", b"%d" % real_size)
    )


def sparse_name(name: bytes) -> bytes:
    """What programs without knowledge of sparse members would call such a file."""
    return b"GNUSparseFile.0/" + name.rpartition(b"/")[2][-80:]


def sparse_map(extents: Iterable[tuple[int, int]]) -> bytes:
    """Where the data lies: (offset, length) pairs, padded to whole blocks."""
    numbers = [number for extent in extents for number in extent]
    text = b"".join(b"%d\n" % number for number in [len(numbers) // 2, *numbers])
    return text + PADDING[len(text) % BLOCK]


def end(position: int) -> bytes:
    """The end of an archive that is `position` bytes long so far."""
    return bytes(2 * BLOCK + -(position + 2 * BLOCK) % RECORD)


@dataclass(frozen=True)
class _Owner:
    """What the headers of all items with one mode, user and group share."""

    numbers: bytes
    names: bytes
    records: bytes
    tail: bytes
    """All that follows the checksum of a regular file with a short name."""
    tail_sum: int


class Encoder:
    """Makes headers. Safe to share between threads: all it keeps is a cache."""

    def __init__(self, owner_names: Callable[[int, int], tuple[bytes, bytes]]) -> None:
        """Take the function that names a user and a group by their numbers; empty when unknown."""
        self._owner_names = owner_names
        self._owners: dict[tuple[int, int, int], _Owner] = {}

    def member(
        self,
        name: bytes,
        inode: Inode,
        kind: bytes = REGULAR,
        size: int = 0,
        *,
        link: bytes = b"",
        records: bytes = b"",
        device: tuple[int, int] | None = None,
    ) -> bytes:
        """All blocks before the data: pax records for what the header cannot hold, then the header.

        Args:
            name: member name, of a directory with a slash at its end.
            inode: mode, owner and time; only the permission bits of the mode are used.
            kind: type flag.
            size: bytes of data that follow.
            link: what a symbolic link says, or the member a hard link stands for.
            records: pax records of the caller.
            device: major and minor number of a device node.
        """
        owner = self._owner(inode)
        prefix = b""
        if len(name) > 100:
            name, prefix, path = _split(name)
            records += path
        if len(link) > 100:
            records += record(b"linkpath", link)
        if size > _MAX_SIZE:
            records += record(b"size", b"%d" % size)
            size = 0
        numbers = b"%07o\0%07o\0" % device if device else _NO_DEVICE
        tail = _tail(kind, link[:100], owner.names, numbers, prefix)
        return self._blocks(name, inode, size, records, owner, tail, _sum_tail(tail))

    def file(self, name: bytes, inode: Inode, size: int, records: bytes) -> bytes:
        """The same for a regular file below 8 GiB; most are, so this is the fast way."""
        if len(name) > 100:
            return self.member(name, inode, size=size, records=records)
        owner = self._owners.get((inode.st_mode, inode.st_uid, inode.st_gid)) or self._owner(inode)
        return self._blocks(name, inode, size, records, owner, owner.tail, owner.tail_sum)

    @staticmethod
    def _blocks(
        name: bytes,
        inode: Inode,
        size: int,
        records: bytes,
        owner: _Owner,
        tail: bytes,
        tail_sum: int,
    ) -> bytes:
        seconds, rest = divmod(inode.st_mtime_ns, _SECOND)
        if rest and _SECOND <= seconds < 10 * _SECOND:
            records += b"30 mtime=%d.%09d\n" % (seconds, rest)
        elif rest or not 0 <= seconds <= _MAX_SIZE:
            records += time_record(inode.st_mtime_ns)
            seconds = min(max(seconds, 0), _MAX_SIZE)
        head = b"%b%b%011o\0%011o\0" % (name.ljust(100, b"\0"), owner.numbers, size, seconds)
        # See `_sum`; inlined, as this runs for every file.
        checksum = (adler32(head) & 0xFFFF) - 1 + tail_sum
        if owner.records:
            records += owner.records
        if not records:
            return b"%b%06o\0 %b" % (head, checksum, tail)
        length = len(records)
        pax, padding = _pax_header(length), PADDING[length % BLOCK]
        return b"%b%b%b%b%06o\0 %b" % (pax, records, padding, head, checksum, tail)

    def _owner(self, inode: Inode) -> _Owner:
        mode, uid, gid = key = (inode.st_mode, inode.st_uid, inode.st_gid)
        owner = self._owners.get(key)
        if owner is not None:
            return owner
        if len(self._owners) >= _MAX_OWNERS:
            self._owners.clear()
        user, group = self._owner_names(uid, gid)
        records = b""
        for word, number in ((b"uid", uid), (b"gid", gid)):
            if number > _MAX_ID:
                records += record(word, b"%d" % number)
        for word, text in ((b"uname", user), (b"gname", group)):
            if len(text) > 31:
                records += record(word, text)
        numbers = b"%07o\0%07o\0%07o\0" % (
            mode & 0o7777,
            uid if uid <= _MAX_ID else 0,
            gid if gid <= _MAX_ID else 0,
        )
        names = user[:31].ljust(32, b"\0") + group[:31].ljust(32, b"\0")
        tail = _tail(REGULAR, b"", names, _NO_DEVICE, b"")
        owner = self._owners[key] = _Owner(numbers, names, records, tail, _sum_tail(tail))
        return owner


def _tail(kind: bytes, link: bytes, names: bytes, device: bytes, prefix: bytes) -> bytes:
    """What follows the checksum of a header, 356 bytes."""
    magic = b"ustar\x0000"
    parts = (kind, link.ljust(100, b"\0"), magic, names, device, prefix.ljust(167, b"\0"))
    return b"".join(parts)


def _sum_tail(tail: bytes) -> int:
    # The checksum counts its own eight bytes as blanks.
    return _sum(tail[:200]) + _sum(tail[200:]) + 8 * ord(" ")


def _sum(part: bytes) -> int:
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65521: more than 256 can reach.
    return (adler32(part) & 0xFFFF) - 1


def header_sum(block: bytes) -> int:
    """The checksum a header should carry."""
    return _sum(block[:148]) + _sum_tail(block[156:])


@lru_cache(256)
def _pax_header(length: int) -> bytes:
    # Its own time and owner say nothing, so the block depends on the length of the records alone.
    numbers = b"0000644\x000000000\x000000000\0"
    head = b"%b%b%011o\0%011o\0" % (b"PaxHeaders/x".ljust(100, b"\0"), numbers, length, 0)
    tail = _tail(PAX, b"", bytes(64), _NO_DEVICE, b"")
    return b"%b%06o\0 %b" % (head, _sum(head) + _sum_tail(tail), tail)


def _split(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Header name, header prefix and pax record of a name that is longer than 100 bytes."""
    slash = name.rfind(b"/", 0, min(156, len(name) - 1))
    if slash > 0 and len(name) - slash - 1 <= 100:
        return name[slash + 1 :], name[:slash], b""
    return name[:100], b"", record(b"path", name)


def join_extents(extents: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Extents as a sparse map wants them: one of no length ends a file that ends in a hole."""
    if extents and sum(extents[-1]) == size:
        return list(extents)
    return [*extents, (size, 0)]
