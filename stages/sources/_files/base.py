"""The index of the copy that an increment builds on, followed while the tree is walked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stages.sources._files.listing import Listing, order
from stages.sources._files.snapshot import Block, Reader, Writer


class Base:
    """Both are sorted alike, so that one step through the index goes with one through the tree.

    What has not changed is handed on to the new index in whole blocks.

    Args:
        reader: of the old index.
        index: the new one.
        gone: called with every directory that is no longer where it was.
    """

    def __init__(self, reader: Reader, index: Writer, gone: Callable[[Listing], None]) -> None:
        self._blocks = reader.blocks()
        self._index = index
        self._gone = gone
        self._block: Block | None = None
        self._listings: list[Listing] = []
        self._steps: Iterator[Listing] = iter(())
        self._same: list[Listing] = []
        """Listings of the block, as far as they have come up unchanged."""
        self._untouched = False
        """All of the block has, so far."""
        self._head = self._next()

    def find(self, path: bytes) -> Listing | None:
        """The directory of this path; paths must come in the order of the walk."""
        key = order(path)
        while self._head is not None and order(self._head.path) < key:
            self._pass_over(self._head)
            self._head = self._next()
        if self._head is None or self._head.path != path:
            return None
        return self._head

    def record(self, listing: Listing, same: bool) -> None:
        """Put a directory into the new index, after `find`.

        Args:
            same: it is equal to what was found.
        """
        if same and self._untouched:
            self._same.append(listing)
        else:
            self._touch()
            self._index.add(listing)
        if self._head is not None and self._head.path == listing.path:
            self._head = self._next()

    def finish(self) -> None:
        """The walk has ended."""
        while self._head is not None:
            self._pass_over(self._head)
            self._head = self._next()
        self._touch()

    def _pass_over(self, listing: Listing) -> None:
        self._touch()
        self._gone(listing)

    def _touch(self) -> None:
        """The block will not be handed on as it is."""
        self._untouched = False
        for listing in self._same:
            self._index.add(listing)
        self._same = []

    def _next(self) -> Listing | None:
        listing = next(self._steps, None)
        while listing is None:
            if self._untouched and self._block is not None:
                self._index.reuse(self._block, self._same)
                self._same = []
            self._block = next(self._blocks, None)
            if self._block is None:
                return None
            self._untouched = True
            self._steps = iter(self._block.listings())
            listing = next(self._steps, None)
        return listing
