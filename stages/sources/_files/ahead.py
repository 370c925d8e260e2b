"""Directories that are opened and listed before the walk gets to them."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pipeline.context import Teardown
from stages.sources._files.directory import Directory
from stages.sources._files.pace import Pace
from stages.sources._files.scan import Scanner
from stages.sources._files.tasks import Pool, Room, Task

NAMES = 160_000
"""So many names may wait in memory, some 100 bytes each; the rest of a long list comes later."""
_OPEN = 128
"""Descriptors at most."""
_SIBLINGS = 16
"""Of each directory: further ones would take the place of what comes before them."""
TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)


class Ahead:
    """Scans what comes next, as far as it is known. Serves one walk after the other; close it.

    Args:
        pace: says how many at once, and is told what they cost.
    """

    def __init__(self, pace: Pace, teardown: Teardown) -> None:
        self._pace = pace
        self._teardown = teardown
        self._room = Room(NAMES)
        self._pool = Pool("scan")
        self._scans: dict[bytes, Task[Directory]] = {}

    def look(self, scanner: Scanner, stack: Sequence[Directory]) -> None:
        """Start what is missing of the next directories, in the order of the walk.

        Args:
            stack: the open directories, from the top to the innermost.
        """
        readers = self._pace.readers
        if not readers or len(self._scans) >= _OPEN:
            return
        for outer, name in islice(self._next(stack), readers):
            path = outer.path + b"/" + name
            if path not in self._scans and len(self._scans) < _OPEN and outer.hold():
                self._scans[path] = task = self._task(scanner, outer, name)
                self._pool.submit(task, readers)

    def ready(self, path: bytes) -> bool:
        """Whether `take` would not wait."""
        task = self._scans.get(path)
        return task is None or task.done

    def take(self, path: bytes) -> Directory | None:
        """A directory that was scanned, now the walk's; None when the walk has to do it."""
        task = self._scans.pop(path, None)
        if task is None:
            return None
        try:
            directory = task.result((self._room,), self._teardown)
        except BaseException:
            task.cancel()
            raise
        self._room.give_back(task)
        self._pace.spent(task.cpu)
        if directory.error is not None and directory.error.errno in TOO_MANY_OPEN:
            self._pace.limit()
            directory.close()
            return None
        return directory

    def drop(self, outer: Directory, names: Iterable[bytes]) -> None:
        """These subdirectories are not visited after all."""
        for name in names:
            task = self._scans.pop(outer.path + b"/" + name, None)
            if task is not None:
                inner = task.peek()
                if inner is not None:
                    self.drop(inner, inner.directories)
                task.cancel()
                self._room.give_back(task)

    def forget(self) -> None:
        """Drop what was scanned: the walk ends here."""
        for task in self._scans.values():
            task.cancel()
            self._room.give_back(task)
        self._scans.clear()

    def close(self) -> None:
        """End the threads; one that hangs in the kernel is left behind."""
        self.forget()
        self._room.close()
        self._pool.close()

    def _next(self, stack: Sequence[Directory]) -> Iterator[tuple[Directory, bytes]]:
        for outer in reversed(stack):
            yield from self._below(outer)

    def _below(self, outer: Directory) -> Iterator[tuple[Directory, bytes]]:
        for name in outer.directories[outer.visited : outer.visited + _SIBLINGS]:
            yield outer, name
            task = self._scans.get(outer.path + b"/" + name)
            if task is not None and task.done and (inner := task.peek()) is not None:
                yield from self._below(inner)

    def _task(self, scanner: Scanner, outer: Directory, name: bytes) -> Task[Directory]:
        def scan(task: Task[Directory]) -> Directory:
            try:
                return scanner.enter(outer, name, lambda names: self._room.take(task, names))
            finally:
                outer.release()

        def discard(directory: Directory | None, has_run: bool) -> None:
            if directory is not None:
                directory.close()
            if not has_run:
                outer.release()

        return Task(scan, discard)
