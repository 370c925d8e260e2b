"""What nxs-backup v3 writes to a storage, day by day: its rules of delivery, without the program.

As in `modules/storage/common.go` and `modules/backup/inc_files` of nixys/nxs-backup 3.12. Its own
rotation is left out: it only removes more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

DECADES = (1, 11, 21)


def moment(text: str) -> datetime:
    """UTC, of `2026-11-23 03:15`."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=timezone.utc)


def days(first: str, last: str) -> Iterator[datetime]:
    """Every day at the time of the first."""
    day = moment(first)
    while day <= moment(last):
        yield day
        day += timedelta(days=1)


@dataclass(frozen=True)
class Placed:
    """One copy and where it was put: the file, then the links (or further copies)."""

    started: datetime
    name: str
    paths: tuple[str, ...]
    base: str | None = None
    """The path of what an increment was really made from."""


def discrete(
    directory: str,
    name: str,
    runs: Iterable[datetime],
    suffix: str = ".tar.gz",
    retention: tuple[int, int, int] = (7, 5, 12),
) -> Iterator[Placed]:
    """Copies of one target of any job but inc_files, below `<source>[/<target>]`.

    Args:
        retention: days, weeks and months; a period of 0 has no directory.
    """
    for started in runs:
        base = f"{name}_{started:%Y-%m-%d_%H-%M}{suffix}"
        wanted = (
            ("monthly", started.day == 1 and retention[2] > 0),
            ("weekly", started.weekday() == 6 and retention[1] > 0),
            ("daily", retention[0] > 0),
        )
        paths = tuple(f"{directory}/{period}/{base}" for period, is_due in wanted if is_due)
        if paths:
            yield Placed(started, base, paths)


@dataclass
class Increments:
    """A job of the type inc_files, for one target.

    Attributes:
        over_sftp: there v3 cannot replace an index by a link, logs it, and leaves the old one.
    """

    directory: str
    name: str
    suffix: str = ".tar.gz"
    over_sftp: bool = False
    indexes: dict[str, str] = field(default_factory=dict)
    """Path of each index, and of the copy that it describes; or of the index it is a link to."""

    def run(self, started: datetime, takes: timedelta = timedelta()) -> Placed | None:
        """One run; None where v3 fails because it lacks an index."""
        is_first = started.timetuple().tm_yday == 1 or not self._index(started.year, "year")
        if is_first:
            base = None
        elif started.day not in DECADES:
            base = self._index(started.year, "day")
        else:
            base = self._index(started.year, "month" if started.month != 1 else "year")
        if base is None and not is_first:
            return None
        return self._deliver(started, started + takes, is_first, base)

    def _index(self, year: int, period: str) -> str | None:
        path: str | None = f"{self.directory}/{year}/inc_meta_info/{period}.inc"
        while path is not None and path.endswith(".inc"):
            path = self.indexes.get(path)
        return path

    def _deliver(
        self, started: datetime, now: datetime, is_first: bool, base: str | None
    ) -> Placed:
        name = f"{self.name}_{started:%Y-%m-%d_%H-%M}{self.suffix}"
        root = f"{self.directory}/{now.year}"
        month = f"{root}/month_{now.month:02}"
        decade = "day_01" if now.day < 11 else "day_11" if now.day < 21 else "day_21"
        paths, indexes = [], []
        if now.timetuple().tm_yday == 1 or is_first:
            paths.append(f"{root}/year/{name}")
            indexes.append("year")
        if now.day == 1 or is_first:
            paths.append(f"{month}/monthly/{name}")
            indexes.append("month")
        paths.append(f"{month}/{decade}/{name}")
        if now.day in DECADES or is_first:
            indexes.append("day")
        for number, index in enumerate(indexes):
            path = f"{root}/inc_meta_info/{index}.inc"
            if number == 0:
                self.indexes[path] = paths[0]
            elif not self.over_sftp or path not in self.indexes:
                self.indexes[path] = f"{root}/inc_meta_info/{indexes[0]}.inc"
        return Placed(started, name, tuple(paths), base)


def put_on_disk(root: Path, copies: Iterable[Placed], content: bytes = b"old") -> None:
    """As on local storages and over SFTP: the longest period has the file, others lead to it."""
    for copy in copies:
        file, *links = (root / path for path in copy.paths)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        for link in links:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(file, link.parent))


def put_indexes(root: Path, increments: Increments) -> None:
    """The indexes of a job, as they are after its last run."""
    for index in increments.indexes:
        (root / index).parent.mkdir(parents=True, exist_ok=True)
        (root / index).write_bytes(b"GNU tar-1.34-2\n")


def files_of(root: Path) -> set[str]:
    """Every file and link, below the root."""
    found = (path for path in root.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path.relative_to(root)) for path in found}
