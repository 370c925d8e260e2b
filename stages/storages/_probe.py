"""The probe every storage can run: one object through its whole life."""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import datetime, timezone

from pipeline.errors import StorageError, StorageRefused
from pipeline.naming import run_token
from pipeline.stage import Storage

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def round_trip(storage: Storage) -> None:
    """Write, list, read and delete an object under a name of its own; leaves nothing behind.

    Raises:
        StorageError: one of the steps failed, or did not bring back what was written.
    """
    directory = f"nxs-backup-probe-{secrets.token_hex(6)}"
    name, content = f"{directory}/probe", secrets.token_bytes(1000)
    try:
        _write(storage, name, content)
        listed = [(found.name, found.size) for found in storage.list(directory)]
        if listed != [(name, len(content))]:
            raise StorageRefused(f'object "{name}" was written, but a listing does not show it')
        if b"".join(storage.open(name)) != content:
            raise StorageRefused(f'object "{name}" came back changed')
        storage.delete([name])
        if storage.list(directory):
            raise StorageRefused(f'object "{name}" was deleted, but a listing still shows it')
    except BaseException:
        with suppress(StorageError):  # The first error is the one to tell.
            storage.delete([name])
        raise


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


def readable_size(size: int) -> str:
    """A number of bytes for people: `79.9 GiB`."""
    value = float(size)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
