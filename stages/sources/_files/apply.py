"""Bringing an increment back onto what earlier copies of its chain left in a directory.

What GNU tar does with --listed-incremental: renames first, then whatever a directory does not list
is removed, then the members are extracted. Nothing outside of the target is reached: names are
followed part by part, and never through a symbolic link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipeline.errors import SourceError
from stages.sources._files import dumpdir, tar
from stages.sources._files.extract import ATTRIBUTES, Extractor, opened, parts_of, run
from stages.sources._files.names import printable
from stages.sources._files.remove import remove
from stages.sources._files.untar import Member


def apply(chunks: Iterator[bytes], target: Path) -> list[str]:
    """Apply an increment; what could not be restored exactly is returned.

    Raises:
        SourceError: it does not fit what is there, a member would leave the target, or the archive
            is damaged.
    """
    return run(_Applier(opened(target)), chunks, target)


class _Applier(Extractor):
    def add(self, member: Member, data: Callable[[], Iterable[memoryview]]) -> None:
        if member.kind != tar.DIRECTORY or member.dumpdir is None:
            super().add(member, data)
            return
        listed = dumpdir.parse(member.dumpdir)
        for old, new in listed.renames:
            self._rename(member, parts_of(old, member), parts_of(new, member))
        fd = self._levels.enter(parts_of(member.name, member), member)
        if not self._is_root:
            # It gets its own mode when it is left.
            os.fchmod(fd, 0o700)
        _purge(fd, listed)

    def _settle(self, member: Member, place: int | bytes) -> None:
        if member.kind == tar.DIRECTORY and isinstance(place, int):
            self._drop_attributes(member, place)
        super()._settle(member, place)

    def _drop_attributes(self, member: Member, fd: int) -> None:
        """Remove what a directory from an earlier copy has and this one has not."""
        wanted = {*member.xattrs, *(ATTRIBUTES[record] for record in member.acls)}
        for name in set(os.listxattr(fd)) - wanted:
            if name.startswith("user.") or (self._is_root and not name.startswith("security.")):
                os.removexattr(fd, name)

    def _rename(self, member: Member, old: list[bytes], new: list[bytes]) -> None:
        if not old or not new:
            raise SourceError(f'"{member.shown}" is to be renamed itself: the archive is damaged')
        # Open directories are known by their paths, which change now.
        self._levels.enter([])
        parent = self._levels.enter(new[:-1])
        if _exists(parent, new[-1]):
            raise _does_not_fit(new, "is there already")
        try:
            with self._levels.visit(old[:-1]) as source:
                os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=parent)
        except FileNotFoundError:
            raise _does_not_fit(old, "is not there") from None
        self._levels.enter([])


def _purge(fd: int, listed: dumpdir.Dumpdir) -> None:
    """Remove what the directory no longer has, or has in another kind."""
    for name in map(os.fsencode, os.listdir(fd)):
        is_directory = stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode)
        if not listed.keeps(name, is_directory):
            remove(fd, name)


def _exists(parent: int, name: bytes) -> bool:
    try:
        os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return False
    return True


def _does_not_fit(parts: list[bytes], why: str) -> SourceError:
    return SourceError(
        f'the increment does not fit the target: "{printable(b"/".join(parts))}" {why}',
        "restore the whole chain into a new directory",
    )
