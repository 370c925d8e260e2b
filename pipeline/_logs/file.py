"""A log file that is rotated by the usual means."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `check` looks at the file, and renders nothing
    from pipeline.logs import Record, Render

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
# A pipe that nobody reads must not make us wait, not even for its refusal.
_FLAGS |= os.O_NONBLOCK


class LogFile:
    """Appends a line for each record, and follows when the file is moved away under it.

    Raises:
        OSError: it cannot be opened.
    """

    name = "file"

    def __init__(self, path: str, render: Render) -> None:
        self._path = path
        self._render = render
        self._descriptor = _opened(path, _FLAGS | os.O_CREAT)

    def write(self, record: Record) -> None:
        """Write a line.

        Raises:
            OSError: it was not written, or only in part.
        """
        if self._is_moved():
            self.reopen()
        data = memoryview((self._render(record) + "\n").encode("utf-8", "replace"))
        while data:
            data = data[os.write(self._descriptor, data) :]

    def reopen(self) -> None:
        """Go on with the file that has the name now, or a new one.

        Raises:
            OSError: it cannot be opened; what follows goes where it went before.
        """
        fresh = _opened(self._path, _FLAGS | os.O_CREAT)
        stale, self._descriptor = self._descriptor, fresh
        os.close(stale)

    def close(self) -> None:
        os.close(self._descriptor)

    def _is_moved(self) -> bool:
        ours = os.fstat(self._descriptor)
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return True
        return (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino)


def try_out(path: str) -> None:
    """See whether a log could be written there, without making the file.

    Raises:
        OSError: it could not.
    """
    try:
        os.close(_opened(path, _FLAGS))
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _opened(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Is not a regular file")
    return descriptor
