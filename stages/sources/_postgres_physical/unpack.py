"""Brings a base backup back as a data directory that PostgreSQL starts from.

Tablespaces never go to where they were: on the same machine the server may still use them. They go
into a folder beside the data directory, and `tablespace_map` says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import SourceError
from stages.sources._files.extract import extract
from stages.sources._postgres_physical.manifest import NAME, replaced
from stages.sources._postgres_physical.scan import TABLESPACES

_MAP = "tablespace_map"
_VERSION = "PG_VERSION"


def unpack(chunks: Iterator[bytes], target: Path, overwrite: bool) -> Sequence[str]:
    """Unpack into a new or empty directory; with `overwrite` what is there is removed first.

    Returns:
        What is not exactly as it was, one line each.

    Raises:
        SourceError: a server uses the directory, it is not empty, or the archive is damaged.
    """
    target = target.absolute()
    if (target / "postmaster.pid").exists():
        raise SourceError(f'"{target}" is in use by a server', "stop it first")
    beside = beside_of(target)
    if not overwrite and beside.exists():
        raise SourceError(f'"{beside}" exists', "remove it, or give --overwrite")
    try:
        if overwrite:
            _clear(target)
            shutil.rmtree(beside, ignore_errors=True)
        problems = [*extract(chunks, target, overwrite=False)]
        if not (target / _VERSION).exists():
            raise SourceError("the archive is no base backup")
        problems += _place_tablespaces(target, beside)
        os.chmod(target, 0o700)
        own_like_content(target, target)
    except OSError as error:
        raise SourceError(f'cannot restore into "{target}": {error.strerror}') from error
    return problems


def beside_of(target: Path) -> Path:
    """Where the tablespaces of a data directory go."""
    return target.with_name(f"{target.name}.{TABLESPACES.decode()}")


def own_like_content(directory: Path, data: Path) -> None:
    """Give a directory to the user that the server's files belong to; root alone can."""
    if os.geteuid() == 0:
        owner = os.stat(data / _VERSION)
        os.chown(directory, owner.st_uid, owner.st_gid)


def _clear(target: Path) -> None:
    for entry in target.iterdir() if target.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _place_tablespaces(target: Path, beside: Path) -> list[str]:
    """Move tablespaces out of the data directory, and have the server find them."""
    packed = target / TABLESPACES.decode()
    places = dict(_read_map(target / _MAP))
    if not places:
        return []
    beside.mkdir(mode=0o700)
    own_like_content(beside, target)
    for number in places:
        if (packed / number).exists():
            shutil.move(packed / number, beside / number)
        else:  # Nothing was in it, so it has no folder in the archive.
            (beside / number).mkdir(mode=0o700)
            own_like_content(beside / number, target)
    if packed.exists():
        packed.rmdir()
    relocate(target)
    return [
        f'the tablespace that was at "{place}" is at "{beside / number}"'
        for number, place in places.items()
    ]


def relocate(target: Path) -> None:
    """Have a data directory find its tablespaces beside it; its manifest is told of the change, so
    that pg_verifybackup still agrees.
    """
    lines = []
    links = target / "pg_tblspc"
    links.mkdir(exist_ok=True, mode=0o700)
    for place in sorted(beside_of(target).iterdir()):
        (links / place.name).unlink(missing_ok=True)
        os.symlink(place, links / place.name)
        lines.append(f"{place.name} {_escaped(str(place))}\n")
    content = os.fsencode("".join(lines))
    (target / _MAP).write_bytes(content)
    manifest = target / NAME.decode()
    if manifest.exists():
        manifest.write_bytes(replaced(manifest.read_bytes(), _MAP, content))


def _read_map(path: Path) -> Iterator[tuple[str, str]]:
    """Number and place of each tablespace; a line feed in a place is escaped by a backslash."""
    if path.exists():
        text = path.read_bytes().decode(errors="surrogateescape").replace("\\\n", "\0")
        for line in text.splitlines():
            number, _, place = line.partition(" ")
            yield number, place.replace("\0", "\n").replace("\\\\", "\\")


def _escaped(place: str) -> str:
    return place.replace("\\", "\\\\").replace("\n", "\\\n")
