"""The first pass of an increment: what has changed, and what may have been moved.

A directory is *settled* when it is still the one it was: same path, same inode, and all directories
above are settled too. All others are remembered, the old ones as gone and the new ones as come:
whether one is the other is for `renames` to find out when all are known. What is remembered is
compressed; when it becomes too much, the survey ends early, and the rest of the tree is dealt with
in one go, without renames.
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from typing import Any

from stages.sources._files.base import Base
from stages.sources._files.compare import Changes, Comparison
from stages.sources._files.directory import Directory
from stages.sources._files.listing import Listing
from stages.sources._files.looker import Looker
from stages.sources._files.recorder import Observer, indexed
from stages.sources._files.snapshot import Doubts, Reader, Writer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MEMORY = 64 << 20
"""Bytes that may be remembered."""
_OVERHEAD = 800
"""Bytes for each directory or file that is remembered, besides its path and what is packed."""


@dataclass(frozen=True)
class Remembered:
    """A directory that is not settled, or has changed."""

    path: bytes
    identity: tuple[int, int]
    """Device and inode."""
    has_links: bool
    """It has items with several names."""
    _packed: bytes

    @classmethod
    def of(
        cls, listing: Listing, changes: Changes | None = None, left_out: Collection[bytes] = ()
    ) -> Remembered:
        """Pack what is known of a directory."""
        known: tuple[set[bytes], ...] = ()
        if changes is not None:
            known = (changes.names, changes.suspects, changes.hidden)
        everything: Any = (tuple(listing), known, list(left_out))
        packed = zstd.compress(marshal.dumps(everything), 1)
        return cls(listing.path, listing.identity, listing.has_links, packed)

    def __len__(self) -> int:
        return len(self.path) + len(self._packed) + _OVERHEAD

    def unpack(self) -> tuple[Listing, Changes, list[bytes]]:
        """Its listing, what has changed, and the names that are left out on purpose."""
        listing, known, left_out = marshal.loads(zstd.decompress(self._packed))
        return Listing(*listing), Changes(True, *known), left_out


class Survey(Observer):
    """The ledger of the first pass.

    Args:
        roots: paths of the roots of the artifact.
        comparison: what counts as a change.
        doubts: what counts as changed, whatever it looks like.
        file_renames: remember files that may have been moved as well.
    """

    def __init__(
        self,
        looker: Looker,
        old: Reader,
        index: Writer,
        roots: Collection[bytes],
        comparison: Comparison,
        doubts: Doubts,
        file_renames: bool,
    ) -> None:
        super().__init__(looker)
        self.base = Base(old, index, self._go)
        self.changed: dict[bytes, Remembered] = {}
        """Settled directories, by path."""
        self.gone: dict[bytes, Remembered] = {}
        self.come: dict[bytes, Remembered] = {}
        self.unreadable: dict[bytes, OSError] = {}
        """Directories whose list of names is missing or incomplete."""
        self.devices: dict[int, int] = {}
        """New number of a device by its old one."""
        self.taken: set[bytes] = set()
        """Old paths of what is no directory, in settled directories where there is one now."""
        self.lost_files: dict[bytes, bytes] = {}
        """Old rows of files that are no longer what they were, by path."""
        self.new_files: dict[bytes, bytes] = {}
        """Rows of new ones."""
        self.old_tops: dict[bytes, Listing] = {}
        """Of the roots."""
        self.found_roots: set[bytes] = set()
        """Roots that are directories."""
        self.unchanged = 0
        """Files that need not be saved again."""
        self.memory = 0
        """Bytes in use for what is remembered."""
        self._roots = roots
        self._comparison = comparison
        self._doubts = doubts
        self._file_renames = file_renames
        self._ended = False
        self._moved = b""
        """Below this, nothing is settled."""

    def before(self, directory: Directory) -> bytes | None:
        if directory.path in self._roots:
            self.found_roots.add(directory.path)
        new = indexed(directory)
        if new is None:
            return None
        old = self.base.find(new.path)
        if directory.error is not None:
            self.unreadable[new.path] = directory.error
        if old is None:
            self._come(new, directory)
        elif self._settles(old, new):
            self._compare(old, new, directory)
        else:
            # For what it tells about inodes.
            self._comparison.compare(old, new)
            self._go(old)
            self._come(new, directory)
        return None

    def is_doubtful(self, path: bytes) -> bool:
        """Whether an old file must be looked upon as changed."""
        directory, _, name = path.rpartition(b"/")
        names = self._doubts.get(directory, ())
        return names is None or name in names

    def is_full(self) -> bool:
        """Whether it should end here."""
        return self.memory > MEMORY

    def forget_moves(self) -> None:
        """There will be no renames: free what was remembered for them, and remember no more."""
        self._ended = True
        for kept in (self.gone, self.lost_files, self.new_files):
            kept.clear()
        self.taken.clear()

    def _settles(self, old: Listing, new: Listing) -> bool:
        path = new.path
        if self._moved and path.startswith(self._moved):
            return False
        was, own = old.own, new.own
        if path in self._roots:
            self.old_tops[path] = old
        elif was.ino != own.ino and not self._comparison.inodes_are_made_up:
            self._moved = path + b"/"
            return False
        if was.size != own.size:
            self.devices[was.size] = own.size
        return True

    def _compare(self, old: Listing, new: Listing, directory: Directory) -> None:
        doubts = self.doubts_about(old)
        if self._comparison.same(old, new) and not doubts and directory.error is None:
            self.unchanged += new.counts[0]
            self.base.record(new, same=True)
            return
        self.base.record(new, same=False)
        changes = self._comparison.compare(old, new, doubts)
        self.unchanged += new.counts[0] - len(changes.names)
        if directory.error is not None or changes.own or changes.names or changes.suspects:
            self._remember(self.changed, Remembered.of(new, changes, directory.left_out))
            self._note_items(old, new, changes)

    def doubts_about(self, old: Listing) -> Collection[bytes]:
        """Names that count as changed."""
        if old.path not in self._doubts:
            return ()
        names = self._doubts[old.path]
        return [name for name, _ in old.items()] if names is None else names

    def _note_items(self, old: Listing, new: Listing, changes: Changes) -> None:
        """What matters for renames of something into or out of a settled directory."""
        directory = new.path + b"/"
        before = dict(old.items())
        self.taken.update(directory + name for name in new.split()[2] if name in before)
        if self._file_renames:
            now = dict(new.items())
            fresh = changes.names | changes.suspects
            kept = now.keys() - fresh
            lost = {directory + name: row for name, row in before.items() if name not in kept}
            come = {directory + name: row for name, row in now.items() if name in fresh}
            self.lost_files.update(lost)
            self.new_files.update(come)
            self.memory += sum(len(path) + _OVERHEAD for path in chain(lost, come))

    def _go(self, old: Listing) -> None:
        if not self._ended:
            self._remember(self.gone, Remembered.of(old))

    def _come(self, new: Listing, directory: Directory) -> None:
        self.base.record(new, same=False)
        self._remember(self.come, Remembered.of(new, left_out=directory.left_out))

    def _remember(self, where: dict[bytes, Remembered], directory: Remembered) -> None:
        where[directory.path] = directory
        self.memory += len(directory)
