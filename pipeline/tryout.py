"""What a storage lets us do: one small object through its whole life, for `check --connect`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone

from pipeline.errors import ObjectMissing, StorageError, StorageRefused
from pipeline.naming import run_token
from pipeline.stage import Storage

_NEEDED_BY: Mapping[str, str] = {
    "listed": "list, restore, prune and rotate need that",
    "read": "restore, verify and rotate need that",
    "deleted": "prune and rotate need that",
    "swept": "prune needs that to clear what dead runs left",
}
ROTATION_NEEDS = frozenset({"listed", "read", "deleted"})
"""Rotation decides from manifests: it finds, reads and removes."""


@dataclass(frozen=True)
class Rights:
    """What can be done with objects, and what is denied."""

    can: tuple[str, ...]
    """Such as `written`, `listed`, `read`, `deleted`, `swept`."""
    denied: Mapping[str, str]
    """The same words, each with what the storage said."""

    def facts(self) -> list[str]:
        """One line of what works, and a warning for each thing that does not."""
        warnings = [
            f"warning: objects cannot be {what}: {why}; {_NEEDED_BY[what]}"
            for what, why in self.denied.items()
        ]
        return [f"objects can be {', '.join(self.can)}", *warnings]


class _Changed(StorageRefused):
    """The storage has something else than what was written."""


def try_out(storage: Storage) -> Rights:
    """Write, list, read and delete an object under a name of its own; what works leaves nothing.

    Writing, and giving the object its final name, is a must. A key that may do nothing else is
    fine for many; whoever rotates needs more, see `ROTATION_NEEDS`.

    Raises:
        StorageError: an object cannot be written, comes back changed, or the storage fails for any
            other reason than a refusal.
    """
    directory = f"nxs-backup-probe-{secrets.token_hex(6)}"
    name, content = f"{directory}/probe", secrets.token_bytes(1000)
    steps: dict[str, Callable[[], None]] = {
        "listed": lambda: _list(storage, directory, [(name, len(content))]),
        "read": lambda: _read(storage, name, content),
        "deleted": lambda: storage.delete([name]),
        "swept": lambda: storage.sweep(storage.unfinished(directory)),
    }
    try:
        _write(storage, name, content)
        answers = {what: _attempt(step) for what, step in steps.items()}
        if not answers["listed"] and not answers["deleted"]:
            _list(storage, directory, [])
    except BaseException:
        with suppress(StorageError):  # The first error is the one to tell.
            storage.delete([name])
        raise
    return Rights(
        ("written", *(what for what, denial in answers.items() if denial is None)),
        {what: denial for what, denial in answers.items() if denial is not None},
    )


def _attempt(step: Callable[[], None]) -> str | None:
    """Why a step is refused, or None when it is not."""
    try:
        step()
    except (ObjectMissing, _Changed):
        raise  # What was written is lost: no question of permissions.
    except StorageRefused as refusal:
        return str(refusal)
    return None


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


def _list(storage: Storage, directory: str, expected: list[tuple[str, int]]) -> None:
    if [(found.name, found.size) for found in storage.list(directory)] != expected:
        # Some servers hide from a user what he may not list, instead of telling him.
        raise StorageRefused(f'a listing of "{directory}" does not show what is there')


def _read(storage: Storage, name: str, content: bytes) -> None:
    if b"".join(storage.open(name)) != content:
        raise _Changed(f'object "{name}" came back changed')
