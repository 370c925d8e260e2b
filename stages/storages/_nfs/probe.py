"""What the user may do on a storage; writing is a must, the rest is reported."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone

from pipeline.errors import StorageError, StorageRefused
from pipeline.naming import run_token
from pipeline.stage import Storage


def try_out(storage: Storage) -> list[str]:
    """Take an object through its whole life: write, list, read, delete.

    Returns:
        Warnings about what is refused; empty when everything works.

    Raises:
        StorageError: it cannot be written, or the storage does not answer.
    """
    directory = f"nxs-backup-probe-{secrets.token_hex(6)}"
    name, content = f"{directory}/probe", secrets.token_bytes(1000)
    try:
        _write(storage, name, content)
        warnings = [
            _attempt("list", lambda: _check_list(storage, directory, name, len(content))),
            _attempt("read", lambda: _check_read(storage, name, content)),
            _attempt("delete", lambda: storage.delete([name])),
        ]
    except BaseException:
        with suppress(StorageError):  # The first error is the one to tell.
            storage.delete([name])
        raise
    return [warning for warning in warnings if warning]


def _attempt(verb: str, step: Callable[[], None]) -> str | None:
    try:
        step()
    except StorageRefused as error:
        return f"warning: cannot {verb} objects: {error}"
    return None


def _check_list(storage: Storage, directory: str, name: str, size: int) -> None:
    found = [(info.name, info.size) for info in storage.list(directory)]
    if found != [(name, size)]:
        raise StorageRefused(f'object "{name}" was written, but a listing does not show it')


def _check_read(storage: Storage, name: str, content: bytes) -> None:
    if b"".join(storage.open(name)) != content:
        raise StorageRefused(f'object "{name}" came back changed')


def _write(storage: Storage, name: str, content: bytes) -> None:
    token = run_token("00000000", datetime.now(timezone.utc), secrets.token_hex(3))
    writer = storage.create(name, token)
    try:
        writer.write(content)
        writer.flush()
        writer.commit()
    except BaseException:
        writer.abort()
        raise
