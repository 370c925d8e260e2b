"""Puts an increment onto the backup it builds on, with pg_combinebackup."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.postgres import PostgresPhysicalSource
from stages._child import Program, capture
from stages.sources._postgres.clients import find
from stages.sources._postgres_physical.unpack import beside_of, relocate, unpack

_LINKS = "pg_tblspc"
_MADE = "made"


def combine(spec: PostgresPhysicalSource, chunks: Iterator[bytes], target: Path) -> Sequence[str]:
    """Turn a data directory that was restored into that of a later increment.

    For a while it takes the room of another copy, inside the target: that may be a mount point, and
    nothing can be renamed into or out of one.

    Raises:
        SourceError: pg_combinebackup is missing or failed, the archive is damaged, or something in
            the target cannot be moved away (a mount point in it). The target is then as it was.
    """
    context = StageContext()
    target = target.absolute()
    part = f".{secrets.token_hex(4)}.part"
    work, beside = target / part, beside_of(target)
    try:
        program = find("pg_combinebackup", _version(target), spec.programs, context)
        work.mkdir(mode=0o700)
        increment = work / "increment"
        problems = unpack(chunks, increment, overwrite=False)
        argv = [program.path, str(target), str(increment), f"--output={work / _MADE}"]
        argv += _mapping(increment, beside / part / _MADE)
        capture(Program(argv), context, SourceError)
        places = [place for place in (target, beside) if (place / part).exists()]
        _give_to_owner(target, [work / _MADE, *places[1:]])
        _replace(places, part)
        if len(places) == 1:
            shutil.rmtree(beside, ignore_errors=True)
        else:
            shutil.rmtree(beside / part)
            relocate(target)
    except OSError as error:
        raise SourceError(f'cannot restore into "{target}": {error.strerror}') from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(beside / part, ignore_errors=True)
    return [line for line in problems if str(work) not in line]


def _version(target: Path) -> int:
    return int((target / "PG_VERSION").read_text().split(".")[0]) * 10000


def _mapping(increment: Path, made: Path) -> list[str]:
    """Where the tablespaces of the result go."""
    links = sorted((increment / _LINKS).iterdir())
    if links:
        made.mkdir(parents=True, mode=0o700)
    return [f"--tablespace-mapping={os.readlink(link)}={made / link.name}" for link in links]


def _give_to_owner(target: Path, made: list[Path]) -> None:
    """What pg_combinebackup writes belongs to whoever runs it."""
    if os.geteuid() != 0:
        return
    owner = os.stat(target / "PG_VERSION")
    for top in made:
        for directory, _, files in os.walk(top):
            os.chown(directory, owner.st_uid, owner.st_gid)
            for name in files:
                path = os.path.join(directory, name)
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _replace(places: Sequence[Path], part: str) -> None:
    """Exchange what is in each place for what was made in `part` of it: all of it, or nothing.

    By renames within the place, which itself stays.
    """
    with ExitStack() as undo:
        for place in places:
            made, old = place / part / _MADE, place / part / "old"
            old.mkdir()
            for entry in [entry for entry in place.iterdir() if entry.name != part]:
                _move(entry, old, undo)
            for entry in list(made.iterdir()):
                _move(entry, place, undo)
        undo.pop_all()


def _move(entry: Path, into: Path, undo: ExitStack) -> None:
    moved = entry.rename(into / entry.name)
    undo.callback(moved.rename, entry)
