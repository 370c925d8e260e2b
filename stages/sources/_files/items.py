"""What reading makes of the items of a directory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from stages.sources._files.attributes import Note
from stages.sources._files.descriptor import Descriptor

GREW = "grew while it was read; what was added is not in the backup"
SHRANK = "shrank while it was read; the missing part is filled with zero bytes"
CHANGED = "changed while it was read"


@dataclass
class Block:
    """Finished members."""

    data: bytes
    counts: dict[str, int]
    """By kind: files, bytes of content, symlinks, specials, sockets_skipped."""
    notes: list[Note]


@dataclass
class Single:
    """An item with several names, or a big file: the writer has to look at it."""

    name: bytes
    inode: os.stat_result
    block: Block | None = None
    """The member, unless it is big; None as well when the item was known to the writer already."""


@dataclass
class Big(Single, Descriptor):
    """An open file whose content is still to be read; close it."""

    head: bytes = b""
    """All of the member before the data."""
    extents: list[tuple[int, int]] = field(default_factory=list)
    """(offset, length) of the data."""
    notes: list[Note] = field(default_factory=list)

    def change(self) -> str:
        """What happened to it while it was read; empty when nothing did."""
        try:
            now = os.fstat(self.fd)
        except OSError:
            return CHANGED
        if now.st_size > self.inode.st_size:
            return GREW
        return CHANGED if now.st_mtime_ns != self.inode.st_mtime_ns else ""


@dataclass
class Failed:
    """An item that could not be opened or read."""

    name: bytes
    error: OSError


Item = Block | Single | Failed
