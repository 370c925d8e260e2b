"""POSIX ACLs: from text back to what the kernel stores."""

from __future__ import annotations

import struct

from stages.sources._files.names import group_number, user_number

_NOBODY = 0xFFFFFFFF
_TAGS = {"user": (1, 2), "group": (4, 8), "mask": (16, 16), "other": (32, 32)}
_SHORT = {"u": "user", "g": "group", "m": "mask", "o": "other"}
_MAX_ID = _NOBODY - 1


def acl_bytes(text: bytes) -> bytes:
    """The kernel's form of an ACL text; names this machine does not know are refused.

    Raises:
        ValueError: the text is not an ACL.
    """
    entries = sorted(_entry(line) for line in text.decode().replace("\n", ",").split(",") if line)
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permissions, number) for tag, number, permissions in entries
    )


def _entry(line: str) -> tuple[int, int, int]:
    kind, who, letters, *number = line.split("#")[0].strip().split(":")
    plain, named = _TAGS[_SHORT.get(kind, kind)]
    permissions = sum(
        bit for letter, bit in zip("rwx", (4, 2, 1), strict=True) if letter in letters
    )
    if not who:
        return plain, _NOBODY, permissions
    # A fourth field, written by star, is the number that belongs to the name.
    return named, _identity(kind, who, int(number[0]) if number else -1), permissions


def _identity(kind: str, who: str, otherwise: int) -> int:
    if who.isdigit():
        number = int(who)
    else:
        find = user_number if kind.startswith("u") else group_number
        number = find(who.encode("utf-8", "surrogateescape"), otherwise)
    if not 0 <= number <= _MAX_ID:
        raise ValueError("unknown user or group in ACL")
    return number
