"""Which copy a new one builds on, for sources that keep increments.

A series has levels. Level 0 is a full copy. The configuration gives the first levels a period each
(`full: monthly, levels: [weekly]`): a level is due in the first run of a new period, and its copy
builds on the newest one of a lower level. When none is due, the copy builds on the newest of all.
The levels of dump(8) and GNU tar, with a calendar.

Periods are UTC, like those of rotation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial

from pipeline import catalog
from pipeline.catalog import Entry
from pipeline.context import StageContext
from pipeline.errors import NxsError
from pipeline.graph import Plan
from pipeline.naming import quote_name
from pipeline.readback import opened
from pipeline.stage import Artifact, Storage, Transform


@dataclass(frozen=True)
class Copy:
    """A copy that can be built on."""

    taken_at: datetime
    level: int


@dataclass(frozen=True)
class Placement:
    """Where a new copy stands in its series."""

    level: int = 0
    parents: Mapping[str, Entry] = field(default_factory=dict)
    """By the name of the storage: the copy it builds on there; empty for a full copy."""
    index: Callable[[StageContext], Iterator[bytes]] | None = None
    """Reads the index of the copy it builds on; None for a full copy."""
    warnings: tuple[str, ...] = ()
    """Why it is a full copy although none was due."""


def decide(
    copies: Sequence[Copy], periods: Sequence[str], now: datetime
) -> tuple[int, Copy | None]:
    """The level of a new copy, and what it builds on; a pure function.

    Args:
        copies: those that can be built on.
        periods: of the levels, from 0: `yearly`, `monthly`, `ten_days`, `weekly`, `daily`,
            `hourly`, or `never`.
        now: with a time zone. A copy from the future (the clock was set back) opens no period.
    """
    newest_first = sorted(copies, key=lambda copy: copy.taken_at, reverse=True)
    for level, period in enumerate(periods):
        last = next((copy for copy in newest_first if copy.level <= level), None)
        if last is None or _start(period, last.taken_at) < _start(period, now):
            below = next((copy for copy in newest_first if copy.level < level), None)
            return (level, below) if below else (0, None)
    newest = newest_first[0]
    return max(len(periods), newest.level + 1), newest


def _start(period: str, moment: datetime) -> datetime:
    """When the period began that a moment is part of."""
    day = moment.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "hourly":
        return day.replace(hour=moment.astimezone(timezone.utc).hour)
    if period == "weekly":
        return day - timedelta(days=day.weekday())
    if period == "ten_days":  # The decades of nxs-backup v3: days 1, 11 and 21.
        return day.replace(day=min(day.day - 1, 29) // 10 * 10 + 1)
    if period == "monthly":
        return day.replace(day=1)
    if period == "yearly":
        return day.replace(month=1, day=1)
    return day if period == "daily" else datetime.min.replace(tzinfo=timezone.utc)


def chain(entry: Entry, entries: Sequence[Entry]) -> list[Entry] | None:
    """The copies an entry is restored from, the full one first and itself last.

    None when one of them is missing or damaged.
    """
    by_key = {_key(each): each for each in entries}
    found: dict[tuple[str, str], Entry] = {}
    current: Entry | None = entry
    while current is not None:
        if current.damage or _key(current) in found:
            return None
        found[_key(current)] = current
        parent = current.manifest.parent
        if parent is None:
            return list(found.values())[::-1]
        current = by_key.get((current.directory, parent))
    return None


def restorable(entries: Sequence[Entry]) -> list[Entry]:
    """Those of one storage that are undamaged, with all they build on; each is looked at once."""
    by_key = {_key(entry): entry for entry in entries}
    known: dict[tuple[str, str], bool] = {}
    for entry in entries:
        walked: list[tuple[str, str]] = []
        step: Entry | None = entry
        while step is not None and not step.damage and _key(step) not in known:
            known[_key(step)] = step.manifest.parent is None  # false ends the walk of a ring, too
            walked.append(_key(step))
            parent = step.manifest.parent
            step = step if parent is None else by_key.get((step.directory, parent))
        whole = step is not None and known.get(_key(step), False)
        known.update(dict.fromkeys(walked, whole))
    return [entry for entry in entries if known.get(_key(entry))]


def _key(entry: Entry) -> tuple[str, str]:
    return entry.directory, entry.manifest.object


def bases(entries: Sequence[Entry]) -> dict[datetime, Entry]:
    """The copies on one storage that can be built on, by their time."""
    return {entry.manifest.taken_at: entry for entry in restorable(entries) if entry.has_index}


def next_copy(
    plan: Plan, artifact: Artifact, owner: tuple[str, str], now: datetime
) -> tuple[int, dict[str, Entry], list[str]]:
    """The level of a new copy, by storage what it builds on (nothing: it is full), and warnings.

    What it builds on has to be on every storage of the fan-out that answers: they all get the same
    stream.

    Args:
        owner: project and host; the copies of others are left alone.
    """
    warnings: list[str] = []
    found: dict[str, dict[datetime, Entry]] = {}
    had_index = False
    for branch in plan.branches:
        prefix = f"{plan.backup}/{quote_name(artifact.name)}"
        try:
            entries = catalog.read(branch.storage, branch.name, prefix)
        except NxsError as error:
            warnings.append(f"storage {branch.name} does not tell what it has: {error}")
            continue
        ours = [entry for entry in entries if entry.is_of(*owner)]
        had_index = had_index or any(entry.manifest.index for entry in ours)
        found[branch.name] = bases(ours)
    common = set.intersection(*map(set, found.values())) if found else set()
    any_storage = next(iter(found.values()), {})
    copies = [Copy(moment, any_storage[moment].manifest.level) for moment in common]
    level, base = decide(copies, plan.source.periods, now)
    if base is None:
        if not common and any(found.values()):
            warnings.append("a full copy: no earlier one is on every storage")
        elif not common and had_index:
            warnings.append("a full copy: no earlier one is whole and has its index")
        return 0, {}, warnings
    return level, {name: held[base.taken_at] for name, held in found.items()}, warnings


def place(plan: Plan, artifact: Artifact, owner: tuple[str, str], now: datetime) -> Placement:
    """Find out what a new copy of an artifact builds on.

    When the index of that cannot be used, the new copy is a full one; the old chain stays as it is.
    """
    level, parents, warnings = next_copy(plan, artifact, owner, now)
    if not parents:
        return Placement(warnings=tuple(warnings))
    return _with_index(plan, artifact, level, parents, warnings)


def _with_index(
    plan: Plan, artifact: Artifact, level: int, parents: Mapping[str, Entry], warnings: list[str]
) -> Placement:
    """The placement with the first index that can be read to its end and that the source takes."""
    for branch in plan.branches:
        if branch.name not in parents:
            continue
        read = partial(_read, branch.storage, parents[branch.name], plan.index_key)
        try:
            index = read(StageContext())
            refusal = plan.source.refuses(artifact, index)
            for _ in index:  # to its end, which proves it
                pass
        except NxsError as error:
            warnings.append(f"the index on {branch.name} cannot be used: {error}")
            continue
        if refusal is None:
            return Placement(level, parents, read, tuple(warnings))
        warnings.append(f"a full copy: {refusal}")
        return Placement(warnings=tuple(warnings))
    warnings.append("a full copy: no index can be read")
    return Placement(warnings=tuple(warnings))


def _read(
    storage: Storage, entry: Entry, key: Transform | None, context: StageContext
) -> Iterator[bytes]:
    """The plain index of an entry, proved against the manifest.

    Raises:
        StorageError: it is missing or damaged. TransformError: it cannot be decrypted.
    """
    index = entry.manifest.index
    assert index is not None
    steps = [partial(key.invert, context=context)] if key else []
    path = f"{entry.directory}/{index.object}"
    stored = (index.stored_size, index.stored_sha256)
    with opened(path, storage.open(path), stored, steps) as chunks:
        yield from chunks
