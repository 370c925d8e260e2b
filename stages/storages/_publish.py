"""Give a finished file its name without ever replacing another one, on any file system."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NOT_SUPPORTED = frozenset(
    {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EMLINK, errno.EXDEV}
)
"""What file systems say that have no hard links, or no rename that spares its target."""

Publish = Callable[[str, str], None]
"""Moves the first path to the second, or raises FileExistsError and leaves both as they are."""


def by_link(part: str, final: str) -> None:
    """Atomic wherever there are hard links, NFS included."""
    os.link(part, final, follow_symlinks=False)
    # Gone already when somebody aborts at this very moment; the object is complete all the same.
    _unlink_quietly(part)


def by_exclusive_rename(part: str, final: str) -> None:
    """Linux renameat2(2) with RENAME_NOREPLACE: for FAT, which has no hard links."""
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)  # Older C libraries lack it.
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), part)
    arguments = (_AT_FDCWD, os.fsencode(part), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE)
    if renameat2(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), final)


def by_rename(part: str, final: str) -> None:
    """The last resort: not atomic, another process may come between the look and the rename."""
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final)
    os.rename(part, final)


def publish(
    part: str,
    final: str,
    ways: Sequence[Publish] = (by_link, by_exclusive_rename, by_rename),
) -> None:
    """Move `part` to `final` by the first of the ways that this file system knows.

    Raises:
        FileExistsError: `final` exists; nothing has changed.
        OSError: it could not be moved.
    """
    for way in ways[:-1]:
        try:
            way(part, final)
            return
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
    ways[-1](part, final)


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
