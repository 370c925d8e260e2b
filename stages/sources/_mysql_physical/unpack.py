"""A copy back into a directory that a server can start from."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.context import StageContext
from pipeline.errors import SourceError
from schemas.mysql import MysqlPhysicalSource
from stages._child import Child, Program, capture, locate
from stages.sources._mysql_physical.tool import PROGRAMS

_UNPACKERS = {"mariadb-backup": "mbstream", "mariabackup": "mbstream", "xtrabackup": "xbstream"}


def unpack(
    spec: MysqlPhysicalSource, chunks: Iterator[bytes], target: Path, overwrite: bool
) -> None:
    """A full copy, prepared; the directory appears when it is complete, or not at all.

    Raises:
        SourceError: it exists, a program is not installed, or the copy cannot be prepared.
    """
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise SourceError(f'"{target}" exists', "give --overwrite to replace it")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        _extract(spec, chunks, part)
        _prepare(spec, part, None)
        _replace(target, part)
    except OSError as error:
        raise SourceError(f'"{target}" cannot be written: {error.strerror}') from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def apply(spec: MysqlPhysicalSource, chunks: Iterator[bytes], target: Path) -> None:
    """An increment, onto what was unpacked.

    Raises:
        SourceError: a program is not installed, or the increment does not fit.
    """
    part = target / f".{secrets.token_hex(4)}.part"
    try:
        _extract(spec, chunks, part)
        _prepare(spec, target, part)
    except OSError as error:
        raise SourceError(f'"{target}" cannot be written: {error.strerror}') from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(target: Path, part: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.exists():
        target.unlink()
    os.rename(part, target)


def _extract(spec: MysqlPhysicalSource, chunks: Iterator[bytes], into: Path) -> None:
    into.mkdir(parents=True, mode=0o700)
    unpacker = locate(_UNPACKERS.get(Path(_program(spec)).name, "mbstream"), SourceError)
    program = Program([unpacker, "-x", "-C", str(into)])
    with Child(program, StageContext(), SourceError, feed=True) as child:
        for _ in child.output(chunks):
            pass


def _prepare(spec: MysqlPhysicalSource, target: Path, increment: Path | None) -> None:
    path = _program(spec)
    arguments = ["--prepare", f"--target-dir={target.absolute()}"]
    if Path(path).name == "xtrabackup":
        # An increment may follow; what is left to be undone is undone when the server starts.
        arguments.append("--apply-log-only")
    if increment is not None:
        arguments.append(f"--incremental-dir={increment.absolute()}")
    capture(Program([path, "--no-defaults", *arguments]), StageContext(), SourceError)


def _program(spec: MysqlPhysicalSource) -> str:
    """The one that is installed here: of the server that the copy is from, only files are known."""
    names = [spec.program] if spec.program else [*PROGRAMS[True], *PROGRAMS[False]]
    for name in names:
        try:
            return locate(name, SourceError)
        except SourceError:
            continue
    raise SourceError(
        f"none of {', '.join(map(repr, names))} was found".replace("'", '"'),
        "install it, or use --stdout and unpack elsewhere",
    )
