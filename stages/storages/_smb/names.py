r"""Names of files on an SMB server, which knows less of them than we do.

Windows has no `" * : < > ? \ |`, no control characters, and no dot or blank at the end of a name.
They become characters of Unicode's private area, as Macs and Linux do it (`mapposix` of mount.cifs,
Services for Macintosh): mounted there, files have the names that we gave them. Bytes that are no
text, for which there is no convention, go to U+F080 to U+F0FF. The names of devices cannot be had.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import StorageRefused

_ENCODED = {
    **{chr(code): chr(0xF000 + code) for code in range(1, 32)},
    **dict(zip('"*:<>?\\|', map(chr, range(0xF020, 0xF028)), strict=True)),
    **{chr(0xDC00 + byte): chr(0xF000 + byte) for byte in range(128, 256)},
}
_BLANK, _DOT = "\uf028", "\uf029"
_AT_END = {" ": _BLANK, ".": _DOT}
_DECODED = {stored: plain for plain, stored in (*_ENCODED.items(), *_AT_END.items())}
_TO_STORED, _TO_PLAIN = str.maketrans(_ENCODED), str.maketrans(_DECODED)
_RESERVED = re.compile("[" + "".join(_DECODED) + "]")
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)")


def encode_path(parts: Sequence[str]) -> str:
    """A path as the server wants it, from the names that lead there.

    Raises:
        StorageRefused: there is no such name on Windows.
    """
    return "\\".join(map(_encode, parts))


def _encode(name: str) -> str:
    if _DEVICE.match(name) or _RESERVED.search(name):
        raise StorageRefused(
            f'name "{name}" cannot be used',
            "Windows keeps it for itself; rename what it stands for",
        )
    stored = name.translate(_TO_STORED)
    return stored[:-1] + _AT_END.get(stored[-1], stored[-1])


def decode_name(stored: str) -> str:
    """The inverse, for one name."""
    return stored.translate(_TO_PLAIN)
