"""Artifacts that only together are a backup: pure functions of the entries that exist."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pipeline.catalog import Entry

Copy = tuple[str, datetime]
"""A subject, and when it was taken."""


def subject(entry: Entry) -> str:
    """What an entry is a copy of: the name that shards have in common, or its own artifact."""
    shard = entry.manifest.shard
    return shard.of if shard else entry.manifest.artifact


def copy_of(entry: Entry) -> Copy:
    """What stays, goes and is restored as one."""
    return subject(entry), entry.manifest.taken_at


def is_whole(entries: Iterable[Entry]) -> bool:
    """Whether the entries of one subject and one time are all there are, and undamaged."""
    sound = [entry.manifest for entry in entries if not entry.damage]
    found = {manifest.shard.number for manifest in sound if manifest.shard}
    counts = {manifest.shard.count if manifest.shard else 0 for manifest in sound}
    return bool(sound) and len(counts) == 1 and len(found) == counts.pop()


def incomplete(entries: Iterable[Entry]) -> list[Copy]:
    """The copies of which shards are missing or damaged.

    Args:
        entries: of all storages: what one has lost, another may have.
    """
    together: dict[Copy, list[Entry]] = {}
    for entry in entries:
        if entry.manifest.shard:
            together.setdefault(copy_of(entry), []).append(entry)
    return [copy for copy, shards in together.items() if not is_whole(shards)]


def newest(entries: Iterable[Entry]) -> list[Entry]:
    """Those of the newest time of each subject: never shards of two times, or more of an older set.

    Args:
        entries: of all storages, in an order that is kept.
    """
    every = list(entries)
    moments: dict[str, datetime] = {}
    for entry in every:
        of, moment = copy_of(entry)
        moments[of] = max(moment, moments.get(of, moment))
    return [entry for entry in every if moments[subject(entry)] == entry.manifest.taken_at]
