"""The ordered writer: what walk and reader deliver becomes one archive, in a fixed order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from pipeline.context import Findings, StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from schemas.sources import FilesSource
from stages.sources._files import ahead, prefetch, tar
from stages.sources._files.ahead import Ahead
from stages.sources._files.attributes import Note, reason
from stages.sources._files.directory import Directory
from stages.sources._files.exclude import Excludes
from stages.sources._files.items import SHRANK, Big, Block, Failed, Item, Single
from stages.sources._files.ledger import Ledger
from stages.sources._files.links import Links
from stages.sources._files.names import no_names, owner_names
from stages.sources._files.output import Output
from stages.sources._files.pace import MEDIUM_BATCH, Pace
from stages.sources._files.policy import Policy, unreadable
from stages.sources._files.prefetch import Prefetch, Step
from stages.sources._files.read import Reader
from stages.sources._files.scan import Scanner, Share
from stages.sources._files.walk import Walk

_ALONE = 6 * CHUNK
_TOGETHER = prefetch.MEMORY + MEDIUM_BATCH * CHUNK + ahead.NAMES * 100 + prefetch.PIECES * CHUNK
_PADDED = "the rest is filled with zero bytes"


@dataclass(frozen=True)
class Root:
    """A path that was asked for."""

    path: bytes
    """Whole path, normalised; empty for the root of the file system."""
    cut: int
    """So many leading bytes of a path are not part of the member name."""


def memory(readers: int) -> int:
    """Bytes held at most: what is read ahead (in the worst case with all of the batch that the
    writer waits for), names of directories, pieces of a big file, and the next chunks.

    What else grows are the names of a directory of millions (some 90 bytes each), and `Links`.
    """
    return _ALONE + (_TOGETHER if readers > 1 else 0)


class Archive:
    """One run over some roots; either `chunks` or `survey`, to be used once.

    Args:
        ledger: is told and asked about everything; may leave things out.
        share: archive only this shard.
    """

    def __init__(
        self,
        spec: FilesSource,
        roots: Sequence[Root],
        context: StageContext,
        ledger: Ledger | None = None,
        share: Share | None = None,
    ) -> None:
        self._roots = roots
        self._ledger = ledger
        self._excludes = Excludes(spec.exclude, spec.include, spec.exclude_if_present)
        self._share = share
        self._includes = bool(spec.include) and ledger is None and share is None
        self._one_file_system = spec.one_file_system
        self._findings: Findings = context.findings
        self._teardown = context.teardown
        self._policy = Policy(spec.on_unreadable, (root.path for root in roots), self._findings)
        self._output = Output(context.teardown.check)
        self._encoder = tar.Encoder(no_names if spec.numeric_owner else owner_names)
        self._links = Links()
        self._reader = Reader(self._encoder, spec.xattrs, self._links)
        self._pace = Pace(spec.readers)
        self._ahead = Ahead(self._pace, context.teardown)
        self._prefetch = Prefetch(self._reader, self._pace, context.teardown)
        self._paths = frozenset(root.path for root in roots)
        self._inner: dict[bytes, set[bytes]] = {}
        for root in roots:
            outer, _, name = root.path.rpartition(b"/")
            self._inner.setdefault(outer, set()).add(name)
        self._visited: set[bytes] = set()
        self._delayed: list[Directory] = []
        self._cut = 0
        self._surveying = False

    def chunks(self) -> Iterator[bytes]:
        """The archive, to its end.

        Raises:
            SourceError: a root cannot be read, or anything cannot and the policy is to fail.
        """
        try:
            for what in ("files", "directories", "bytes"):
                self._findings.count(what, 0)
            for chunk in self._chunks():
                self._pace.pause()
                yield chunk
                self._pace.resume()
        finally:
            self._ahead.close()
            self._prefetch.close()

    def survey(self) -> Iterator[Directory]:
        """All directories in the order of the archive, without reading what is in them.

        Raises:
            SourceError: a root cannot be read.
        """
        self._surveying = True
        try:
            for root in self._each_root():
                with _place(root.path) as (parent, name, mode):
                    if stat.S_ISDIR(mode):
                        yield from self._directories(self._walk(parent, name, root.path))
        finally:
            self._ahead.close()
            self._prefetch.close()

    def _directories(self, walk: Walk) -> Iterator[Directory]:
        with closing(walk):
            while (directory := walk.advance()) is not None:
                self._teardown.check()
                self._begin(directory)
                walk.look_ahead()
                self._pace.pause()
                yield directory
                self._pace.resume()
                if self._ledger is not None:
                    self._ledger.after(directory)
                self._pace.adjust()

    def _each_root(self) -> Iterator[Root]:
        for root in self._roots:
            # Roots inside of other roots are not archived twice.
            if root.path not in self._visited:
                yield root

    def _chunks(self) -> Iterator[bytes]:
        for root in self._each_root():
            self._cut = root.cut
            with _place(root.path) as (parent, name, mode):
                yield from self._root(root.path, parent, name, mode)
        if self._includes and not any(self._findings.counts.values()):
            raise SourceError(
                "nothing that is included was found",
                "look at `include`: a path in it begins at the one that is backed up, or with /",
            )
        yield from self._output.end()

    def _root(self, path: bytes, parent: int, name: bytes, mode: int) -> Iterator[bytes]:
        if stat.S_ISDIR(mode):
            with closing(self._walk(parent, name, path)) as walk:
                steps = self._prefetch.steps(walk, self._begin, self._cut)
                with closing(steps):
                    for step in steps:
                        yield from self._step(step)
        elif stat.S_ISSOCK(mode):
            raise unreadable(path, "a socket has no content")
        elif self._share is None or self._share.has(os.lstat(name, dir_fd=parent).st_ino):
            directory = Directory(path.rpartition(b"/")[0], fd=parent)
            prefix = (directory.path + b"/")[self._cut :]
            read = self._reader.files if stat.S_ISREG(mode) else self._reader.others
            for item in read(parent, prefix, [name]):
                yield from self._item(directory, item)
        if stat.S_ISLNK(mode):
            self._policy.warn(path, "a symbolic link, and only the link was saved")

    def _walk(self, parent: int, name: bytes, path: bytes) -> Walk:
        ledger = self._ledger
        scanner = Scanner(
            self._excludes.below(path),
            self._one_file_system,
            ledger.rows if ledger is not None else None,
            self._scanned,
            self._share,
        )
        return Walk(parent, name, path, scanner, self._ahead)

    def _scanned(self, directory: Directory) -> None:
        """Any thread: a directory was opened and listed."""
        if not self._surveying:
            directory.records = self._reader.attributes(directory.fd, b"", directory.notes)
        if self._ledger is not None:
            self._ledger.scanned(directory)

    def _begin(self, directory: Directory) -> None:
        """In order: nothing of the directory has been read."""
        if directory.fd >= 0:
            self._mark_visited(directory)
        if self._ledger is not None:
            directory.booked = self._ledger.before(directory)

    def _mark_visited(self, directory: Directory) -> None:
        if directory.path in self._paths:
            self._visited.add(directory.path)
        inner = self._inner.get(directory.path)
        if inner:
            found = inner.intersection(directory.files + directory.others)
            self._visited.update(directory.path + b"/" + name for name in found)

    def _step(self, step: Step) -> Iterator[bytes]:
        if step.item is not None:
            yield from self._item(step.directory, step.item)
        elif not step.ends:
            self._directory(step.directory)
        elif self._ledger is not None:
            self._ledger.after(step.directory)
        yield from self._output.ready()

    def _directory(self, directory: Directory) -> None:
        path = directory.path
        while self._delayed and not path.startswith(self._delayed[-1].path + b"/"):
            self._delayed.pop()
        if directory.included:
            self._header(directory)
        else:
            self._delayed.append(directory)
        if directory.error is not None:
            self._uncertain(path, b"")
            self._policy.missing(path, directory.error)
        if directory.mark is not None:
            self._findings.count("directories_marked")

    def _header(self, directory: Directory) -> None:
        self._write_delayed()
        path = directory.path
        name = (path[self._cut :] or b".") + b"/"
        if self._ledger is not None and path in self._paths:
            self._output.put(self._ledger.prologue(self._encoder, directory, name))
        if directory.stat is None or directory.booked is None:
            return
        records = directory.records + directory.booked
        header = self._encoder.member(name, directory.stat, tar.DIRECTORY, records=records)
        self._output.put(header)
        self._findings.count("directories")
        self._tell(path, directory.notes)

    def _write_delayed(self) -> None:
        """Directories that are saved for the sake of what comes now."""
        delayed, self._delayed = self._delayed, []
        for directory in delayed:
            self._header(directory)

    def _item(self, directory: Directory, item: Item) -> Iterator[bytes]:
        if isinstance(item, Failed):
            self._uncertain(directory.path, item.name)
            self._policy.missing(directory.path + b"/" + item.name, item.error)
            return
        if self._delayed:
            self._write_delayed()
        if isinstance(item, Block):
            self._block(directory.path, item)
        else:
            yield from self._single(directory, item)

    def _block(self, directory: bytes, block: Block) -> None:
        self._output.put(block.data)
        for what, number in block.counts.items():
            self._findings.count(what, number)
        if block.notes:
            self._tell(directory, block.notes)

    def _single(self, directory: Directory, item: Single) -> Iterator[bytes]:
        name = (directory.path + b"/" + item.name)[self._cut :]
        first = self._links.first(item.inode) if item.inode.st_nlink > 1 else None
        if isinstance(item, Big):
            with closing(item):
                if first is None:
                    yield from self._big(directory.path, item)
        elif first is None and item.block is not None:
            self._block(directory.path, item.block)
        elif first is None:
            # It was in the archive when it was looked at, and its last name has been used up.
            yield from self._again(directory, item.name)
            return
        if first is None:
            self._links.remember(name, item.inode)
        else:
            self._output.put(self._encoder.member(name, item.inode, tar.HARD_LINK, link=first))
            self._findings.count("hard_links")

    def _again(self, directory: Directory, name: bytes) -> Iterator[bytes]:
        prefix = (directory.path + b"/")[self._cut :]
        for item in self._reader.files(directory.fd, prefix, [name]):
            yield from self._item(directory, item)

    def _big(self, directory: bytes, file: Big) -> Iterator[bytes]:
        """Exactly the promised bytes; what cannot be read is made up of zeros, and said."""
        path = directory + b"/" + file.name
        left = stored = sum(length for _, length in file.extents)
        problem = ""
        self._output.put(file.head)
        with closing(self._prefetch.pieces(file)) as pieces:
            for piece in pieces:
                self._output.put(piece.data)
                left -= len(piece.data)
                if piece.error is not None:
                    problem = f"{reason(piece.error)} after {stored - left} bytes; {_PADDED}"
                yield from self._output.ready()
        yield from self._output.zeros(left)
        self._output.put(tar.PADDING[stored % tar.BLOCK])
        self._findings.count("files")
        self._findings.count("bytes", file.inode.st_size)
        self._tell(directory, file.notes)
        if left:
            self._uncertain(directory, file.name)
            self._policy.damaged(path, problem or SHRANK)
        elif change := file.change():
            self._uncertain(directory, file.name)
            self._policy.warn(path, change)

    def _tell(self, path: bytes, notes: Sequence[Note]) -> None:
        for note in notes:
            self._uncertain(path, note.name)
        self._policy.notes(path, notes)

    def _uncertain(self, path: bytes, name: bytes) -> None:
        if self._ledger is not None:
            self._ledger.uncertain(path, name)


@contextmanager
def _place(path: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Descriptor of the directory that a root is in, the root's name in it, and its mode."""
    outer, _, name = path.rpartition(b"/")
    try:
        parent = os.open(outer or b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield parent, name or b".", os.lstat(name or b".", dir_fd=parent).st_mode
        finally:
            os.close(parent)
    except OSError as error:
        raise unreadable(path, reason(error)) from error
