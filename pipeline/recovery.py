"""Whether a success is the first one after a failure, known from what lies on the storages.

There is no local state, and a run that fails leaves nothing behind. So, where a notifier asks for
`recovered`, a failed run leaves a note of itself on each storage that takes it, an object of a few
bytes beside the artifacts::

    <backup>/failed@<owner>_2026-11-23T03-15-00Z.json

A success is a recovery when the newest that earlier runs have left on a storage is such a note, and
not a backup; it then removes the notes. Where that is not permitted they stay and do no harm: the
backup is newer from then on. A run that is partial in between does not end a failure. No command
takes a note for a backup: those are known by their manifests.

What no storage could take a note of is not known later: that all of them were out of reach, or that
the process was killed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import anyio

from pipeline import manifest as manifests
from pipeline.catalog import MANIFEST_LIMIT
from pipeline.errors import NxsError, ObjectMissing, StorageError
from pipeline.lock import identity
from pipeline.naming import MANIFEST_SUFFIX, format_stamp, parse_object, parse_stamp, run_token
from pipeline.report import Outcome
from pipeline.segment import run_in_thread
from pipeline.stage import ObjectInfo, Storage

TIMEOUT = 10.0
"""Seconds for all storages of a backup together: the run does not wait longer for that."""


@dataclass(frozen=True)
class Owner:
    """Whose failures they are."""

    project: str
    host: str
    backup: str

    def note(self, when: datetime) -> str:
        """The name of the note of a run that failed then."""
        return f"{self._stem}{format_stamp(when)}.json"

    def noted(self, name: str) -> datetime | None:
        """When the run failed whose note this is; None for anything else."""
        if not name.startswith(self._stem) or not name.endswith(".json"):
            return None
        try:
            return parse_stamp(name[len(self._stem) : -len(".json")])
        except ValueError:
            return None

    @property
    def _stem(self) -> str:
        # A digest, as a host may have any name. No artifact's folder has an "@".
        digest = hashlib.sha256(json.dumps([self.project, self.host]).encode()).hexdigest()
        return f"{self.backup}/failed@{digest[:12]}_"


@dataclass(frozen=True)
class Ended:
    """How the run of a backup ended."""

    run: str
    outcome: Outcome
    started: datetime
    """Of the whole run, in UTC."""
    now: datetime


@dataclass(frozen=True)
class Trouble:
    """A failure that no success has followed yet."""

    last: datetime
    notes: Sequence[str]


async def settle(
    storages: Mapping[str, Callable[[], Storage]], owner: Owner, ended: Ended
) -> tuple[datetime | None, list[str]]:
    """Note a failure, or find out whether one is over; all storages at once.

    Returns:
        When the last failed run ended that this success follows, and what is not known, one line
        each.
    """
    found: list[datetime] = []
    problems = dict.fromkeys(storages, f"no answer within {TIMEOUT:g} s")

    async def ask(name: str) -> None:
        try:
            work = partial(_settle_on, storages[name], owner, ended)
            when = await run_in_thread("recovery", work, grace=0)
        except Exception as error:
            # Only our own errors say nothing that may be secret.
            ours = isinstance(error, NxsError)
            problems[name] = str(error) if ours else f"failed with {type(error).__name__}"
        else:
            del problems[name]
            found.extend([when] if when else [])

    with anyio.move_on_after(TIMEOUT):
        async with anyio.create_task_group() as group:
            for name in storages:
                group.start_soon(ask, name)
    what = "whether a failure is over is not known"
    if ended.outcome in _FAILURES:
        what = "no note of the failure"
        if len(problems) < len(storages):
            problems = {}  # one note is enough
    lines = [f"{owner.backup}: {what} on {name}: {why}" for name, why in problems.items()]
    return max(found, default=None) if ended.outcome is Outcome.OK else None, lines


_FAILURES = (Outcome.FAILED, Outcome.INTERRUPTED)


def _settle_on(make: Callable[[], Storage], owner: Owner, ended: Ended) -> datetime | None:
    storage = make()
    if ended.outcome in _FAILURES:
        note_failure(storage, owner, ended)
        return None
    found = trouble(storage, owner, ended.started)
    if found is None:
        return None
    if ended.outcome is Outcome.PARTIAL:
        note_failure(storage, owner, ended)
    else:
        _forget(storage, found)
    return found.last


def note_failure(storage: Storage, owner: Owner, ended: Ended) -> None:
    """Leave a note.

    Raises:
        StorageError: it is not there.
    """
    text = {
        "format": "nxs-backup-failure",
        "project": owner.project,
        "host": owner.host,
        "backup": owner.backup,
        "run": ended.run,
    }
    # With the mark of our runs: one that is cut off here is cleared like all they leave unfinished.
    mark = identity(owner.project, owner.host, owner.backup)
    token = run_token(mark, ended.now, secrets.token_hex(3))
    writer = storage.create(owner.note(ended.now), token)
    try:
        writer.write(json.dumps(text, indent=2).encode() + b"\n")
        writer.flush()
        writer.commit()
    except BaseException:
        writer.abort()
        raise


def trouble(storage: Storage, owner: Owner, before: datetime) -> Trouble | None:
    """What earlier runs have left, when the newest of it is a failure.

    Args:
        before: start of the run that asks; what it has left itself does not count.

    Raises:
        StorageError: the storage cannot be listed or read.
    """
    objects = storage.list(owner.backup)
    notes = {info.name: when for info in objects if (when := owner.noted(info.name))}
    last = max(notes.values(), default=None)
    if last is None or any(
        _is_of(storage, info, owner) for info in _manifests(objects, last, before)
    ):
        return None
    return Trouble(last, sorted(notes))


def _manifests(
    objects: Sequence[ObjectInfo], after: datetime, before: datetime
) -> Iterator[ObjectInfo]:
    """Of backups that were begun in between."""
    for info in objects:
        if info.name.endswith(MANIFEST_SUFFIX) and info.size <= MANIFEST_LIMIT:
            name = parse_object(info.name.removesuffix(MANIFEST_SUFFIX))
            if name is not None and after < name.taken_at < before:
                yield info


def _is_of(storage: Storage, info: ObjectInfo, owner: Owner) -> bool:
    """Other hosts may keep theirs in the same place."""
    try:
        found = manifests.parse(info.name, b"".join(storage.open(info.name)))
    except ObjectMissing:
        return False  # removed since it was listed
    return found is not None and (found.project, found.host) == (owner.project, owner.host)


def _forget(storage: Storage, found: Trouble) -> None:
    try:
        storage.delete(found.notes)
    except StorageError:
        pass  # they do no harm: see above
