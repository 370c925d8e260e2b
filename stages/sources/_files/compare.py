"""What has changed between two listings of a directory.

Rows are compared for equality, never for which is later: a clock that jumps does no harm. What is
not compared by default is the number of the device, which another mount of the same file system
changes. Some file systems (many FUSE ones, some network mounts) make up new inodes at every mount;
when hardly any of the first items has kept its inode, while everything else about them is the same,
inodes are left out of the comparison.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from stages.sources._files.listing import DEVICES, Listing, Row, is_socket, unpack

ENOUGH = 100
"""So many items whose inode alone has changed, and hardly any that kept it: the file system makes
inodes up."""


@dataclass
class Changes:
    """What is to be written of a directory."""

    own: bool
    """Its own mode, owner or times, or the names in it, have changed."""
    names: set[bytes] = field(default_factory=set)
    """Files and others that are new or have changed."""
    suspects: set[bytes] = field(default_factory=set)
    """Those of which only the inode has changed, before it is known whether that counts."""
    hidden: set[bytes] = field(default_factory=set)
    """Sockets in the place of something else: not archived, and what was there has to go."""


class Comparison:
    """Compares listings, and learns on the way whether inodes can be relied upon.

    Args:
        counted: what makes an item a changed one: `mode`, `owner`, `inode`, `size`, `mtime`,
            `ctime`, `device`. The type of an item always counts.
    """

    def __init__(self, counted: Collection[str]) -> None:
        self._mode = "mode" in counted
        self._owner = "owner" in counted
        self._inode = "inode" in counted
        self._size = "size" in counted
        self._mtime = "mtime" in counted
        self._ctime = "ctime" in counted
        self._device = "device" in counted
        self._kept = 0
        self._suspects = 0
        self.inodes_are_made_up = False
        """An inode says nothing about whether an item is the one it was."""

    def same(self, old: Listing, new: Listing) -> bool:
        """Whether nothing at all has changed; quick, and true for most directories."""
        if old[:4] != new[:4]:
            return False
        self._kept += new.counts[0]
        return True

    def compare(self, old: Listing, new: Listing, doubts: Collection[bytes] = ()) -> Changes:
        """What is to be written, when `same` says no or there are doubts.

        Args:
            old: of the same directory, which may have had another path.
            doubts: names that count as changed.
        """
        changes = Changes(
            own=(old.counts, old.names) != (new.counts, new.names)
            or not self._own_equal(old.own, new.own)
        )
        replaced = self._device and old.own.size != new.own.size
        before = {} if replaced else dict(old.items())
        for name, row in new.items():
            was = before.get(name)
            if was == row and name not in doubts:
                self._kept += 1
            elif is_socket(row):
                changes.own = True
                if was is not None and not is_socket(was):
                    changes.hidden.add(name)
            elif was is None or name in doubts:
                changes.names.add(name)
            else:
                self._compare_rows(name, unpack(was), unpack(row), changes)
        return changes

    def settle(self, changes: Changes) -> set[bytes]:
        """The names to write, now that it is known what inodes are worth."""
        return changes.names if self.inodes_are_made_up else changes.names | changes.suspects

    def _compare_rows(self, name: bytes, was: Row, row: Row, changes: Changes) -> None:
        if not self._equal(was, row):
            changes.names.add(name)
        elif was.ino == row.ino:
            self._kept += 1
        elif self._inode and not self.inodes_are_made_up:
            changes.suspects.add(name)
            self._suspects += 1
            self.inodes_are_made_up = self._suspects >= max(ENOUGH, 10 * self._kept)

    def _equal(self, was: Row, row: Row) -> bool:
        """But for the inode."""
        return (
            was.kind == row.kind
            and (was.size == row.size or not (self._size or row.kind in DEVICES))
            and self._own_equal(was, row)
        )

    def _own_equal(self, was: Row, row: Row) -> bool:
        return (
            (was.mode == row.mode or not self._mode)
            and ((was.uid, was.gid) == (row.uid, row.gid) or not self._owner)
            and (was.mtime_ns == row.mtime_ns or not self._mtime)
            and (was.ctime_ns == row.ctime_ns or not self._ctime)
        )
