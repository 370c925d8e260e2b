"""Other names of files that are saved again.

A file with several names must be saved under all of them or none: on restore, the name that is in
an increment becomes a new file, and the others would stay with the old one. Mostly all of them show
that something has changed; they do not when a directory with one of them was moved and has not been
recognised, or when only one of them could not be read the last time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stages.sources._files.listing import Listing, unpack
from stages.sources._files.snapshot import Reader


def incomplete(saved: Iterable[tuple[Listing, set[bytes]]]) -> set[int]:
    """Inodes of which some names are saved, but not all.

    Args:
        saved: directories with the names of what is saved of each.
    """
    missing: dict[int, int] = {}
    for listing, names in saved:
        for name, row in listing.items():
            item = unpack(row)
            if item.nlink > 1 and name in names:
                missing[item.ino] = missing.get(item.ino, item.nlink) - 1
    return {inode for inode, count in missing.items() if count > 0}


def find(
    inodes: set[int], old: Reader, gone: Iterable[bytes], moved: Mapping[bytes, bytes]
) -> Iterator[tuple[bytes, bytes]]:
    """Directory and name of everything that had one of the inodes, and may still be there.

    Args:
        old: the index that the increment builds on.
        gone: old paths of directories that are no longer there.
        moved: new path by old path, of those that were moved.
    """
    lost = set(gone) - moved.keys()
    for listing in old.listings():
        if listing.path in lost:
            continue
        for name, row in listing.items():
            item = unpack(row)
            if item.nlink > 1 and item.ino in inodes:
                yield moved.get(listing.path, listing.path), name
