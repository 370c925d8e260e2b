"""The ordered writer: what walk and reader deliver becomes one archive, in a fixed order."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from pipeline.context import Findings, StageContext
from pipeline.stage import CHUNK
from schemas.sources import FilesSource
from stages.sources._files import tar
from stages.sources._files.exclude import Excludes
from stages.sources._files.names import no_names, owner_names
from stages.sources._files.policy import Policy, unreadable
from stages.sources._files.read import (
    CHANGED,
    GREW,
    SHRANK,
    Block,
    Held,
    Note,
    Reader,
    extents,
    reason,
)
from stages.sources._files.walk import Directory, walk

_KINDS = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFIFO: tar.FIFO,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
}
_NOT_REGULAR_ANY_MORE = (errno.ELOOP, errno.ENXIO)


@dataclass(frozen=True)
class Root:
    """A path that was asked for."""

    path: bytes
    """Whole path, normalised; empty for the root of the file system."""
    cut: int
    """So many leading bytes of a path are not part of the member name."""


@dataclass
class _Link:
    name: bytes
    left: int
    """Names of the file that have not been seen."""


class _Output:
    """Collects parts until there is a chunk."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._parts: list[bytes] = []
        self._size = 0
        self._position = 0

    @property
    def room(self) -> int:
        """Bytes until the next chunk is full."""
        return CHUNK - self._size

    def put(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)

    def ready(self) -> Iterator[bytes]:
        """What there is, when it is enough."""
        if self._size >= CHUNK:
            yield from self.all()

    def all(self) -> Iterator[bytes]:
        self._check()
        whole = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._position += len(whole)
        if len(whole) < 4 * CHUNK:
            yield whole
        else:
            yield from (whole[at : at + CHUNK] for at in range(0, len(whole), CHUNK))

    def end(self) -> Iterator[bytes]:
        """The end of the archive."""
        self.put(tar.end(self._position + self._size))
        yield from self.all()


class Archive:
    """One run over some roots; `chunks` is to be used once."""

    def __init__(self, spec: FilesSource, roots: Sequence[Root], context: StageContext) -> None:
        self._roots = roots
        self._excludes = Excludes(spec.exclude)
        self._one_file_system = spec.one_file_system
        self._findings: Findings = context.findings
        self._policy = Policy(spec.on_unreadable, (root.path for root in roots), self._findings)
        self._output = _Output(context.teardown.check)
        self._encoder = tar.Encoder(no_names if spec.numeric_owner else owner_names)
        self._reader = Reader(self._encoder, spec.xattrs)
        self._links: dict[tuple[int, int], _Link] = {}
        self._inner: dict[bytes, set[bytes]] = {}
        for root in roots:
            outer, _, name = root.path.rpartition(b"/")
            self._inner.setdefault(outer, set()).add(name)
        self._visited: set[bytes] = set()
        self._cut = 0

    def chunks(self) -> Iterator[bytes]:
        """The archive, to its end.

        Raises:
            SourceError: a root cannot be read, or anything cannot and the policy is to fail.
        """
        for what in ("files", "directories", "bytes"):
            self._findings.count(what, 0)
        for root in self._roots:
            if root.path not in self._visited:
                self._cut = root.cut
                try:
                    yield from self._root(root.path)
                except OSError as error:
                    raise unreadable(root.path, reason(error)) from error
        yield from self._output.end()

    def _root(self, path: bytes) -> Iterator[bytes]:
        outer, _, name = path.rpartition(b"/")
        parent = os.open(outer or b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mode = os.lstat(name or b".", dir_fd=parent).st_mode
            if stat.S_ISDIR(mode):
                tree = walk(parent, name or b".", path, self._excludes, self._one_file_system)
                with closing(tree):
                    for directory in tree:
                        yield from self._directory(directory)
            elif stat.S_ISSOCK(mode):
                raise unreadable(path, "a socket has no content")
            else:
                yield from self._contents(_alone(outer, parent, name, mode))
            if stat.S_ISLNK(mode):
                self._policy.warn(path, "a symbolic link, and only the link was saved")
        finally:
            os.close(parent)

    def _directory(self, directory: Directory) -> Iterator[bytes]:
        path = directory.path
        if directory.stat is not None:
            records = self._attributes(directory.fd, path) if directory.fd >= 0 else b""
            name = (path[self._cut :] or b".") + b"/"
            header = self._encoder.member(name, directory.stat, tar.DIRECTORY, records=records)
            self._output.put(header)
            self._findings.count("directories")
        if directory.error is not None:
            self._policy.missing(path, directory.error)
        if directory.fd >= 0:
            self._mark_visited(directory)
            yield from self._contents(directory)
        yield from self._output.ready()

    def _mark_visited(self, directory: Directory) -> None:
        """Roots inside of other roots are not archived twice."""
        self._visited.add(directory.path)
        inner = self._inner.get(directory.path)
        if inner:
            found = inner.intersection(directory.files + directory.others)
            self._visited.update(directory.path + b"/" + name for name in found)

    def _contents(self, directory: Directory) -> Iterator[bytes]:
        prefix = (directory.path + b"/")[self._cut :]
        for item in self._reader.files(directory.fd, prefix, directory.files):
            if isinstance(item, Block):
                self._block(directory.path, item)
            elif isinstance(item, Held):
                yield from self._held(directory, item)
            elif item.error.errno in _NOT_REGULAR_ANY_MORE:
                self._other(directory, item.name)
            else:
                self._policy.missing(directory.path + b"/" + item.name, item.error)
            yield from self._output.ready()
        for name in directory.others:
            self._other(directory, name)
            yield from self._output.ready()

    def _block(self, directory: bytes, block: Block) -> None:
        self._output.put(block.data)
        self._findings.count("files", block.files)
        self._findings.count("bytes", block.size)
        self._policy.notes(directory, block.notes)

    def _held(self, directory: Directory, held: Held) -> Iterator[bytes]:
        path = directory.path + b"/" + held.name
        try:
            if not stat.S_ISREG(held.stat.st_mode):
                self._other(directory, held.name)
            elif not self._linked(path, held.stat):
                yield from self._big(path, held)
        finally:
            held.close()

    def _big(self, path: bytes, held: Held) -> Iterator[bytes]:
        """A file in pieces, without its holes."""
        size = held.stat.st_size
        data = [(0, size)]
        if held.stat.st_blocks * 512 < size:
            try:
                data = extents(held.fd, size)
            except OSError as error:
                self._policy.missing(path, error)
                return
        name, stored, shape = path[self._cut :], size, b""
        records = self._attributes(held.fd, path)
        if data != [(0, size)]:
            shape = tar.sparse_map(tar.join_extents(data, size))
            stored = len(shape) + sum(length for _, length in data)
            records += tar.sparse_records(name, size)
            name = tar.sparse_name(name)
        self._output.put(self._encoder.member(name, held.stat, size=stored, records=records))
        self._output.put(shape)
        yield from self._output.ready()
        yield from self._data(path, held, data)
        self._output.put(tar.PADDING[stored % tar.BLOCK])
        self._findings.count("files")
        self._findings.count("bytes", size)
        self._remember(path, held.stat)

    def _data(self, path: bytes, held: Held, data: list[tuple[int, int]]) -> Iterator[bytes]:
        """Exactly the promised bytes; what cannot be read is made up of zeros, and said."""
        problem = ""
        for offset, length in data:
            end = offset + length
            while offset < end:
                want = min(end - offset, self._output.room)
                piece = b""
                if not problem:
                    piece, problem = _piece(held.fd, want, offset)
                piece = piece or bytes(want)
                offset += len(piece)
                self._output.put(piece)
                yield from self._output.ready()
        if problem:
            self._policy.damaged(path, problem)
        else:
            self._compare(path, held)

    def _compare(self, path: bytes, held: Held) -> None:
        now = os.fstat(held.fd)
        if now.st_size > held.stat.st_size:
            self._policy.warn(path, GREW)
        elif now.st_mtime_ns != held.stat.st_mtime_ns:
            self._policy.warn(path, CHANGED)

    def _other(self, directory: Directory, name: bytes) -> None:
        """A symbolic link, FIFO, device node or socket."""
        path = directory.path + b"/" + name
        try:
            inode = os.lstat(name, dir_fd=directory.fd)
            kind = _KINDS.get(stat.S_IFMT(inode.st_mode))
            link = os.readlink(name, dir_fd=directory.fd) if kind == tar.SYMLINK else b""
        except OSError as error:
            self._policy.missing(path, error)
            return
        if stat.S_ISSOCK(inode.st_mode):
            self._findings.count("sockets_skipped")
        elif kind is None:
            self._policy.damaged(path, "was replaced while it was read")
        elif not self._linked(path, inode):
            self._special(path, inode, kind, link, b"/proc/self/fd/%d/%b" % (directory.fd, name))

    def _special(
        self, path: bytes, inode: os.stat_result, kind: bytes, link: bytes, place: bytes
    ) -> None:
        device = None
        if kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            device = (os.major(inode.st_rdev), os.minor(inode.st_rdev))
        records = self._attributes(place, path)
        name = path[self._cut :]
        self._output.put(
            self._encoder.member(name, inode, kind, link=link, records=records, device=device)
        )
        self._findings.count("symlinks" if kind == tar.SYMLINK else "specials")
        self._remember(path, inode)

    def _linked(self, path: bytes, inode: os.stat_result) -> bool:
        """Write a hard link when the file is in the archive already."""
        key = (inode.st_dev, inode.st_ino)
        first = self._links.get(key) if inode.st_nlink > 1 else None
        if first is None:
            return False
        name = path[self._cut :]
        self._output.put(self._encoder.member(name, inode, tar.HARD_LINK, link=first.name))
        self._findings.count("hard_links")
        first.left -= 1
        if not first.left:
            del self._links[key]
        return True

    def _remember(self, path: bytes, inode: os.stat_result) -> None:
        if inode.st_nlink > 1:
            link = _Link(path[self._cut :], inode.st_nlink - 1)
            self._links[inode.st_dev, inode.st_ino] = link

    def _attributes(self, file: int | bytes, path: bytes) -> bytes:
        notes: list[Note] = []
        records = self._reader.attributes(file, b"", notes)
        self._policy.notes(path, notes)
        return records


def _alone(outer: bytes, parent: int, name: bytes, mode: int) -> Directory:
    """A root that is not a directory, as the only item of the directory it is in."""
    if stat.S_ISREG(mode):
        return Directory(outer, fd=parent, files=[name])
    return Directory(outer, fd=parent, others=[name])


def _piece(fd: int, want: int, offset: int) -> tuple[bytes, str]:
    """Up to `want` bytes, or why there are none."""
    try:
        piece = os.pread(fd, want, offset)
    except OSError as error:
        return b"", f"{reason(error)} after {offset} bytes; the rest is filled with zero bytes"
    return piece, "" if piece else SHRANK
