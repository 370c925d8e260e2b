"""Reading ahead of the writer, in its order, within bounds of memory and descriptors.

The tree is cut into batches of a few items each. A window of them is in flight, and the writer
takes what the first one made; so the order never depends on who is faster. When the source is fast
the window is empty, and the writer reads the next batch by itself.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pipeline.context import Teardown
from pipeline.stage import CHUNK
from stages.sources._files.ahead import TOO_MANY_OPEN
from stages.sources._files.directory import Directory
from stages.sources._files.items import Big, Failed, Item
from stages.sources._files.pace import Pace
from stages.sources._files.read import Claim, Reader
from stages.sources._files.tasks import Pool, Room, Task
from stages.sources._files.walk import Walk

T = TypeVar("T")

MEMORY = 32 * CHUNK
"""Bytes that are read before the writer wants them."""
_BIG_FILES = 64
"""Big files that are opened before the writer wants them."""
_PATIENCE = 0.1
"""Seconds for threads to close files."""
PIECES = 8
"""Of a big file, in flight."""


@dataclass(frozen=True)
class Step:
    """What the writer has to do next."""

    directory: Directory
    item: Item | None = None
    """None: the directory itself, which begins or ends."""
    ends: bool = False


@dataclass(frozen=True)
class Piece:
    """Of a big file; shorter than it should be where the file ended or could not be read."""

    size: int
    data: bytes
    error: OSError | None = None


@dataclass
class _Batch:
    """Items of a directory that are read together."""

    directory: Directory
    names: list[bytes]
    regular: bool
    """Whether the directory listed them as regular files."""
    first: bool
    last: bool
    held: bool
    """The directory is kept open for the batch."""
    task: Task[list[Item]] | None = None
    """None: the writer reads it by itself, or has taken what was read."""
    items: deque[Item] = field(default_factory=deque)

    def close(self) -> None:
        """Free what nobody wants any more."""
        if self.task is not None:
            self.task.cancel()
        else:
            self.free(self.items)

    def free(self, items: Iterable[Item] | None) -> None:
        """Close the directory, and what the writer did not get to see."""
        for item in items or ():
            if isinstance(item, Big):
                item.close()
        if self.held:
            self.directory.release()
            self.held = False


class Prefetch:
    """Reads trees, one after the other; close it in the end.

    Args:
        reader: may be used by several threads.
        pace: says how many batches are in flight, and is told what they cost.
    """

    def __init__(self, reader: Reader, pace: Pace, teardown: Teardown) -> None:
        self._reader = reader
        self._pace = pace
        self._teardown = teardown
        self._memory = Room(MEMORY)
        self._descriptors = Room(_BIG_FILES)
        self._pool = Pool("read")
        self._window: deque[_Batch] = deque()

    def steps(
        self, walk: Walk, begin: Callable[[Directory], None], cut: int
    ) -> Generator[Step, None, None]:
        """A tree in order.

        Args:
            begin: called in order with each directory, before anything of it is read; may narrow
                its lists of names.
            cut: so many leading bytes of a path are not part of the member name.
        """
        plan = _Plan(walk, begin)
        try:
            while True:
                self._fill(plan, cut)
                batch = self._window.popleft() if self._window else plan.next(self._pace.batch)
                if batch is None:
                    return
                task = batch.task
                try:
                    if batch.first:
                        yield Step(batch.directory)
                    for item in self._items(batch, cut, walk):
                        yield Step(batch.directory, item)
                    if batch.last:
                        yield Step(batch.directory, ends=True)
                finally:
                    batch.close()
                    if task is not None:
                        self._memory.give_back(task)
                        self._descriptors.give_back(task)
                self._pace.adjust()
        finally:
            while self._window:
                self._window.popleft().close()

    def pieces(self, file: Big) -> Generator[Piece, None, None]:
        """The data of a big file; nothing follows a piece that is too short."""
        wanted = ((at, size) for extent in file.extents for at, size in _cut(*extent))
        flying: deque[Task[Piece]] = deque()
        try:
            while True:
                readers = self._pace.readers
                while len(flying) < min(readers, PIECES) and (span := next(wanted, None)):
                    flying.append(_piece_task(file, *span))
                    self._pool.submit(flying[-1], readers)
                if flying:
                    piece = self._result(flying.popleft())
                elif span := next(wanted, None):
                    piece = _read(file.fd, *span)
                else:
                    return
                yield piece
                if len(piece.data) < piece.size:
                    return
                self._pace.adjust()
        finally:
            for task in flying:
                task.cancel()

    def close(self) -> None:
        """End the threads; one that hangs in the kernel is left behind."""
        self._memory.close()
        self._descriptors.close()
        self._pool.close()

    def _fill(self, plan: _Plan, cut: int) -> None:
        readers = self._pace.readers
        while len(self._window) < readers and (not self._window or plan.ready()):
            batch = plan.next(self._pace.batch, postpone=True)
            if batch is None:
                break
            if batch.names:
                batch.task = self._task(batch, cut)
                self._pool.submit(batch.task, readers)
            self._window.append(batch)

    def _task(self, batch: _Batch, cut: int) -> Task[list[Item]]:
        def read(task: Task[list[Item]]) -> list[Item]:
            claim = Claim(
                lambda size: self._memory.take(task, size),
                lambda: self._descriptors.take(task, 1),
            )
            items: list[Item] = []
            try:
                items.extend(self._read(batch, cut, claim))
            except BaseException:
                batch.free(items)
                raise
            return items

        return Task(read, lambda items, _: batch.free(items))

    def _read(self, batch: _Batch, cut: int, claim: Claim | None = None) -> Iterator[Item]:
        read = self._reader.files if batch.regular else self._reader.others
        directory = batch.directory
        return read(directory.fd, (directory.path + b"/")[cut:], batch.names, claim)

    def _items(self, batch: _Batch, cut: int, walk: Walk) -> Iterator[Item]:
        if batch.task is None:
            yield from self._read(batch, cut)
            return
        items = self._result(batch.task)
        batch.items, batch.task = deque(items), None
        while batch.items:
            item = batch.items.popleft()
            if isinstance(item, Failed) and item.error.errno in TOO_MANY_OPEN:
                yield from self._again(batch, item.name, cut, walk)
            else:
                yield item

    def _again(self, batch: _Batch, name: bytes, cut: int, walk: Walk) -> Iterator[Item]:
        """Read a file for which there was no descriptor."""
        self._pace.limit()
        alone = replace(batch, names=[name], regular=True)
        for last in (False, False, True):
            walk.relieve()
            for item in self._read(alone, cut):
                if last or not isinstance(item, Failed) or item.error.errno not in TOO_MANY_OPEN:
                    yield item
                    return
            self._teardown.sleep(_PATIENCE)

    def _result(self, task: Task[T]) -> T:
        result = task.result((self._memory, self._descriptors), self._teardown)
        self._pace.spent(task.cpu)
        return result


class _Plan:
    """Cuts a tree into batches."""

    def __init__(self, walk: Walk, begin: Callable[[Directory], None]) -> None:
        self._walk = walk
        self._begin = begin
        self._directory: Directory | None = None
        self._lists: list[tuple[bool, list[bytes]]] = []
        self._at = 0
        self._postponed = False

    def ready(self) -> bool:
        """Whether `next` would not wait for another thread."""
        return self._directory is not None or self._walk.ready()

    def next(self, most: int, postpone: bool = False) -> _Batch | None:
        """The next items, `most` at most; None at the end.

        Args:
            postpone: answer None as well when there are too few descriptors to go on now.
        """
        first = self._directory is None
        directory = self._directory or self._enter(postpone)
        if directory is None:
            return None
        regular, names = self._lists[0] if self._lists else (True, [])
        some = names[self._at : self._at + most]
        self._at += most
        if self._at >= len(names):
            del self._lists[:1]
            self._at = 0
        last = not self._lists
        self._directory = None if last else directory
        return _Batch(directory, some, regular, first, last, held=directory.hold())

    def _enter(self, postpone: bool) -> Directory | None:
        directory = self._walk.again() if self._postponed else self._walk.advance()
        if directory is None:
            return None
        error = directory.error
        self._postponed = postpone and error is not None and error.errno in TOO_MANY_OPEN
        if self._postponed:
            return None
        listed = list(directory.directories)
        self._begin(directory)
        if len(listed) != len(directory.directories):
            self._walk.narrow(directory, set(listed).difference(directory.directories))
        self._walk.look_ahead()
        lists = ((True, directory.files), (False, directory.others))
        self._lists = [(regular, names) for regular, names in lists if names]
        self._at = 0
        return directory


def _cut(offset: int, length: int) -> Iterator[tuple[int, int]]:
    end = offset + length
    return ((at, min(CHUNK, end - at)) for at in range(offset, end, CHUNK))


def _piece_task(file: Big, offset: int, size: int) -> Task[Piece]:
    def read(_: Task[Piece]) -> Piece:
        try:
            return _read(file.fd, offset, size)
        finally:
            file.release()

    def discard(_: Piece | None, has_run: bool) -> None:
        if not has_run:
            file.release()

    file.hold()
    return Task(read, discard)


def _read(fd: int, offset: int, size: int) -> Piece:
    parts: list[bytes] = []
    left = size
    try:
        while left and (part := os.pread(fd, left, offset + size - left)):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        return Piece(size, b"".join(parts), error)
    return Piece(size, parts[0] if len(parts) == 1 else b"".join(parts))
