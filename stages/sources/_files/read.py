"""Reading files into tar members: the part that does not depend on order, for threads to share.

Small files come back finished, many in one block. What only the ordered writer can decide or
should not sit in memory (hard links, big files, files with holes) comes back open, what failed as
an error.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.stage import CHUNK
from stages.sources._files.tar import PADDING, Encoder, xattr_record

# Non-blocking: a FIFO may have taken the place of the file.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENOSYS)
_NO_HOLE_MAP = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)

GREW = "grew while it was read; what was added is not in the backup"
SHRANK = "shrank while it was read; the missing part is filled with zero bytes"
CHANGED = "changed while it was read"


@dataclass
class Note:
    """Something to say about a file that was written."""

    name: bytes
    text: str
    lost: bool = False
    """Its content is not what it was."""


@dataclass
class Block:
    """Finished members."""

    data: bytes
    files: int
    size: int
    """Bytes of content."""
    notes: list[Note]


@dataclass
class Held:
    """An open file whose member is still to be written; close it."""

    name: bytes
    fd: int
    stat: os.stat_result

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass
class Failed:
    """A file that could not be opened or read."""

    name: bytes
    error: OSError


@dataclass
class _Pending:
    parts: list[bytes] = field(default_factory=list)
    files: int = 0
    size: int = 0
    notes: list[Note] = field(default_factory=list)

    def block(self) -> Block:
        return Block(b"".join(self.parts), self.files, self.size, self.notes)


class Reader:
    """Turns regular files into members."""

    def __init__(self, encoder: Encoder, xattrs: bool) -> None:
        self._encoder = encoder
        self._xattrs = xattrs

    def files(
        self, directory: int, prefix: bytes, names: Sequence[bytes]
    ) -> Iterator[Block | Held | Failed]:
        """Read the named files of an open directory, in this order.

        Args:
            directory: descriptor of the directory.
            prefix: what member names put before the name.
            names: of regular files, as the directory listed them.
        """
        pending = _Pending()
        for name in names:
            odd = self._file(directory, prefix, name, pending)
            if odd is None:
                pending.files += 1
                if pending.size + 1024 * pending.files < CHUNK:
                    continue
            if pending.parts:
                yield pending.block()
                pending = _Pending()
            if odd is not None:
                yield odd
        if pending.parts:
            yield pending.block()

    def _file(
        self, directory: int, prefix: bytes, name: bytes, pending: _Pending
    ) -> Held | Failed | None:
        """Add a small file to `pending`; anything else is returned."""
        try:
            fd = _open(name, directory)
        except OSError as error:
            return Failed(name, error)
        held = False
        try:
            inode = os.fstat(fd)
            size = inode.st_size
            if (
                size >= CHUNK
                or inode.st_nlink != 1
                or inode.st_blocks * 512 < size
                or not stat.S_ISREG(inode.st_mode)
            ):
                held = True
                return Held(name, fd, inode)
            # One byte more than there should be tells whether the file has grown.
            data = os.read(fd, size + 1)
            if len(data) < size:
                held = True
                return Held(name, fd, inode)
            records = self.attributes(fd, name, pending.notes) if self._xattrs else b""
        except OSError as error:
            return Failed(name, error)
        finally:
            if not held:
                os.close(fd)
        if len(data) > size:
            data = data[:size]
            pending.notes.append(Note(name, GREW))
        pending.size += size
        pending.parts += (
            self._encoder.file(prefix + name, inode, size, records),
            data,
            PADDING[size % 512],
        )
        return None

    def attributes(self, file: int | bytes, name: bytes, notes: list[Note]) -> bytes:
        """Records of the extended attributes of a descriptor, or of a path, not followed."""
        if not self._xattrs:
            return b""
        follow = isinstance(file, int)
        try:
            found = os.listxattr(file, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                notes.append(Note(name, f"extended attributes: {reason(error)}", lost=True))
            return b""
        records = b""
        for attribute in sorted(found):
            try:
                value = os.getxattr(file, attribute, follow_symlinks=follow)
                records += xattr_record(attribute, value)
            except OSError as error:
                if error.errno != errno.ENODATA:
                    text = f'extended attribute "{attribute}": {reason(error)}'
                    notes.append(Note(name, text, lost=True))
            except ValueError as error:
                notes.append(Note(name, f'extended attribute "{attribute}": {error}', lost=True))
        return records


def _open(name: bytes, directory: int) -> int:
    """Open a file without touching its access time, where that is allowed."""
    try:
        return os.open(name, _OPEN | os.O_NOATIME, dir_fd=directory)
    except OSError as error:
        flags = _OPEN
        if error.errno == errno.EAGAIN:
            # A lease (Samba, NFS server) is being broken, and only a blocking open waits for that.
            if not stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode):
                raise
            flags &= ~os.O_NONBLOCK
        elif error.errno not in (errno.EPERM, errno.ESTALE):
            raise
    return os.open(name, flags, dir_fd=directory)


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


def reason(error: OSError) -> str:
    """The system's words for what went wrong, to follow the name of an item."""
    if error.errno == errno.ENOENT:
        return "vanished before it was read"
    text = error.strerror or "cannot be read"
    return text[:1].lower() + text[1:]
