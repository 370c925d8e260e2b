"""Files with several names: the first one is archived with the content, the others are links."""

from __future__ import annotations

import os
from dataclasses import dataclass

Key = tuple[int, int]
"""Device and inode."""


@dataclass
class _Link:
    __slots__ = ("left", "name")

    name: bytes
    left: int
    """Names of the file that have not been seen."""


class Links:
    """What is in the archive and has names that were not seen yet.

    The only thing that grows with a tree: some 350 bytes (and the name) for each inode with several
    names, until all of them have been seen.
    """

    def __init__(self) -> None:
        self._links: dict[Key, _Link] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._links

    def __len__(self) -> int:
        return len(self._links)

    def first(self, inode: os.stat_result) -> bytes | None:
        """The member that has the content, for one more name of a file; None: there is none."""
        key = (inode.st_dev, inode.st_ino)
        link = self._links.get(key)
        if link is None:
            return None
        link.left -= 1
        if not link.left:
            del self._links[key]
        return link.name

    def remember(self, name: bytes, inode: os.stat_result) -> None:
        """A member has the content of a file with several names."""
        if inode.st_nlink > 1:
            self._links[inode.st_dev, inode.st_ino] = _Link(name, inode.st_nlink - 1)
