"""A directory that is being visited, and what was found in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from stages.sources._files.attributes import Note
from stages.sources._files.descriptor import Descriptor


@dataclass
class Directory(Descriptor):
    """A directory; `fd` is -1 when it is not entered: unreadable, or another file system."""

    path: bytes
    """Whole path; empty for the root of the file system."""
    stat: os.stat_result | None = None
    files: list[bytes] = field(default_factory=list)
    """Names of regular files, sorted."""
    others: list[bytes] = field(default_factory=list)
    """Names of what is neither a regular file nor a directory, sorted."""
    directories: list[bytes] = field(default_factory=list)
    """Names of subdirectories to visit, sorted."""
    error: OSError | None = None
    """Why it was not entered, or its list of names is incomplete."""
    included: bool = True
    """Whether it is to be saved for its own sake, not only for something that is in it."""
    mark: bytes | None = None
    """Name of the item because of which its content is left out."""
    records: bytes = b""
    """Pax records of its own extended attributes."""
    notes: list[Note] = field(default_factory=list)
    """What there is to say about those."""
    booked: bytes | None = b""
    """Further records for its header; None: it gets none."""
    rows: dict[bytes, object] = field(default_factory=dict)
    """What `inspect` of the scanner said about its files and others, by name."""
    left_out: list[bytes] = field(default_factory=list)
    """Names that patterns or a mark leave out; known when the scanner has an `inspect`."""
    extra: object = None
    """Whatever `finish` of the scanner found out."""
    visited: int = 0
    """So many of its subdirectories have been visited."""
