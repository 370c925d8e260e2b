"""Puts an increment onto the backup it builds on, with pg_combinebackup."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.postgres import PostgresPhysicalSource
from stages._child import Program, capture
from stages.sources._postgres.clients import find
from stages.sources._postgres_physical.unpack import beside_of, relocate, unpack

_LINKS = "pg_tblspc"


def combine(spec: PostgresPhysicalSource, chunks: Iterator[bytes], target: Path) -> Sequence[str]:
    """Turn a data directory that was restored into that of a later increment.

    For a while it takes the room of another copy, beside the target.

    Raises:
        SourceError: pg_combinebackup is missing or failed, or the archive is damaged.
    """
    context = StageContext()
    target = target.absolute()
    work = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        program = find("pg_combinebackup", _version(target), spec.programs, context)
        increment, combined = work / "increment", work / "combined"
        problems = unpack(chunks, increment, overwrite=False)
        argv = [program.path, str(target), str(increment), f"--output={combined}"]
        argv += _mapping(increment, beside_of(combined))
        capture(Program(argv), context, SourceError)
        _give_to_owner(target, [combined, beside_of(combined)])
        _replace(target, combined)
    except OSError as error:
        raise SourceError(f'cannot restore into "{target}": {error.strerror}') from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [line for line in problems if str(work) not in line]


def _version(target: Path) -> int:
    return int((target / "PG_VERSION").read_text().split(".")[0]) * 10000


def _mapping(increment: Path, beside: Path) -> list[str]:
    """Where the tablespaces of the result go."""
    links = sorted((increment / _LINKS).iterdir())
    if links:
        beside.mkdir()
    return [f"--tablespace-mapping={os.readlink(link)}={beside / link.name}" for link in links]


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


def _replace(target: Path, combined: Path) -> None:
    """Put the result where the data directory was; links and map of tablespaces are told."""
    shutil.rmtree(target)
    shutil.rmtree(beside_of(target), ignore_errors=True)
    combined.rename(target)
    if beside_of(combined).exists():
        beside_of(combined).rename(beside_of(target))
        relocate(target)
