"""What nxs-backup v3 left on a storage: found by its names, and aged out by the rules of a branch.

v3 keeps no manifests; its names are all there is (`misc/generals.go`, `modules/storage/common.go`
of nixys/nxs-backup). Below the directory of a source, discrete copies are::

    <target>/{daily,weekly,monthly}/<target>_2026-11-23_03-15.{tar,sql,rdb}[.gz]

without the level `<target>` for whole servers and for programs of the type external, whose files
bear a name of their own. A copy of a Sunday or of the 1st lies in several of these directories: as
relative links (local, SFTP, SMB), or as so many copies (S3, FTP, NFS, WebDAV). Increments are::

    <target>/<year>/year/NAME                                level 0: first run, and 1 January
    <target>/<year>/month_MM/monthly/NAME                    level 1: the 1st of a month
    <target>/<year>/month_MM/day_{01,11,21}/NAME             level 2: the 1st, 11th, 21st; level 3
    <target>/<year>/inc_meta_info/{year,month,day}.inc       what the next one starts from

again with links or copies in the shorter periods. A level 1 builds on the month before it, not on
the year: v3 starts it from the newest `month.inc`. Times are local and taken for UTC here, so
that its days, weeks and months stay what they were.

All of this is pure, but for the listing that `stages.rotate` hands in.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from pipeline.retention import Candidate, decide
from pipeline.stage import ObjectInfo
from schemas.retention import RetentionPolicy

LEGACY = "legacy nxs-v3"
"""How a copy of v3 is marked where it is shown among ours."""
PERIODS = ("monthly", "weekly", "daily")
"""Directories of discrete copies; the first that holds a copy has the file, others a link."""
_STAMP = r"(?P<stamp>[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2})"
_YEAR = re.compile(r"[0-9]{4}")
_MONTH = re.compile(r"month_(0[1-9]|1[0-2])")
_DECADES = {1: "day_01", 11: "day_11", 21: "day_21"}
"""What the three parts of a month are called, by their first days."""
_META = ("year.inc", "month.inc", "day.inc")

Counterparts = Callable[[str], frozenset[str] | None]
"""From a target of v3 to the names of our artifacts for the same thing; None for all there are."""


@dataclass(frozen=True)
class Tree:
    """The directory of one source of v3.

    Attributes:
        directory: below the path of the storage.
        has_targets: whether it has a level for each database or path.
        suffix: of its files, without the one of gzip; empty for any name with a time in it.
        counterparts: which of our artifacts take the place of a target.
        databases: glob patterns of the targets that are meant; empty for all.
        excluded: glob patterns of those that are not.
    """

    directory: str
    has_targets: bool
    suffix: str
    counterparts: Counterparts
    databases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def is_meant(self, target: str) -> bool:
        """Whether the backup is about this target: others may share the directory."""
        wanted = not self.databases or any(fnmatchcase(target, each) for each in self.databases)
        return wanted and not any(fnmatchcase(target, each) for each in self.excluded)

    def name_of(self, target: str) -> re.Pattern[str]:
        """What the names of files of a target look like."""
        if not self.suffix:
            return re.compile(rf"(?:.*[^0-9])?{_STAMP}(?:[^0-9].*)?", re.DOTALL)
        base = target if self.has_targets else posixpath.basename(self.directory)
        return re.compile(rf"{re.escape(base)}_{_STAMP}\.{self.suffix}(?:\.gz)?")


_KINDS = {
    "files": (True, "tar"),
    "mysql": (True, "sql"),
    "postgres": (True, "sql"),
    "mongodb": (True, "tar"),
    "mysql_physical": (False, "tar"),
    "postgres_physical": (False, "tar"),
    "redis": (False, "rdb"),
}
"""By type of our source; all others take the place of a program."""


def tree_for(source: Any, backup: str, directory: str | None) -> Tree:
    """Where v3 kept what a source of ours reads now.

    Args:
        source: the model of our source.
        directory: what v3 called its source, or its job of type external; by default our backup.
    """
    has_targets, suffix = _KINDS.get(source.type, (False, ""))
    counterparts: Counterparts = _all
    if source.type == "files" and source.artifact == "per_path":
        counterparts = _Paths(tuple(source.paths))
    elif has_targets and getattr(source, "artifact", "") != "single":
        counterparts = _itself
    tree = Tree(directory or backup, has_targets, suffix, counterparts)
    if source.type not in ("mysql", "postgres", "mongodb"):
        return tree
    named = () if source.databases == "all" else tuple(source.databases)
    return replace(tree, databases=named, excluded=tuple(source.exclude))


def _all(_target: str) -> None:
    return None


def _itself(target: str) -> frozenset[str]:
    return frozenset((target,))


@dataclass(frozen=True)
class _Paths:
    """v3 calls a path by the parts in which it differs from its pattern, else by its last part."""

    patterns: tuple[str, ...]

    def __call__(self, target: str) -> frozenset[str]:
        return frozenset(name for pattern in self.patterns for name in _artifacts(pattern, target))


def _artifacts(pattern: str, target: str) -> Iterable[str]:
    parts = pattern.strip("/").split("/")
    open_parts = [number for number, part in enumerate(parts) if re.search(r"[*?\[]", part)]
    given = target.split("___")
    if not open_parts and parts[-1] == target:
        yield "-".join(parts)
    elif len(open_parts) == len(given):
        for number, part in zip(open_parts, given, strict=True):
            parts[number] = part
        yield "-".join(parts)


@dataclass(frozen=True)
class OldCopy:
    """One copy of v3, under all its names."""

    target: str
    """Empty where the tree has no targets."""
    taken_at: datetime
    name: str
    directories: tuple[str, ...]
    """Where it was listed: the file itself first; links are not listed."""
    size: int
    year: str = ""
    """Of the tree of an increment; empty for a discrete copy."""
    level: int = 0
    root: str = ""
    """The directory that the periods are in."""

    @property
    def path(self) -> str:
        return f"{self.directories[0]}/{self.name}"

    @property
    def names(self) -> list[str]:
        """Everything it may be called on the storage, links first."""
        possible = _increment_directories(self) if self.year else PERIODS
        found = {f"{self.root}/{directory}/{self.name}" for directory in possible}
        listed = [f"{directory}/{self.name}" for directory in self.directories]
        return [*sorted(found - set(listed)), *reversed(listed)]


def _increment_directories(copy: OldCopy) -> list[str]:
    """It is put where it belongs when it is delivered, which may be days after its name."""
    found = {"year"}
    for later in range(3):
        day = copy.taken_at + timedelta(days=later)
        found |= {f"month_{day.month:02}/monthly", f"month_{day.month:02}/{_decade(day)}"}
    return sorted(found)


def _decade(day: datetime) -> str:
    return "day_01" if day.day < 11 else "day_11" if day.day < 21 else "day_21"


def find(objects: Iterable[ObjectInfo], tree: Tree) -> list[OldCopy]:
    """The copies among the objects below the directory of a tree, oldest first.

    What v3 would not have named so is passed over.
    """
    found: dict[tuple[str, str, str], list[tuple[int, str, ObjectInfo, datetime, str]]] = {}
    for info in objects:
        parsed = _parse(info.name, tree)
        if parsed is not None:
            target, year, rank, taken_at, root = parsed
            directory, _, name = info.name.rpartition("/")
            found.setdefault((target, year, name), []).append(
                (rank, directory, info, taken_at, root)
            )
    copies = []
    for (target, year, name), places in found.items():
        places.sort(key=lambda place: (place[0], place[1]))
        rank, _, _, taken_at, root = places[0]
        directories = tuple(place[1] for place in places)
        size = max(place[2].size for place in places)
        level = rank if year else 0
        copies.append(OldCopy(target, taken_at, name, directories, size, year, level, root))
    return sorted(copies, key=lambda copy: (copy.taken_at, copy.path))


def _parse(path: str, tree: Tree) -> tuple[str, str, int, datetime, str] | None:
    """(target, year, rank of its directory, time, root of the periods) of a file of v3."""
    below = path.removeprefix(f"{tree.directory}/")
    if below == path:
        return None
    parts = below.split("/")
    target = parts.pop(0) if tree.has_targets and len(parts) > 1 else ""
    name = parts.pop()
    match = tree.name_of(target).fullmatch(name)
    taken_at = _time(match["stamp"]) if match else None
    if taken_at is None or (tree.has_targets and not (target and tree.is_meant(target))):
        return None
    root = f"{tree.directory}/{target}" if target else tree.directory
    if len(parts) == 1 and parts[0] in PERIODS:
        return target, "", PERIODS.index(parts[0]), taken_at, root
    level = _level(parts, taken_at) if tree.suffix == "tar" and tree.has_targets else None
    return None if level is None else (target, parts[0], level, taken_at, f"{root}/{parts[0]}")


def _level(parts: Sequence[str], taken_at: datetime) -> int | None:
    """Of an increment, by the directories it lies in."""
    if not parts or not _YEAR.fullmatch(parts[0]):
        return None
    if list(parts[1:]) == ["year"]:
        # One of 31 December that was delivered on 1 January is no full copy.
        return 0 if taken_at.year == int(parts[0]) else 3
    if len(parts) != 3 or not _MONTH.fullmatch(parts[1]):
        return None
    if parts[2] == "monthly":
        return 1
    if parts[2] not in _DECADES.values():
        return None
    return 2 if taken_at.day in _DECADES else 3


def _time(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, "%Y-%m-%d_%H-%M").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


@dataclass
class OldRotation:
    """What rotation does with the copies of v3."""

    keep: list[tuple[OldCopy, tuple[str, ...]]] = field(default_factory=list)
    """Each with the reasons."""
    remove: list[OldCopy] = field(default_factory=list)
    """An increment before what it builds on."""

    def steps(self, copy: OldCopy) -> list[list[str]]:
        """What to remove with a copy, one after the other: its links, then the file.

        With the last of a year also the indexes, which the next one would have started from.
        """
        *links, file = copy.names
        steps = [links, [file]]
        last = next(each for each in reversed(self.remove) if each.root == copy.root)
        if copy.year and copy is last and all(kept.root != copy.root for kept, _ in self.keep):
            steps.append([f"{copy.root}/inc_meta_info/{name}" for name in _META])
        return steps


def plan_rotation(
    copies: Sequence[OldCopy],
    own: Sequence[tuple[str, datetime]],
    tree: Tree,
    policy: RetentionPolicy,
    now: datetime,
) -> OldRotation:
    """Decide what stays of each target; a pure function.

    Our own complete copies of the same thing are counted along, so that the old ones age out, but
    nothing is decided about them here, and nothing here changes what is decided about them. Until
    there is one of ours, the newest complete copy of v3 stays whatever the policy says. What a
    kept increment builds on stays too.

    Args:
        own: (artifact, time) of every complete copy of ours.
    """
    rotation = OldRotation()
    ordered = sorted(copies, key=lambda copy: (copy.target, copy.taken_at, copy.path))
    for target, group in groupby(ordered, key=lambda copy: copy.target):
        by_id = {copy.path: copy for copy in group}
        names = tree.counterparts(target)
        times = {moment for artifact, moment in own if names is None or artifact in names}
        ours = [Candidate(f"/own/{moment.isoformat()}", moment) for moment in sorted(times)]
        decision = decide([*_candidates(list(by_id.values())), *ours], policy, now)
        rotation.keep += [
            (by_id[kept.candidate.id], kept.reasons)
            for kept in decision.keep
            if kept.candidate.id in by_id
        ]
        rotation.remove += [by_id[each.id] for each in decision.remove if each.id in by_id]
    return rotation


def _candidates(copies: Sequence[OldCopy]) -> list[Candidate]:
    """Copies of one target, oldest first, as retention sees them."""
    found: dict[str, Candidate] = {}
    for copy in copies:
        base = base_of(copy, copies)
        is_whole = not copy.level or (base is not None and found[base.path].complete)
        parent = base.path if base else None
        complete = is_whole and copy.size > 0
        found[copy.path] = Candidate(copy.path, copy.taken_at, parent, complete)
    return list(found.values())


def base_of(copy: OldCopy, copies: Sequence[OldCopy]) -> OldCopy | None:
    """What an increment needs, directly or through what that needs; None for a full copy.

    That is the newest earlier one that may have left an index. Which one v3 started from no name
    tells: over SFTP it fails to renew `day.inc` on the 1st of a month, and whether a copy of the
    11th has left one depends on when it was delivered. So all that may be it are kept, as a chain.

    Args:
        copies: of the same target, oldest first.
    """
    if not copy.level:
        return None
    for each in reversed(copies):
        if each.year == copy.year and each.taken_at < copy.taken_at and _left_index(each):
            return each
    return None


def _left_index(copy: OldCopy) -> bool:
    """Whether it may have: it is a full copy, or was delivered on the 1st, 11th or 21st."""
    put_later = not copy.directories[0].endswith(_decade(copy.taken_at))
    return copy.level < 2 or copy.taken_at.day in _DECADES or put_later
