"""Extended attributes and ACLs as pax records, and what there is to say about an item."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from stages.sources._files.tar import xattr_record

_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENOSYS)


@dataclass
class Note:
    """Something to say about an item that was written."""

    name: bytes
    text: str
    lost: bool = False
    """It is not in the archive as it was."""


def attributes(file: int | bytes, name: bytes, notes: list[Note]) -> bytes:
    """Records of the extended attributes of a descriptor, or of a path, not followed.

    Args:
        name: for notes on what could not be read.
    """
    follow = isinstance(file, int)
    try:
        found = os.listxattr(file) if follow else os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            notes.append(Note(name, f"extended attributes: {reason(error)}", lost=True))
        return b""
    if not found:
        return b""
    records = b""
    for attribute in sorted(found):
        try:
            value = os.getxattr(file, attribute, follow_symlinks=follow)
            records += xattr_record(attribute, value)
        except OSError as error:
            if error.errno != errno.ENODATA:
                text = f'extended attribute "{attribute}": {reason(error)}'
                notes.append(Note(name, text, lost=True))
        except ValueError as error:
            notes.append(Note(name, f'extended attribute "{attribute}": {error}', lost=True))
    return records


def reason(error: OSError) -> str:
    """The system's words for what went wrong, to follow the name of an item."""
    if error.errno == errno.ENOENT:
        return "vanished before it was read"
    text = error.strerror or "cannot be read"
    return text[:1].lower() + text[1:]
