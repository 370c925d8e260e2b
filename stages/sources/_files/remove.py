"""Removing an item with all that is in it, however deep, without following symbolic links."""

from __future__ import annotations

import os
from dataclasses import dataclass

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class _Level:
    name: bytes
    outer: os.stat_result
    """Of the directory it is in."""
    left: list[bytes]
    """Subdirectories that are still to be removed."""


def remove(parent: int, name: bytes) -> None:
    """Remove `name` from an open directory.

    Raises:
        OSError: something cannot be removed, or is moved meanwhile.
    """
    try:
        fd = os.open(name, _OPEN, dir_fd=parent)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    # One descriptor is enough: `..` leads back, and is checked.
    levels = [_Level(name, os.fstat(parent), _clear(fd))]
    try:
        while levels:
            level = levels[-1]
            if level.left:
                here = os.fstat(fd)
                fd = _swap(fd, inner := level.left.pop())
                levels.append(_Level(inner, here, _clear(fd)))
            else:
                fd = _swap(fd, b"..")
                if not os.path.samestat(os.fstat(fd), level.outer):
                    raise OSError("it was moved while it was removed")
                os.rmdir(levels.pop().name, dir_fd=fd)
    finally:
        os.close(fd)


def _swap(fd: int, name: bytes) -> int:
    """Go on to another directory."""
    other = os.open(name, _OPEN, dir_fd=fd)
    os.close(fd)
    return other


def _clear(fd: int) -> list[bytes]:
    """Remove all but the subdirectories, and return these."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                directories.append(name)
            else:
                os.unlink(name, dir_fd=fd)
    return directories
