"""The order in which a tree is visited: a directory, its files, then its subdirectories, sorted.

Every step is relative to an open directory and follows no symbolic link: no race can lead outside,
and paths may be longer than the kernel allows in one call. Only the innermost directories stay
open. Names are sorted by their bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from dataclasses import dataclass, field

from stages.sources._files.exclude import Excludes

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_KEPT_OPEN = 64
"""Open directories at most; deeper trees reopen the outer ones through `..`."""


@dataclass
class Directory:
    """A directory that is being visited; `fd` is open until the next one is asked for."""

    path: bytes
    """Whole path; empty for the root of the file system."""
    stat: os.stat_result | None = None
    fd: int = -1
    """-1 when it is not entered: unreadable, or another file system."""
    files: list[bytes] = field(default_factory=list)
    """Names of regular files."""
    others: list[bytes] = field(default_factory=list)
    """Names of what is neither a regular file nor a directory."""
    directories: list[bytes] = field(default_factory=list)
    """Names of subdirectories."""
    error: OSError | None = None
    """Why its list of names is missing or incomplete."""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def walk(
    parent: int, name: bytes, path: bytes, excludes: Excludes, one_file_system: bool = False
) -> Generator[Directory, None, None]:
    """Visit the directory `name` below the open directory `parent`, and everything in it.

    Args:
        path: whole path of the directory, for exclude patterns and messages.
        one_file_system: mount points are visited, but not entered.
    """
    visit = _Visit(excludes)
    top = visit.enter(parent, name, path)
    if one_file_system and top.stat:
        visit.device = top.stat.st_dev
    stack = [top]
    try:
        yield top
        top.directories.reverse()
        while stack:
            outer = stack[-1]
            if not outer.directories:
                _leave(stack)
                continue
            name = outer.directories.pop()
            inner = visit.enter(outer.fd, name, outer.path + b"/" + name)
            stack.append(inner)
            if len(stack) > _KEPT_OPEN:
                stack[-1 - _KEPT_OPEN].close()
            yield inner
            inner.directories.reverse()
    finally:
        for directory in stack:
            directory.close()


class _Visit:
    def __init__(self, excludes: Excludes) -> None:
        self._excludes = excludes
        self.device: int | None = None
        """The only file system to enter."""

    def enter(self, parent: int, name: bytes, path: bytes) -> Directory:
        directory = Directory(path)
        if parent < 0:
            directory.error = OSError(errno.ESTALE, "a directory above was moved while it was read")
            return directory
        try:
            if self.device is not None:
                # Before it is opened: that would mount what waits for an automounter.
                directory.stat = os.lstat(name, dir_fd=parent)
                if directory.stat.st_dev != self.device:
                    return directory
            directory.fd = os.open(name, _OPEN, dir_fd=parent)
            directory.stat = os.fstat(directory.fd)
            self._scan(directory)
        except OSError as error:
            directory.error = error
            directory.stat = directory.stat or _look(name, parent)
        return directory

    def _scan(self, directory: Directory) -> None:
        files, others, directories = directory.files, directory.others, directory.directories
        encode = os.fsencode
        try:
            with os.scandir(directory.fd) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        files.append(encode(entry.name))
                    elif entry.is_dir(follow_symlinks=False):
                        directories.append(encode(entry.name))
                    else:
                        others.append(encode(entry.name))
        except OSError as error:
            directory.error = error
        for names in (files, others, directories):
            if self._excludes:
                names[:] = self._excludes.keep(directory.path, names)
            names.sort()


def _look(name: bytes, parent: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=parent)
    except OSError:
        return None


def _leave(stack: list[Directory]) -> None:
    """Go back to the outer directory, which may have been closed meanwhile."""
    inner = stack.pop()
    if stack and stack[-1].fd < 0:
        stack[-1].fd = _reopen(inner.fd, stack[-1].stat)
    inner.close()


def _reopen(inner: int, expected: os.stat_result | None) -> int:
    try:
        fd = os.open("..", _OPEN, dir_fd=inner)
    except OSError:
        return -1
    if expected and os.path.samestat(os.fstat(fd), expected):
        return fd
    os.close(fd)
    return -1
