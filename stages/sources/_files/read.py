"""Reading items into tar members: the part that does not depend on order, for threads to share.

What is small comes back finished, many members in one block. What only the ordered writer can
decide or should not sit in memory (hard links, big files) comes back one by one, what failed as an
error.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.stage import CHUNK
from stages.sources._files import tar
from stages.sources._files.attributes import Note, attributes
from stages.sources._files.items import GREW, SHRANK, Big, Block, Failed, Item, Single
from stages.sources._files.links import Key
from stages.sources._files.tar import PADDING, Encoder

# Non-blocking: a FIFO may have taken the place of the file.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_QUIET = _OPEN | os.O_NOATIME
_NO_HOLE_MAP = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_NOT_REGULAR_ANY_MORE = (errno.ELOOP, errno.ENXIO)
_READ_AHEAD = 8 * CHUNK
_KINDS = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFIFO: tar.FIFO,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
}


@dataclass
class _Pending:
    """Members that become a block."""

    prefix: bytes
    parts: list[bytes] = field(default_factory=list)
    members: int = 0
    files: int = 0
    size: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def block(self) -> Block:
        if self.files:
            self.counts["files"] = self.files
            self.counts["bytes"] = self.size
        return Block(b"".join(self.parts), self.counts, self.notes)


@dataclass(frozen=True)
class Claim:
    """Asks for what reading is going to fill; may wait."""

    memory: Callable[[int], None]
    """Bytes."""
    descriptor: Callable[[], None]
    """One open file."""


_Read = Callable[[int, bytes, _Pending, "Claim | None"], "Single | None"]
"""Descriptor of the directory, name, where it goes, and what to ask before."""


class Reader:
    """Turns items into members.

    Args:
        known: inodes that are in the archive already; another thread may add some.
    """

    def __init__(self, encoder: Encoder, xattrs: bool, known: Container[Key]) -> None:
        self._encoder = encoder
        self._xattrs = xattrs
        self._known = known
        self._flags = _QUIET
        self._refused: set[int] = set()

    def files(
        self, directory: int, prefix: bytes, names: Sequence[bytes], claim: Claim | None = None
    ) -> Iterator[Item]:
        """Read the named files of an open directory, in this order.

        Args:
            directory: descriptor of the directory.
            prefix: what member names put before the name.
            names: of regular files, as the directory listed them.
            claim: None when nobody else reads at the same time.
        """
        return self._items(self._regular, directory, prefix, names, claim)

    def others(
        self, directory: int, prefix: bytes, names: Sequence[bytes], claim: Claim | None = None
    ) -> Iterator[Item]:
        """The same for symbolic links, FIFOs, device nodes and sockets."""
        return self._items(self._other, directory, prefix, names, claim)

    def attributes(self, file: int | bytes, name: bytes, notes: list[Note]) -> bytes:
        """Records of the extended attributes of a descriptor, or of a path, not followed."""
        return attributes(file, name, notes) if self._xattrs else b""

    def _items(
        self,
        read: _Read,
        directory: int,
        prefix: bytes,
        names: Sequence[bytes],
        claim: Claim | None,
    ) -> Iterator[Item]:
        pending = _Pending(prefix)
        for name in names:
            odd: Single | Failed | None
            try:
                odd = read(directory, name, pending, claim)
            except OSError as error:
                odd = self._otherwise(read, directory, name, pending, claim, error)
            if odd is None:
                pending.members += 1
                if pending.size + 1024 * pending.members < CHUNK:
                    continue
            if pending.members:
                yield pending.block()
                pending = _Pending(prefix)
            if odd is not None:
                yield odd
        if pending.members:
            yield pending.block()

    def _otherwise(
        self,
        read: _Read,
        directory: int,
        name: bytes,
        pending: _Pending,
        claim: Claim | None,
        error: OSError,
    ) -> Single | Failed | None:
        """What is to be done about an item that could not be read."""
        again = read
        if error.errno in _NOT_REGULAR_ANY_MORE:
            again = self._other
        elif error.errno != errno.ESTALE:  # Somebody has replaced it on the server.
            return Failed(name, error)
        try:
            return again(directory, name, pending, claim)
        except OSError as error_again:
            return Failed(name, error_again)

    def _regular(
        self, directory: int, name: bytes, pending: _Pending, claim: Claim | None
    ) -> Single | None:
        """Add a small file to `pending`; anything else is returned."""
        try:
            fd = os.open(name, self._flags, dir_fd=directory)
        except OSError as error:
            fd = self._open_otherwise(name, directory, error)
        keep = False
        try:
            inode = os.fstat(fd)
            size = inode.st_size
            if self._flags != _QUIET and inode.st_uid not in self._refused:
                self._flags = _QUIET
            if (
                size >= CHUNK
                or inode.st_nlink != 1
                or inode.st_blocks * 512 < size
                or not stat.S_ISREG(inode.st_mode)
            ):
                odd = self._odd(fd, inode, directory, name, pending, claim)
                keep = isinstance(odd, Big)
                return odd
            if claim is not None:
                claim.memory(size)
            # One byte more than there should be tells whether the file has grown.
            data = os.read(fd, size + 1)
            if len(data) != size:
                data = _as_promised(fd, data, name, size, pending.notes)
            records = attributes(fd, name, pending.notes) if self._xattrs else b""
        finally:
            if not keep:
                os.close(fd)
        pending.files += 1
        pending.size += size
        pending.parts += (
            self._encoder.file(pending.prefix + name, inode, size, records),
            data,
            PADDING[size % 512],
        )
        return None

    def _open_otherwise(self, name: bytes, directory: int, error: OSError) -> int:
        """Open a file that cannot be opened without touching its access time, or not at once."""
        flags = _OPEN
        if error.errno == errno.EAGAIN:
            # A lease (Samba, NFS server) is being broken, and only a blocking open waits for that.
            if not stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode):
                raise error
            flags &= ~os.O_NONBLOCK
        elif error.errno != errno.EPERM or self._flags != _QUIET:
            raise error
        fd = os.open(name, flags, dir_fd=directory)
        if error.errno == errno.EPERM:
            # Only for the owner and root; the files that follow most likely have the same owner.
            self._refused.add(os.fstat(fd).st_uid)
            self._flags = _OPEN
        return fd

    def _odd(
        self,
        fd: int,
        inode: os.stat_result,
        directory: int,
        name: bytes,
        pending: _Pending,
        claim: Claim | None,
    ) -> Single | None:
        """A file that is big, has holes or several names, or is none any more."""
        if not stat.S_ISREG(inode.st_mode):
            return self._other(directory, name, pending, claim)
        linked = inode.st_nlink > 1
        if linked and (inode.st_dev, inode.st_ino) in self._known:
            return Single(name, inode)
        size = inode.st_size
        data = [(0, size)] if size else []
        if inode.st_blocks * 512 < size:
            data = extents(fd, size)
        own = _Pending(pending.prefix) if linked else pending
        records = attributes(fd, name, own.notes) if self._xattrs else b""
        if size >= CHUNK and sum(length for _, length in data) >= CHUNK // 2:
            if claim is not None:
                claim.descriptor()
                os.posix_fadvise(fd, *data[0][:1], _READ_AHEAD, os.POSIX_FADV_WILLNEED)
            head = self._head(name, inode, own, data, records)
            return Big(name, inode, None, head, data, own.notes, fd=fd)
        return self._small(fd, inode, name, own, data, records, claim)

    def _small(
        self,
        fd: int,
        inode: os.stat_result,
        name: bytes,
        own: _Pending,
        data: list[tuple[int, int]],
        records: bytes,
        claim: Claim | None,
    ) -> Single | None:
        stored = sum(length for _, length in data)
        if claim is not None:
            claim.memory(stored)
        parts = [self._head(name, inode, own, data, records)]
        for offset, length in data:
            # See `_regular`.
            piece = os.pread(fd, length + (offset + length == inode.st_size), offset)
            if len(piece) != length:
                piece = _as_promised(fd, piece, name, length, own.notes, offset)
            parts.append(piece)
        own.parts += (*parts, PADDING[stored % 512])
        own.files += 1
        own.size += inode.st_size
        return Single(name, inode, own.block()) if inode.st_nlink > 1 else None

    def _head(
        self,
        name: bytes,
        inode: os.stat_result,
        own: _Pending,
        data: list[tuple[int, int]],
        records: bytes,
    ) -> bytes:
        size = inode.st_size
        path = own.prefix + name
        if data == [(0, size)] or not size:
            return self._encoder.member(path, inode, size=size, records=records)
        shape = tar.sparse_map(tar.join_extents(data, size))
        stored = len(shape) + sum(length for _, length in data)
        records += tar.sparse_records(path, size)
        short = tar.sparse_name(path)
        return self._encoder.member(short, inode, size=stored, records=records) + shape

    def _other(
        self, directory: int, name: bytes, pending: _Pending, _claim: Claim | None
    ) -> Single | None:
        """A symbolic link, FIFO, device node or socket."""
        inode = os.lstat(name, dir_fd=directory)
        kind = _KINDS.get(stat.S_IFMT(inode.st_mode))
        link = os.readlink(name, dir_fd=directory) if kind == tar.SYMLINK else b""
        if stat.S_ISSOCK(inode.st_mode):
            pending.count("sockets_skipped")
            return None
        if kind is None:
            raise OSError(0, "was replaced while it was read")
        linked = inode.st_nlink > 1
        if linked and (inode.st_dev, inode.st_ino) in self._known:
            return Single(name, inode)
        own = _Pending(pending.prefix) if linked else pending
        device = None
        if kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            device = (os.major(inode.st_rdev), os.minor(inode.st_rdev))
        place = b"/proc/self/fd/%d/%b" % (directory, name)
        records = attributes(place, name, own.notes) if self._xattrs else b""
        path = own.prefix + name
        own.parts.append(
            self._encoder.member(path, inode, kind, link=link, records=records, device=device)
        )
        own.count("symlinks" if kind == tar.SYMLINK else "specials")
        return Single(name, inode, own.block()) if linked else None


def _as_promised(
    fd: int, data: bytes, name: bytes, size: int, notes: list[Note], start: int = 0
) -> bytes:
    """Exactly `size` bytes from `start` on: what a file was when its header was made."""
    if len(data) > size:
        notes.append(Note(name, GREW))
        return data[:size]
    data = b""
    while len(data) < size and (piece := os.pread(fd, size - len(data), start + len(data))):
        data += piece
    if len(data) < size:
        notes.append(Note(name, SHRANK, lost=True))
    return data.ljust(size, b"\0")


def extents(fd: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of the data between the holes of a file."""
    found = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            if error.errno in _NO_HOLE_MAP:
                return [(0, size)]
            raise
        if start >= size:
            break
        found.append((start, min(position, size) - start))
    return found
