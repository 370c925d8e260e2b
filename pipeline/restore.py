"""Brings a plain stream back as a file; what most sources need. `files` has its own way (a
directory).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SourceError


def write_file(chunks: Iterator[bytes], target: Path, name: str, overwrite: bool) -> Path:
    """Write the stream to `target`, or into it under `name` when it is a directory.

    The file appears when it is complete, or not at all.

    Returns:
        The path of the file.

    Raises:
        SourceError: it exists and `overwrite` is false, or it cannot be written.
    """
    path = target / name.replace("/", "_") if target.is_dir() else target
    if path.exists() and not overwrite:
        raise SourceError(f'"{path}" exists', "give --overwrite to replace it")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb", buffering=0, opener=_private) as file:
            for chunk in chunks:
                _write_all(file.fileno(), chunk)
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise SourceError(f'"{path}" cannot be written: {error.strerror}') from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
