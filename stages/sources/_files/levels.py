"""The chain of open directories from the target down to where the next member goes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import SourceError
from stages.sources._files.names import printable
from stages.sources._files.tar import ACL_RECORDS
from stages.sources._files.untar import Member

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 64
_DEFAULT_ACL = "system.posix_acl_default"


@dataclass
class _Level:
    name: bytes
    fd: int
    stat: os.stat_result
    heritage: bool
    """It has a default ACL, which new items take over."""
    member: Member | None = None
    """What it gets when it is left."""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Levels:
    """Goes from directory to directory; archives list them so that most steps are short.

    Args:
        root: descriptor of the target, which is closed with the rest.
        settle: called with a directory's member when nothing more will change in it.
    """

    def __init__(self, root: int, settle: Callable[[Member, int], None]) -> None:
        self._settle = settle
        self._levels = [_Level(b"", root, os.fstat(root), _has_heritage(root))]

    def enter(self, parts: list[bytes], member: Member | None = None) -> int:
        """Descriptor of a directory, made when it is missing; with a member it gets what that says.

        Raises:
            SourceError: one of its parts is a symbolic link, or anything but a directory.
        """
        known = 0
        while (
            known < min(len(parts), len(self._levels) - 1)
            and self._levels[known + 1].name == parts[known]
        ):
            known += 1
        while len(self._levels) > known + 1:
            self._leave()
        for at in range(known, len(parts)):
            last = member is not None and at == len(parts) - 1
            self._descend(parts[: at + 1], 0o700 if last else 0o777)
        if member is not None:
            self._levels[-1].member = member
        return self._levels[-1].fd

    @contextmanager
    def visit(self, parts: list[bytes]) -> Iterator[int]:
        """Descriptor of an existing directory anywhere in the target, for a moment."""
        names = [level.name for level in self._levels[1:]]
        if parts == names:
            yield self._levels[-1].fd
            return
        fd = os.open(b".", _OPEN, dir_fd=self._top())
        try:
            for at, part in enumerate(parts):
                inner = _open(part, fd, parts[: at + 1])
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def disown(self, place: int | bytes) -> None:
        """Take from a new item the ACLs that the directory it was made in has passed on."""
        if not self._levels[-1].heritage:
            return
        for attribute in ACL_RECORDS:
            try:
                os.removexattr(place, attribute)
            except OSError as error:
                # A file has no default ACL, and an access ACL may have come to nothing.
                if error.errno not in (errno.ENODATA, errno.EACCES, errno.ENOTSUP):
                    raise

    def settle(self) -> None:
        """Give the innermost directory what its member says."""
        level = self._levels[-1]
        if level.member is not None:
            self._settle(level.member, level.fd)
            level.member = None

    def close(self) -> None:
        for level in self._levels:
            level.close()

    def _top(self) -> int:
        return self._levels[0].fd

    def _descend(self, parts: list[bytes], mode: int) -> None:
        outer = self._levels[-1].fd
        name = parts[-1]
        try:
            fd = _open(name, outer, parts)
        except FileNotFoundError:
            os.mkdir(name, mode, dir_fd=outer)
            fd = _open(name, outer, parts)
            self.disown(fd)
        self._levels.append(_Level(name, fd, os.fstat(fd), _has_heritage(fd)))
        # The target itself stays open.
        if len(self._levels) > _KEPT_OPEN + 1:
            self._levels[-_KEPT_OPEN].close()

    def _leave(self) -> None:
        self.settle()
        inner = self._levels.pop()
        try:
            if self._levels[-1].fd < 0:
                self._reopen(inner.fd, self._levels[-1])
        finally:
            inner.close()

    def _reopen(self, inner: int, outer: _Level) -> None:
        fd = os.open("..", _OPEN, dir_fd=inner)
        if not os.path.samestat(os.fstat(fd), outer.stat):
            os.close(fd)
            raise SourceError(f'"{printable(outer.name)}" was moved while it was restored')
        outer.fd = fd


def _has_heritage(fd: int) -> bool:
    try:
        return bool(os.getxattr(fd, _DEFAULT_ACL))
    except OSError:
        # No such attribute, or no ACLs at all.
        return False


def _open(name: bytes, outer: int, parts: list[bytes]) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=outer)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    raise SourceError(
        f'refused to restore through "{printable(b"/".join(parts))}": it is not a directory'
    )
