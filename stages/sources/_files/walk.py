"""The order in which a tree is visited: a directory, its files, then its subdirectories, sorted.

Only the innermost directories stay open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from stages.sources._files.ahead import Ahead
from stages.sources._files.directory import Directory
from stages.sources._files.scan import OPEN, Scanner

_KEPT_OPEN = 64
"""Open directories at most; deeper trees reopen the outer ones through `..`."""


class Walk:
    """Visits the directory `name` below the open directory `parent`, and everything in it.

    Args:
        path: whole path of the directory, for patterns and messages.
        ahead: scans directories before they are visited.
    """

    def __init__(
        self, parent: int, name: bytes, path: bytes, scanner: Scanner, ahead: Ahead | None = None
    ) -> None:
        self._scanner = scanner
        self._ahead = ahead
        self._stack: list[Directory] = []
        self._top: Callable[[], Directory] | None = lambda: scanner.top(parent, name, path)

    def advance(self) -> Directory | None:
        """The next directory, or None after the last one; it is open until the walk leaves it."""
        if self._top is not None:
            self._stack.append(self._top())
            self._top = None
            return self._stack[-1]
        while self._stack:
            outer = self._stack[-1]
            if outer.visited < len(outer.directories):
                name = outer.directories[outer.visited]
                outer.visited += 1
                return self._descend(outer, name)
            _leave(self._stack)
        return None

    def again(self) -> Directory | None:
        """Enter the last directory once more, for which there were too few descriptors."""
        self.relieve()
        if len(self._stack) > 1:
            self._stack.pop()
            outer = self._stack[-1]
            return self._descend(outer, outer.directories[outer.visited - 1])
        return self._stack[-1]

    def relieve(self) -> None:
        """Give up what was scanned ahead: it keeps descriptors that others need now."""
        if self._ahead is not None:
            self._ahead.forget()

    def ready(self) -> bool:
        """Whether `advance` would not wait for another thread."""
        if self._ahead is None:
            return True
        for outer in reversed(self._stack):
            if outer.visited < len(outer.directories):
                return self._ahead.ready(outer.path + b"/" + outer.directories[outer.visited])
        return True

    def look_ahead(self) -> None:
        """Have scanned what comes next."""
        if self._ahead is not None:
            self._ahead.look(self._scanner, self._stack)

    def narrow(self, directory: Directory, left_out: Iterable[bytes]) -> None:
        """Tell that names were taken out of the list of subdirectories."""
        if self._ahead is not None:
            self._ahead.drop(directory, left_out)

    def close(self) -> None:
        for directory in self._stack:
            directory.close()
        self._stack.clear()
        if self._ahead is not None:
            self._ahead.forget()

    def _descend(self, outer: Directory, name: bytes) -> Directory:
        inner = self._ahead.take(outer.path + b"/" + name) if self._ahead else None
        if inner is None:
            inner = self._scanner.enter(outer, name)
        self._stack.append(inner)
        if len(self._stack) > _KEPT_OPEN:
            self._stack[-1 - _KEPT_OPEN].close()
        return inner


def _leave(stack: list[Directory]) -> None:
    """Go back to the outer directory, which may have been closed meanwhile."""
    inner = stack.pop()
    if stack and not stack[-1].recover():
        stack[-1].fd = _reopen(inner.fd, stack[-1].stat)
    inner.close()


def _reopen(inner: int, expected: os.stat_result | None) -> int:
    try:
        fd = os.open("..", OPEN, dir_fd=inner)
    except OSError:
        return -1
    if expected and os.path.samestat(os.fstat(fd), expected):
        return fd
    os.close(fd)
    return -1
