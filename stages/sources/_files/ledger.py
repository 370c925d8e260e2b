"""Keeps book of what goes into an archive, and may leave things out: how increments are made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from stages.sources._files.directory import Directory
from stages.sources._files.tar import Encoder


class Ledger(Protocol):
    """What an archive tells, and asks, about a tree.

    `rows` and `scanned` are called by the threads that scan, in any order; everything else by the
    writer, in the order of the archive.
    """

    def rows(self, entries: Sequence[os.DirEntry[str]]) -> Sequence[object]:
        """What `Directory.rows` is to hold for some items that are kept and are no directories."""

    def scanned(self, directory: Directory) -> None:
        """A directory was opened and listed, its names are sorted: whatever takes long.

        May narrow its lists of names.
        """

    def prologue(self, encoder: Encoder, top: Directory, name: bytes) -> bytes:
        """Members to stand before a tree whose directory will be called `name`."""

    def before(self, directory: Directory) -> bytes | None:
        """Nothing of the directory has been read; its lists of names may still be narrowed.

        Called as well with one that could not be opened.

        Returns:
            Pax records for its header; None to write none.
        """

    def uncertain(self, path: bytes, name: bytes) -> None:
        """An item is not in the archive as the scan saw it: it vanished, changed, or could not be
        read in full.

        Args:
            path: whole path of the directory it is in.
            name: empty for the directory itself.
        """

    def after(self, directory: Directory) -> None:
        """All that is directly in the directory has been written."""
