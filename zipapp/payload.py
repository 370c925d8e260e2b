"""The layout of the archive: solid parts in front, a small zip file with the start-up code behind.

    #! line | tripwire | 60 KiB of payload | tripwire | 60 KiB of payload | ... | tripwire | zip

The payload is one run of bytes, cut every `CHUNK` by a *tripwire*: a whole little zip file that
says that the archive is damaged. Python looks for the end of a zip file in the last 64 KiB. When
the real end was lost it finds a tripwire there, and does not take the file for a script.

A part is xz-compressed: the length of an index (4 bytes, little endian), the index as JSON, and the
content of the files in that order. The index is a list of groups, `[minors, [[path, size, crc32],
...]]`: the minor versions of Python that need these files. A reader stops behind the last group it
needs.
"""

from __future__ import annotations

import binascii
import io
import json
import lzma
import zipfile
from dataclasses import dataclass

CHUNK = 60 * 1024
SHEBANG = b"#!/usr/bin/env python3\n"
# The maximum comment of a zip file and its end record: how far from the end a reader searches.
_SEARCHED = 65535 + 22

_TRIPWIRE = b"""\
import sys
message = 'nxs-backup: "%s" is damaged: its end is missing, download it again\\n'
sys.stderr.write(message % sys.argv[0])
sys.exit(78)
"""
_EARLIEST = (1980, 1, 1, 0, 0, 0)

Files = dict[str, bytes]


@dataclass(frozen=True)
class Part:
    """Compressed files, and a digest of what they hold that does not depend on the compression."""

    name: str
    compressed: bytes
    content: str


def pack(groups: list[tuple[list[int], Files]], preset: int, is_x86: bool) -> bytes:
    """Lay out a part; alike files lie together, so that they compress well."""
    index, data = [], bytearray()
    for minors, files in groups:
        ordered = sorted(files, key=lambda path: (".so" in path, path.rpartition(".")[2], path))
        rows = [[path, len(files[path]), binascii.crc32(files[path])] for path in ordered]
        index.append([minors, rows])
        for path in ordered:
            data += files[path]
    header = json.dumps(index, separators=(",", ":")).encode()
    return compress(len(header).to_bytes(4, "little") + header + bytes(data), preset, is_x86)


def compress(data: bytes, preset: int, is_x86: bool) -> bytes:
    """xz; the branch filter makes x86 machine code some percent smaller."""
    filters: list[dict[str, int]] = [{"id": lzma.FILTER_X86}] if is_x86 else []
    filters.append({"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": 64 << 20})
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def group(wanted: dict[int, Files], common: Files) -> list[tuple[list[int], Files]]:
    """Files of a platform by the set of Pythons that need them, the most shared ones first.

    Args:
        wanted: for each minor version, in the order of popularity, its files.
        common: files that lie in another part.
    """
    owners: dict[tuple[str, bytes], list[int]] = {}
    for minor, files in wanted.items():
        for path, content in files.items():
            if common.get(path) != content:
                owners.setdefault((path, content), []).append(minor)
    groups: dict[tuple[int, ...], Files] = {}
    for (path, content), minors in owners.items():
        groups.setdefault(tuple(minors), {})[path] = content
    order = list(wanted)
    ranked = sorted(groups, key=lambda minors: (-len(minors), [order.index(m) for m in minors]))
    return [(sorted(minors), groups[minors]) for minors in ranked]


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
    out = bytearray(SHEBANG)
    for start in range(0, len(payload), CHUNK):
        out += tripwire + payload[start : start + CHUNK]
    out += tripwire
    layout = {
        "FIRST": len(SHEBANG) + len(tripwire),
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
