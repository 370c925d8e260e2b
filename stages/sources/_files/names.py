"""Names of items and owners."""

from __future__ import annotations

import grp
import os
import pwd
from functools import lru_cache


def printable(path: bytes) -> str:
    """A path for people: bytes that are not UTF-8 and control characters are shown as escapes."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def no_names(_uid: int, _gid: int) -> tuple[bytes, bytes]:
    """Owners by number only."""
    return b"", b""


def owner_names(uid: int, gid: int) -> tuple[bytes, bytes]:
    """Names of a user and a group; empty when this machine does not know them."""
    return _user_name(uid), _group_name(gid)


# A look-up in a directory service may take seconds.
@lru_cache(4096)
def _user_name(uid: int) -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return b""


@lru_cache(4096)
def _group_name(gid: int) -> bytes:
    try:
        return os.fsencode(grp.getgrgid(gid).gr_name)
    except KeyError:
        return b""


@lru_cache(4096)
def user_number(name: bytes, otherwise: int) -> int:
    """The number this machine has for a user."""
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid if name else otherwise
    except KeyError:
        return otherwise


@lru_cache(4096)
def group_number(name: bytes, otherwise: int) -> int:
    """The number this machine has for a group."""
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid if name else otherwise
    except KeyError:
        return otherwise
