"""Rotation: applies a retention decision on one storage. The only caller of `Storage.delete` for
backups.

It runs after a committed run, or by `prune`. It decides from manifests, and touches only what this
project wrote on this host for this backup.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from pipeline import catalog, legacy, shards
from pipeline.catalog import Entry
from pipeline.legacy import OldRotation, Tree, find
from pipeline.naming import MANIFEST_SUFFIX, indexes_of, parse_part, parse_token
from pipeline.retention import Candidate, Decision, decide
from pipeline.series import restorable
from pipeline.stage import Storage
from schemas.retention import RetentionPolicy

ABANDONED = 7 * 86400.0
"""Unfinished objects of another project or host are left alone for this long, in seconds: it may be
writing them."""


@dataclass
class Rotation:
    """What rotation does on one storage for one backup."""

    keep: list[tuple[Entry, tuple[str, ...]]] = field(default_factory=list)
    """Each with the reasons."""
    remove: list[Entry] = field(default_factory=list)
    foreign: int = 0
    """Backups of other projects or hosts in the same place; never touched."""


def plan_rotation(
    entries: list[Entry], policy: RetentionPolicy, owner: tuple[str, str], now: datetime
) -> Rotation:
    """Decide for each artifact on its own; a pure function.

    Args:
        entries: all backups below one backup's directory.
        owner: project and host.
    """
    rotation = Rotation()
    rotation.foreign = sum(not entry.is_of(*owner) for entry in entries)
    for copies in subjects(entries, owner).values():
        decision = decide([candidate for candidate, _ in copies], policy, now)
        _add(rotation, decision, {candidate.id: copy for candidate, copy in copies})
    return rotation


def subjects(
    entries: list[Entry], owner: tuple[str, str]
) -> dict[str, list[tuple[Candidate, list[Entry]]]]:
    """What is decided on: for each subject (see `pipeline.shards`) our copies of it, with the
    entries that each is made of.
    """
    ours = sorted((entry for entry in entries if entry.is_of(*owner)), key=shards.subject)
    sound = {entry.path for entry in restorable(ours)}
    return {
        subject: [(_candidate(id, copy, sound), copy) for id, copy in _copies(list(group)).items()]
        for subject, group in groupby(ours, key=shards.subject)
    }


def _copies(entries: list[Entry]) -> dict[str, list[Entry]]:
    """What stays or goes as one: an object, or all shards of one time."""
    copies: dict[str, list[Entry]] = {}
    for entry in entries:
        manifest = entry.manifest
        together = f"{manifest.shard.of}@{manifest.taken_at}" if manifest.shard else None
        copies.setdefault(together or manifest.object, []).append(entry)
    return copies


def _candidate(id: str, copy: list[Entry], sound: Container[str]) -> Candidate:
    """A copy as retention sees it.

    Args:
        sound: paths of what can be restored, with all it builds on.
    """
    manifest = copy[0].manifest
    is_whole = shards.is_whole(copy) if manifest.shard else copy[0].path in sound
    return Candidate(
        id=id,
        taken_at=manifest.taken_at,
        parent=manifest.parent,
        complete=is_whole and not any(entry.manifest.skipped_total for entry in copy),
    )


def _add(rotation: Rotation, decision: Decision, by_id: dict[str, list[Entry]]) -> None:
    for kept in decision.keep:
        rotation.keep.extend((entry, kept.reasons) for entry in by_id[kept.candidate.id])
    for candidate in decision.remove:
        rotation.remove.extend(by_id[candidate.id])


def rotate(
    storage: Storage,
    name: str,
    prefix: str,
    policy: RetentionPolicy,
    owner: tuple[str, str],
    now: datetime,
    removed: Callable[[str], None],
    subject: str | None = None,
) -> Rotation:
    """Remove what the policy does not keep below `prefix` (a backup, or one artifact of it).

    With a `subject`, only what is a copy of that (see `pipeline.shards`).

    The object goes first, its manifest last: when we are stopped in between, the manifest still
    says whose it was, and the next rotation finishes the work.

    Raises:
        StorageError: something could not be listed, read or removed.
    """
    entries = catalog.read(storage, name, prefix)
    if subject is not None:
        entries = [entry for entry in entries if shards.subject(entry) == subject]
    rotation = plan_rotation(entries, policy, owner, now)
    for entry in rotation.remove:
        storage.delete([entry.path, entry.index_path] if entry.index_path else [entry.path])
        storage.delete([entry.manifest_path])
        removed(entry.path)
    return rotation


def plan_legacy(
    storage: Storage,
    name: str,
    backup: str,
    tree: Tree,
    policy: RetentionPolicy,
    owner: tuple[str, str],
    now: datetime,
) -> OldRotation:
    """What is to become of the copies that v3 left, with ours of the same backup counted along.

    Raises:
        StorageError: something could not be listed or read.
    """
    old = find(storage.list(tree.directory), tree)
    if not old:
        return OldRotation()
    own = [
        (subject, candidate.taken_at)
        for subject, copies in subjects(catalog.read(storage, name, backup), owner).items()
        for candidate, _ in copies
        if candidate.complete
    ]
    return legacy.plan_rotation(old, own, tree, policy, now)


def rotate_legacy(
    storage: Storage,
    name: str,
    backup: str,
    tree: Tree,
    policy: RetentionPolicy,
    owner: tuple[str, str],
    now: datetime,
    removed: Callable[[str], None],
) -> OldRotation:
    """Remove what the policy does not keep of the copies that v3 left.

    Links go before the file they lead to, increments before what they build on.

    Raises:
        StorageError: something could not be listed, read or removed.
    """
    rotation = plan_legacy(storage, name, backup, tree, policy, owner, now)
    for copy in rotation.remove:
        for names in rotation.steps(copy):
            storage.delete(names)
        removed(copy.path)
    return rotation


def leftovers(storage: Storage, backup: str, identity: str, now: datetime) -> list[str]:
    """Unfinished objects below a backup that no run will finish.

    Call it under the run lock: then everything with our own identity is dead. What belongs to
    another project or host may be alive, and is left alone for a week.
    """
    return [part for part in storage.unfinished(backup) if _is_dead(part, identity, now)]


def _is_dead(part: str, identity: str, now: datetime) -> bool:
    parsed = parse_part(part)
    if parsed is None:
        return False
    owner, started = parse_token(parsed[1])
    if owner == identity:
        return started < now  # those of the run that is about to start bear its own time
    return (now - started).total_seconds() > ABANDONED


def clear_leftovers(storage: Storage, backup: str, identity: str, now: datetime) -> list[str]:
    """Remove what dead runs left behind; returns the names.

    A run killed between its commits leaves an object (and the index beside it) without a manifest,
    and the unfinished manifest that says whose it is: all of it goes.

    Raises:
        StorageError: something could not be removed.
    """
    dead = leftovers(storage, backup, identity, now)
    if not dead:
        return []
    visible = {info.name for info in storage.list(backup)}
    headless = [path for path in map(_object_of, dead) if path + MANIFEST_SUFFIX not in visible]
    orphans = sorted(visible & {name for path in headless for name in (path, *indexes_of(path))})
    storage.delete(orphans)
    storage.sweep(dead)
    return orphans + dead


def _object_of(part: str) -> str:
    """The object that the unfinished manifest `part` was meant for; empty when it is not a
    manifest.
    """
    parsed = parse_part(part)
    final = parsed[0] if parsed else ""
    return final.removesuffix(MANIFEST_SUFFIX) if final.endswith(MANIFEST_SUFFIX) else ""
