"""The layout of the archive: solid parts in front, a small zip file with the start-up code behind.

    two lines | tripwire | 60 KiB of payload | tripwire | 60 KiB of payload | ... | tripwire | zip

The payload is one run of bytes, cut every `CHUNK` by a *tripwire*: a whole little zip file that
says that the archive is damaged. Python looks for the end of a zip file in the last 64 KiB. When
the real end was lost it finds a tripwire there, and does not take the file for a script. Only where
a file ends within the record that ends a zip file, it does: then the second line is what it says.
"""

from __future__ import annotations

import io
import zipfile

from payload import Part

CHUNK = 60 * 1024
HEAD = b"#!/usr/bin/env python3\n# coding: nxs-backup-is-damaged--download-it-again\n"
# The maximum comment of a zip file and its end record: how far from the end a reader searches.
_SEARCHED = 65535 + 22

_TRIPWIRE = b"""\
import sys
message = 'nxs-backup: "%s" is damaged: its end is missing, download it again\\n'
sys.stderr.write(message % sys.argv[0])
sys.exit(78)
"""
_EARLIEST = (1980, 1, 1, 0, 0, 0)


def assemble(parts: list[Part], members: dict[str, bytes], timestamp: tuple[int, ...]) -> bytes:
    """Put the archive together.

    Args:
        parts: the payload.
        members: the files of the zip file; `_layout.py` is added.
        timestamp: of the members, as `time.gmtime` gives it.
    """
    tripwire = _zip(b"", {"__main__.py": _TRIPWIRE}, _EARLIEST)
    offset, places = 0, {}
    for part in parts:
        places[part.name] = (offset, len(part.compressed))
        offset += len(part.compressed)
    payload = b"".join(part.compressed for part in parts)
    out = bytearray(HEAD)
    for start in range(0, len(payload), CHUNK):
        out += tripwire + payload[start : start + CHUNK]
    out += tripwire
    layout = {
        "FIRST": len(HEAD) + len(tripwire),
        "CHUNK": CHUNK,
        "STRIDE": CHUNK + len(tripwire),
        "PARTS": places,
    }
    lines = "".join(f"{name} = {value!r}\n" for name, value in layout.items())
    archive = _zip(bytes(out), {**members, "_layout.py": lines.encode()}, timestamp)
    if len(archive) - len(out) + len(tripwire) > _SEARCHED:
        raise AssertionError("the start-up code is too large for the last tripwire to be found")
    return archive


def _zip(prefix: bytes, members: dict[str, bytes], timestamp: tuple[int, ...]) -> bytes:
    """A zip file behind `prefix`. Stored: what starts here must not need zlib."""
    buffer = io.BytesIO(prefix)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, timestamp[:6])  # type: ignore[arg-type]
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()
