"""The backup manifest: whether it fits what was received, and what an increment needs to know.

A manifest is JSON with one line for each file, and the SHA-256 of itself as its last line (chapter
"Backup Manifest Format" of the manual of PostgreSQL).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import anycrc

from pipeline.errors import SourceError

NAME = b"backup_manifest"
WAL = b"pg_wal/"
"""What is in there is in no manifest, but for a few files: like pg_verifybackup we leave it out."""
_CRC32C = anycrc.Model("CRC32-ISCSI")


class Hasher(Protocol):
    """A checksum in the making."""

    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Crc32c:
    """CRC-32C (Castagnoli, RFC 3720), written as a manifest does."""

    def __init__(self) -> None:
        self._value: int = _CRC32C.calc(b"")

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = _CRC32C.calc(data, self._value)

    def hexdigest(self) -> str:
        return bytes.hex(self._value.to_bytes(4, "little"))


_ALGORITHMS: dict[str, Callable[[], Hasher]] = {
    "crc32c": _Crc32c,
    "sha224": hashlib.sha224,
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}
_FILE = (b'{ "Path"', b'{ "Encoded-Path"')
_LAST = b'"Manifest-Checksum"'
_SYSTEM = re.compile(rb'"System-Identifier": (\d+)')
_RANGE = re.compile(rb'\{ "Timeline": (\d+), "Start-LSN": "([0-9A-F/]+)"')


class ManifestCheck:
    """Remembers files that pass by, in little memory, to compare them with the manifest.

    Args:
        algorithm: of the checksums in the manifest, as in the configuration.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._new = _ALGORITHMS.get(algorithm)
        self._seen: set[bytes] = set()

    @property
    def compares_contents(self) -> bool:
        return self._new is not None

    def hasher(self) -> Hasher | None:
        """What the content of the next file goes through."""
        return self._new() if self._new else None

    def add(self, path: bytes, size: int, hasher: Hasher | None) -> None:
        """Note a file that has passed by."""
        self._seen.add(_token(path, size, hasher.hexdigest() if hasher else ""))

    def verify(self, manifest: bytes) -> int:
        """Compare with the manifest; the number of its files.

        Raises:
            SourceError: something differs.
        """
        verify_itself(manifest)
        files = 0
        for line in io.BytesIO(manifest):
            if line.startswith(_FILE):
                files += 1
                self._verify_file(json.loads(line.rstrip(b",\n")))
        if self._seen:
            raise SourceError(
                f"{len(self._seen)} files of the backup are not in its manifest",
                "the backup is not what the server has sent",
            )
        return files

    def _verify_file(self, entry: dict[str, object]) -> None:
        path = str(entry.get("Path", "")).encode()
        if "Encoded-Path" in entry:
            path = bytes.fromhex(str(entry["Encoded-Path"]))
        if path.startswith(WAL):
            return
        algorithm = str(entry.get("Checksum-Algorithm", "none")).lower()
        if algorithm != self._algorithm:
            raise SourceError(
                f"the backup manifest has checksums of the kind {algorithm}",
                f"expected {self._algorithm}, see `manifest_checksums`",
            )
        size = entry["Size"]
        digest = str(entry.get("Checksum", "")) if self._new else ""
        token = _token(path, size if isinstance(size, int) else -1, digest)
        if token not in self._seen:
            shown = path.decode(errors="replace")
            raise SourceError(f'"{shown}" is not what the backup manifest says, or is missing')
        self._seen.remove(token)


def _token(path: bytes, size: int, digest: str) -> bytes:
    return hashlib.blake2b(b"%b\0%d\0%b" % (path, size, digest.encode()), digest_size=16).digest()


def verify_itself(manifest: bytes) -> None:
    """Compare the checksum that a manifest has of itself.

    Raises:
        SourceError: it is damaged, or was cut off.
    """
    at = manifest.rfind(_LAST)
    said = manifest[at + len(_LAST) :].strip(b' :"}\n').decode(errors="replace")
    if at < 0 or hashlib.sha256(manifest[:at]).hexdigest() != said:
        raise SourceError("the backup manifest is damaged, or was cut off")


def algorithm_of(manifest: bytes) -> str:
    """The kind of checksums in it, as in the configuration."""
    found = re.search(rb'"Checksum-Algorithm": "(\w+)"', manifest)
    return found[1].decode().lower() if found else "none"


def replaced(manifest: bytes, path: str, content: bytes) -> bytes:
    """The manifest with the size and checksum of another content for one file."""
    lines = manifest[: manifest.rfind(_LAST)].splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith(b'{ "Path": ' + json.dumps(path).encode()):
            lines[number] = _replaced_line(line, content)
    body = b"".join(lines)
    return body + b'%b: "%b"}\n' % (_LAST, hashlib.sha256(body).hexdigest().encode())


def _replaced_line(line: bytes, content: bytes) -> bytes:
    line = re.sub(rb'"Size": \d+', b'"Size": %d' % len(content), line)
    new = _ALGORITHMS.get(algorithm_of(line))
    if new is None:
        return line
    hasher = new()
    hasher.update(memoryview(content))
    digest = hasher.hexdigest().encode()
    return re.sub(rb'"Checksum": "\w*"', b'"Checksum": "%b"' % digest, line)


@dataclass(frozen=True)
class Origin:
    """Where a backup was made, for the next one to build on."""

    system: str
    """Identifier of the database system; empty before PostgreSQL 17."""
    timeline: str
    start: str
    """LSN from which on changes count."""


def origin(manifest: bytes) -> Origin:
    """What a manifest says about its backup.

    Raises:
        SourceError: it is damaged, or says nothing.
    """
    verify_itself(manifest)
    system, wal = _SYSTEM.search(manifest), _RANGE.search(manifest)
    if wal is None:
        raise SourceError("the backup manifest names no WAL")
    return Origin(system[1].decode() if system else "", wal[1].decode(), wal[2].decode())
