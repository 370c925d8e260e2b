"""The probe of S3, which tells apart what the credentials may do: writing alone can be enough."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone

from pipeline.errors import StorageError, StorageRefused
from pipeline.naming import run_token
from pipeline.stage import Storage
from stages.storages._s3.errors import Denied

_CONTENT = b"probe of nxs-backup\n"


def probe(storage: Storage) -> Sequence[str]:
    """Write an object, and list, read and delete it as far as that is allowed.

    Returns:
        What works, in one line, and a line starting with `warning: ` for each thing that may not be
        done.

    Raises:
        StorageError: writing failed, or anything failed for another reason than permissions.
    """
    directory = f"nxs-backup-probe-{secrets.token_hex(6)}"
    name = f"{directory}/probe"
    try:
        _write(storage, name)
        steps = {
            "read": lambda: _read(storage, name),
            "list": lambda: _list(storage, directory, name),
            "delete": lambda: storage.delete([name]),
            "list unfinished uploads": lambda: _unfinished(storage, directory),
        }
        denied = [what for what, step in steps.items() if not _may(step)]
    except BaseException:
        with suppress(StorageError):  # The first error is the one to tell.
            storage.delete([name])
        raise
    allowed = ["write", *(what for what in steps if what not in denied)]
    return [f"may {', '.join(allowed)}", *(_warning(what, name) for what in denied)]


def _may(step: Callable[[], None]) -> bool:
    try:
        step()
    except Denied:
        return False
    return True


def _warning(what: str, name: str) -> str:
    needed = {
        "read": "restore and verify need it",
        "list": "list, restore, prune and rotate need it",
        "delete": f'prune and rotate need it, and "{name}" stays there',
        "list unfinished uploads": "prune needs it to clear what dead runs left",
    }
    return f"warning: may not {what}; {needed[what]}"


def _write(storage: Storage, name: str) -> None:
    token = run_token("00000000", datetime.now(timezone.utc), secrets.token_hex(3))
    writer = storage.create(name, token)
    try:
        writer.write(_CONTENT)
        writer.flush()
        writer.commit()
    except BaseException:
        writer.abort()
        raise


def _read(storage: Storage, name: str) -> None:
    if b"".join(storage.open(name)) != _CONTENT:
        raise StorageRefused(f'object "{name}" came back changed')


def _list(storage: Storage, directory: str, name: str) -> None:
    if [(found.name, found.size) for found in storage.list(directory)] != [(name, len(_CONTENT))]:
        raise StorageRefused(f'object "{name}" was written, but a listing does not show it')


def _unfinished(storage: Storage, directory: str) -> None:
    if storage.unfinished(directory):
        raise Denied("an unfinished upload could not be removed")
