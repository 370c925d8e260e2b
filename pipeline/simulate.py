"""What rotation would do in the future: a pure function of what exists, of the policies, and of the
moments at which the backup would run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pipeline import series
from pipeline.naming import format_stamp
from pipeline.retention import Candidate, Decision, Kept, decide
from schemas.retention import RetentionPolicy


@dataclass(frozen=True)
class Holding:
    """What a storage has of one subject, and what it is to keep."""

    copies: Sequence[Candidate]
    policy: RetentionPolicy | None
    """None: nothing is ever removed."""
    levels: Mapping[datetime, int] = field(default_factory=dict)
    """Of the copies that an increment can be built on, by their time."""


@dataclass(frozen=True)
class Removal:
    """What one run would remove."""

    at: datetime
    """When it runs."""
    copy: Candidate


@dataclass
class Course:
    """What would happen on one storage."""

    made: list[Candidate] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    kept: Sequence[Kept] = ()
    """What is there in the end, newest first; without reasons where there is no policy."""


def simulate(
    holdings: Mapping[str, Holding], moments: Iterable[datetime], periods: Sequence[str] = ()
) -> dict[str, Course]:
    """Imagine a run that ends well at each moment, and the rotation that follows it.

    Args:
        holdings: by storage, all of the same subject.
        moments: of the runs, in order.
        periods: of the levels of a series of increments (see `pipeline.series`).
    """
    places = {name: _Place(holding) for name, holding in holdings.items()}
    for moment in moments:
        level, base = _level(places, periods, moment)
        for place in places.values():
            place.run(moment, level, base)
    return {name: place.course() for name, place in places.items()}


def _level(
    places: Mapping[str, _Place], periods: Sequence[str], moment: datetime
) -> tuple[int, datetime | None]:
    """The level of a new copy, and the time of what it builds on: that is on every storage."""
    if not periods or not places:
        return 0, None
    common = set.intersection(*(set(place.levels) for place in places.values()))
    levels = next(iter(places.values())).levels
    level, base = series.decide([series.Copy(at, levels[at]) for at in common], periods, moment)
    return level, base.taken_at if base else None


class _Place:
    """One storage as time goes by."""

    def __init__(self, holding: Holding) -> None:
        self._copies = {copy.taken_at: copy for copy in holding.copies}
        self._policy = holding.policy
        self.levels = dict(holding.levels)
        self._course = Course()
        self._now: datetime | None = None

    def run(self, moment: datetime, level: int, base: datetime | None) -> None:
        parent = self._copies[base].id if base else None
        made = Candidate(format_stamp(moment), moment, parent)
        self._course.made.append(made)
        self._copies[moment] = made
        self.levels[moment] = level
        self._now = moment
        if self._all_are_young():
            return
        for copy in self._decide().remove:
            self._course.removed.append(Removal(moment, copy))
            del self._copies[copy.taken_at]
            self.levels.pop(copy.taken_at, None)

    def _all_are_young(self) -> bool:
        """Whether `within` keeps everything: thousands of copies need no decision then."""
        if self._policy is None or self._policy.within is None or self._now is None:
            return self._policy is None
        oldest = min(self._copies)
        return (self._now - oldest).total_seconds() < self._policy.within

    def course(self) -> Course:
        self._course.kept = self._decide().keep
        return self._course

    def _decide(self) -> Decision:
        copies = list(self._copies.values())
        if self._policy is None or self._now is None:
            newest_first = sorted(copies, key=lambda copy: copy.taken_at, reverse=True)
            return Decision(tuple(Kept(copy, ()) for copy in newest_first), ())
        return decide(copies, self._policy, self._now)
