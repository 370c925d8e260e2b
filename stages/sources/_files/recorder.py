"""The ledger of a full copy that increments will be built on: it writes the index, and the list of
each directory into the archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from stages.sources._files import dumpdir
from stages.sources._files.directory import Directory
from stages.sources._files.listing import Listing, is_socket, make, mark, settled
from stages.sources._files.looker import Looker
from stages.sources._files.snapshot import Writer
from stages.sources._files.tar import Encoder


class Observer:
    """What all ledgers of a series share: every directory comes with its listing.

    Args:
        looker: None when what is in the directories is known already.
    """

    def __init__(self, looker: Looker | None) -> None:
        self._looker = looker

    def rows(self, entries: Sequence[os.DirEntry[str]]) -> Sequence[object]:
        return [None] * len(entries) if self._looker is None else self._looker.look(entries)

    def scanned(self, directory: Directory) -> None:
        directory.extra = listing_of(directory)
        directory.rows = {}

    def prologue(self, encoder: Encoder, top: Directory, name: bytes) -> bytes:
        return b""

    def uncertain(self, path: bytes, name: bytes) -> None:
        pass

    def after(self, directory: Directory) -> None:
        pass


class Recorder(Observer):
    """Lets everything through."""

    def __init__(self, looker: Looker, index: Writer) -> None:
        super().__init__(looker)
        self._index = index
        self._uncertain: dict[bytes, set[bytes]] = {}

    def before(self, directory: Directory) -> bytes | None:
        listing = directory.extra
        # Without a list, nothing that a restore finds there is removed.
        if not isinstance(listing, Listing) or directory.error is not None:
            return b""
        return record_of(listing, {name for name, _ in listing.items()}, directory.left_out)

    def uncertain(self, path: bytes, name: bytes) -> None:
        self._uncertain.setdefault(path, set()).add(name)

    def after(self, directory: Directory) -> None:
        names = self._uncertain.pop(directory.path, set())
        listing = indexed(directory)
        if listing is not None:
            self._index.add(mark(listing, names, own=b"" in names))


def listing_of(directory: Directory) -> Listing | None:
    """The listing of a scanned directory, None when it vanished."""
    if directory.stat is None:
        return None
    rows = list(map(directory.rows.get, [*directory.files, *directory.others]))
    names = (directory.files, directory.others, directory.directories)
    return make(directory.path, directory.stat, names, rows)  # type: ignore[arg-type]  # see `rows`


def indexed(directory: Directory) -> Listing | None:
    """What an index says about a directory; None when it vanished.

    One whose list is not complete will be listed in the next increment, whatever is in it then.
    """
    listing = directory.extra if isinstance(directory.extra, Listing) else listing_of(directory)
    if listing is None:
        return None
    return mark(settled(listing), (), own=directory.error is not None)


def record_of(
    listing: Listing,
    dumped: set[bytes],
    left_out: Iterable[bytes],
    hidden: Iterable[bytes] = (),
) -> bytes:
    """The pax record with the list of a directory.

    Args:
        dumped: names of what is going to be in the archive.
        left_out: names of what exists and is left out on purpose.
        hidden: names of what is to be removed on restore although it exists.
    """
    present = {name for name, _ in listing.items()}
    sockets = {name for name, row in listing.items() if is_socket(row)}
    kept = (present | set(left_out)) - (dumped - sockets) - set(hidden)
    return dumpdir.pax_record(dumped - sockets, kept, listing.split()[2])
