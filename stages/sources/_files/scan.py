"""Opening and listing a directory, and choosing what is saved of it.

Every step is relative to an open directory and follows no symbolic link: no race can lead outside,
and paths may be longer than the kernel allows in one call. Names are sorted by their bytes.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.sources._files.directory import Directory
from stages.sources._files.exclude import Excludes

OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_BLOCK = 1024
"""So many names are looked at together."""
_ENCODING = sys.getfilesystemencoding()

Grow = Callable[[int], None]
"""Told how many more names are going to be in memory; may wait, or raise."""
_Entry = os.DirEntry[str]
Inspect = Callable[[Sequence[_Entry]], Sequence[object]]


@dataclass(frozen=True)
class Share:
    """One of the shards that a tree is split into: all directories, and some of what is in them.

    It goes by the inode, so that all names of a file are in the same shard.
    """

    number: int
    """From 0 on."""
    count: int

    def has(self, inode: int) -> bool:
        """Whether what has this inode, and is no directory, belongs to it."""
        return inode % self.count == self.number


class Scanner:
    """Opens directories and lists them. May be shared between threads.

    Args:
        excludes: what is left out, for this tree.
        one_file_system: do not enter what is on another device than the top.
        inspect: asked about items that are kept and are no directories; see `Directory.rows`.
        finish: called with each directory that could be opened, in the thread that opened it.
        share: keep only what belongs to it.
    """

    def __init__(
        self,
        excludes: Excludes,
        one_file_system: bool,
        inspect: Inspect | None = None,
        finish: Callable[[Directory], None] | None = None,
        share: Share | None = None,
    ) -> None:
        self._excludes = excludes
        self._one_file_system = one_file_system
        self._inspect = inspect
        self._finish = finish
        self._share = share
        self._device: int | None = None

    def top(self, parent: int, name: bytes, path: bytes) -> Directory:
        """The directory everything is below, which no pattern and no mark leaves out.

        Args:
            parent: descriptor of the directory that `name` is in.
            path: whole path.
        """
        directory = Directory(path, included=self._excludes.includes_all)
        self._open(directory, parent, name, frozenset(), None)
        if self._one_file_system and directory.stat:
            self._device = directory.stat.st_dev
        return directory

    def enter(self, outer: Directory, name: bytes, grow: Grow | None = None) -> Directory:
        """A subdirectory."""
        included = self._excludes.included(outer.path, name, outer.included)
        directory = Directory(outer.path + b"/" + name, included=included)
        if outer.fd >= 0:
            self._open(directory, outer.fd, name, self._excludes.marks, grow)
        else:
            directory.error = OSError(errno.ESTALE, "a directory above was moved while it was read")
        return directory

    def _open(
        self,
        directory: Directory,
        parent: int,
        name: bytes,
        marks: frozenset[bytes],
        grow: Grow | None,
    ) -> None:
        try:
            if self._device is not None:
                # Before it is opened: that would mount what waits for an automounter.
                directory.stat = os.lstat(name, dir_fd=parent)
                if directory.stat.st_dev != self._device:
                    return
            directory.fd = _open(name, parent)
            directory.stat = os.fstat(directory.fd)
        except OSError as error:
            directory.error = error
            directory.stat = directory.stat or _look(name, parent)
            return
        try:
            self._list(directory, marks, grow)
            if self._finish is not None:
                self._finish(directory)
        except BaseException:
            directory.close()
            raise

    def _list(self, directory: Directory, marks: frozenset[bytes], grow: Grow | None) -> None:
        found: set[bytes] = set()
        block: list[_Entry] = []
        try:
            with os.scandir(directory.fd) as entries:
                for entry in entries:
                    block.append(entry)
                    if len(block) == _BLOCK:
                        if grow is not None:
                            grow(_BLOCK)
                        self._add(directory, block, marks, found)
                        block.clear()
        except OSError as error:
            directory.error = error
        self._add(directory, block, marks, found)
        if found:
            self._heed(directory, found)
        directory.files.sort()
        directory.others.sort()
        directory.directories.sort()

    def _add(
        self,
        directory: Directory,
        block: Sequence[_Entry],
        marks: frozenset[bytes],
        found: set[bytes],
    ) -> None:
        """Sort some items in."""
        if marks:
            found.update(marks.intersection(_names(block)))
        kinds = _kinds(block)
        if self._share is not None:
            for some in (kinds[0], kinds[2]):
                some[:] = [entry for entry in some if self._share.has(entry.inode())]
        files, directories, others = listed = [_names(some) for some in kinds]
        excludes, path, included = self._excludes, directory.path, directory.included
        if excludes:
            files = excludes.keep(path, files, included)
            others = excludes.keep(path, others, included)
            directories = excludes.enter(path, directories, included)
        directory.files += files
        directory.others += others
        directory.directories += directories
        if self._inspect is not None:
            for entries, names, kept in zip(
                kinds, listed, (files, directories, others), strict=True
            ):
                if len(kept) < len(names):
                    _leave_out(directory, entries, names, set(kept))
            for entries, names in ((kinds[0], files), (kinds[2], others)):
                directory.rows.update(zip(names, self._inspect(entries), strict=True))

    def _heed(self, directory: Directory, found: set[bytes]) -> None:
        """Leave out what is in a marked directory, except for the mark."""
        mark = directory.mark = self._excludes.mark(directory.fd, found)
        if mark is None:
            return
        names = {*directory.files, *directory.others, *directory.directories}
        directory.files = [mark] if mark in directory.files else []
        directory.others, directory.directories = [], []
        if self._inspect is not None:
            kept = set(directory.files)
            directory.left_out += names - kept
            directory.rows = {name: directory.rows[name] for name in kept}


def _open(name: bytes, parent: int) -> int:
    try:
        return os.open(name, OPEN, dir_fd=parent)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return os.open(name, OPEN, dir_fd=parent)


def _leave_out(
    directory: Directory, entries: list[_Entry], names: Sequence[bytes], kept: set[bytes]
) -> None:
    """Note what is not kept, and take it out of the entries."""
    directory.left_out += [name for name in names if name not in kept]
    both = zip(names, entries, strict=True)
    entries[:] = [entry for name, entry in both if name in kept]


def _kinds(block: Sequence[_Entry]) -> tuple[list[_Entry], list[_Entry], list[_Entry]]:
    """Regular files, directories, and all others."""
    kinds: tuple[list[_Entry], list[_Entry], list[_Entry]] = ([], [], [])
    for entry in block:
        if entry.is_file(follow_symlinks=False):
            kinds[0].append(entry)
        elif entry.is_dir(follow_symlinks=False):
            kinds[1].append(entry)
        else:
            kinds[2].append(entry)
    return kinds


def _names(entries: Sequence[_Entry]) -> list[bytes]:
    # What `os.fsencode` does, in a third of its time.
    return [entry.name.encode(_ENCODING, "surrogateescape") for entry in entries]


def _look(name: bytes, parent: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=parent)
    except OSError:
        return None
