"""The parts of an archive: files that are compressed together.

A part is xz-compressed: the length of an index (4 bytes, little endian), the index as JSON, and the
content of the files in that order. The index is a list of groups, `[targets, [[path, size, crc32],
...]]`: the targets that need these files, such as `x86_64-gnu-cp311`, or null for all. A reader
stops behind the last group that it needs.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import lzma
from dataclasses import dataclass

_TEXT = {"lc": 4, "lp": 0, "pb": 0}
_WORDS = {"lc": 2, "lp": 2, "pb": 2}

Files = dict[str, bytes]
Group = tuple["list[str] | None", Files]
"""Files, and the targets that need them; None for all targets."""


@dataclass(frozen=True)
class Part:
    """Compressed files, and a digest of what they hold that does not depend on the compression."""

    name: str
    compressed: bytes
    content: str


def pack(groups: list[Group], preset: int, name: str) -> bytes:
    """Lay out a part; alike files lie together, so that they compress well.

    Args:
        name: of the part, which says what is mostly in it: `x86_64`, or `common` for texts.
    """
    index, data = [], bytearray()
    for targets, files in groups:
        ordered = sorted(files, key=lambda path: (".so" in path, path.rpartition(".")[2], path))
        rows = [[path, len(files[path]), binascii.crc32(files[path])] for path in ordered]
        index.append([targets, rows])
        for path in ordered:
            data += files[path]
    header = json.dumps(index, separators=(",", ":")).encode()
    return compress(len(header).to_bytes(4, "little") + header + bytes(data), preset, name)


def compress(data: bytes, preset: int, name: str) -> bytes:
    """xz, told what it will find: each makes some percent."""
    filters: list[dict[str, int]] = []
    details = _TEXT
    if name.startswith("x86_64"):
        filters, details = [{"id": lzma.FILTER_X86}], {}
    elif name.startswith("aarch64"):
        details = _WORDS
    filters.append({"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": 64 << 20, **details})
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def layout(wanted: dict[str, dict[int, Files]]) -> dict[str, list[Group]]:
    """Put files into parts.

    Those that all targets share are in `common`. Those that all Pythons of a platform share are
    in a part for the architecture: the same libraries, built for another libc, are much alike.
    The others are in a part for the platform.

    Args:
        wanted: for each platform and minor version, in the order of popularity, the files.
    """
    common = _common(wanted)
    parts: dict[str, list[Group]] = {"common": [(None, common)]}
    for platform, pythons in wanted.items():
        for minors, files in _by_minors(pythons, common):
            is_shared = len(minors) == len(pythons)
            part = platform.partition("-")[0] if is_shared else platform
            targets: list[str] | None = [f"{platform}-cp3{minor}" for minor in minors]
            parts.setdefault(part, []).append((targets, files))
    return parts


def _common(wanted: dict[str, dict[int, Files]]) -> Files:
    """Files that every target has alike; machine code stays with its platform."""
    first, *others = (files for minors in wanted.values() for files in minors.values())
    return {
        path: content
        for path, content in first.items()
        if ".so" not in path and all(files.get(path) == content for files in others)
    }


def _by_minors(pythons: dict[int, Files], common: Files) -> list[tuple[tuple[int, ...], Files]]:
    """Files of a platform by the set of Pythons that need them, the most shared ones first."""
    owners: dict[tuple[str, bytes], list[int]] = {}
    for minor, files in pythons.items():
        for path, content in files.items():
            if common.get(path) != content:
                owners.setdefault((path, content), []).append(minor)
    groups: dict[tuple[int, ...], Files] = {}
    for (path, content), minors in owners.items():
        groups.setdefault(tuple(minors), {})[path] = content
    order = list(pythons)
    return sorted(
        groups.items(), key=lambda item: (-len(item[0]), [order.index(m) for m in item[0]])
    )


def content(groups: list[Group]) -> str:
    """A digest of what a part holds."""
    whole = hashlib.sha256()
    for targets, files in groups:
        whole.update(json.dumps(targets).encode())
        for path in sorted(files):
            whole.update(f"{path}={hashlib.sha256(files[path]).hexdigest()}\0".encode())
    return whole.hexdigest()[:16]
