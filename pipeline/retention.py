"""What rotation keeps: a pure function of the backups that exist, the policy and the moment.

The scheme is grandfather-father-son. Time is divided into hours, days, ISO weeks, months and years;
each rule keeps the newest backup of each of its newest so many periods. Periods without a backup
are not counted, so a machine that was off for a month loses nothing by it. As in restic's forget
command (ApplyPolicy), rules only add to what is kept: a backup goes when no rule asks for it.
Unlike there, `within` is measured from now, not from the newest backup, and the oldest backup does
not fill a count that is left over.

All periods are UTC. In local time a day of 23 or 25 hours, or a server that is moved to another
zone, would shift backups between days, and a second look could remove what the first one kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache

from schemas.retention import RetentionPolicy

_PERIODS = {
    "hourly": "%Y-%m-%dT%H",
    "daily": "%Y-%m-%d",
    "weekly": "%G-W%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}
"""Rules by period, each with the format that names a period."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True)
class Candidate:
    """A backup that rotation may keep or remove."""

    id: str
    """Unique among the candidates of one decision."""
    taken_at: datetime
    """With a time zone."""
    parent: str | None = None
    """Of an incremental: the `id` it cannot be restored without."""
    complete: bool = True
    """False when something that should be in it is missing."""

    def __post_init__(self) -> None:
        if self.taken_at.tzinfo is None:
            raise ValueError(f'the time of "{self.id}" has no time zone')


@dataclass(frozen=True)
class Kept:
    """A candidate that stays, and why."""

    candidate: Candidate
    reasons: tuple[str, ...]
    """Never empty: `newest`, `last 1 of 3`, `daily 2026-11-23`, `within 30d`, `needed by ID`."""


@dataclass(frozen=True)
class Decision:
    """Every candidate, once."""

    keep: tuple[Kept, ...]
    """Newest first."""
    remove: tuple[Candidate, ...]
    """In the order to remove them: an incremental before what it builds on, else oldest first."""


def decide(candidates: Sequence[Candidate], policy: RetentionPolicy, now: datetime) -> Decision:
    """Tell what to keep and what to remove.

    The newest complete candidate always stays, whatever the policy says, and so does everything
    that a kept one builds on. A time in the future (the clock was set back) counts as newest and
    as younger than any `within`. Of two with the same time the greater `id` is the newer.

    Where the newest of a period is incomplete, the newest complete one of it stays as well.

    Args:
        candidates: in any order; left as it is.
        policy: rules that add up.
        now: the present, with a time zone.

    Raises:
        ValueError: two candidates share an `id`.
    """
    newest_first = sorted(candidates, key=lambda one: (one.taken_at, one.id), reverse=True)
    by_id = {one.id: one for one in newest_first}
    if len(by_id) != len(newest_first):
        raise ValueError("two candidates of a retention decision share an id")
    reasons: dict[str, list[str]] = {}
    for candidate, reason in _wanted(newest_first, policy, now):
        reasons.setdefault(candidate.id, []).append(reason)
    _keep_ancestors(newest_first, by_id, reasons)
    depths = _depths(by_id)
    removed = [one for one in reversed(newest_first) if one.id not in reasons]
    removed.sort(key=lambda one: depths[one.id], reverse=True)
    return Decision(
        keep=tuple(Kept(one, tuple(reasons[one.id])) for one in newest_first if one.id in reasons),
        remove=tuple(removed),
    )


def _wanted(
    newest_first: Sequence[Candidate], policy: RetentionPolicy, now: datetime
) -> Iterator[tuple[Candidate, str]]:
    """What each rule asks for; the same candidate comes once for each rule that wants it."""
    complete = [one for one in newest_first if one.complete]
    for candidate in (complete or newest_first)[:1]:
        yield candidate, "newest"
    if policy.last is not None:
        for number, candidate in enumerate(newest_first[: policy.last], start=1):
            yield candidate, f"last {number} of {policy.last}"
    for rule, name_of_period in _PERIODS.items():
        count: int | None = getattr(policy, rule)
        if count is not None:
            yield from _newest_of_periods(newest_first, rule, name_of_period, count)
    if policy.within is not None:
        reason = f"within {_duration(policy.within)}"
        for candidate in newest_first:
            if (now - candidate.taken_at).total_seconds() < policy.within:
                yield candidate, reason


def _newest_of_periods(
    newest_first: Iterable[Candidate], rule: str, name_of_period: str, count: int
) -> Iterator[tuple[Candidate, str]]:
    """The newest of each of the `count` newest periods, and its newest complete one if another."""
    satisfied: dict[str, bool] = {}
    for candidate in newest_first:
        period = _period(candidate.taken_at, name_of_period)
        if period not in satisfied:
            if len(satisfied) == count:
                return
            satisfied[period] = candidate.complete
            yield candidate, f"{rule} {period}"
        elif candidate.complete and not satisfied[period]:
            satisfied[period] = True
            yield candidate, f"{rule} {period} complete"


@lru_cache(maxsize=1 << 16)  # a simulation asks for the same ones again and again
def _period(moment: datetime, name_of_period: str) -> str:
    return moment.astimezone(timezone.utc).strftime(name_of_period)


def _keep_ancestors(
    newest_first: Iterable[Candidate], by_id: dict[str, Candidate], reasons: dict[str, list[str]]
) -> None:
    """Add what the kept ones build on; the reason names a kept one that needs it directly."""
    needed: dict[str, str] = {}
    for candidate in newest_first:
        if candidate.id not in reasons:
            continue
        child, parent = candidate, _parent(candidate, by_id)
        while parent is not None and parent.id not in needed:
            needed[parent.id] = child.id
            child, parent = parent, _parent(parent, by_id)
    for parent_id, child_id in needed.items():
        reasons.setdefault(parent_id, []).append(f"needed by {child_id}")


def _depths(by_id: dict[str, Candidate]) -> dict[str, int]:
    """How many known ancestors each candidate has, in one pass over all chains."""
    depths: dict[str, int] = {}
    for candidate in by_id.values():
        chain: list[str] = []
        current: Candidate | None = candidate
        while current is not None and current.id not in depths:
            depths[current.id] = 0  # ends the walk where damaged data forms a ring
            chain.append(current.id)
            current = _parent(current, by_id)
        below = 0 if current is None else depths[current.id] + 1
        for depth, candidate_id in enumerate(reversed(chain), start=below):
            depths[candidate_id] = depth
    return depths


def _parent(candidate: Candidate, by_id: dict[str, Candidate]) -> Candidate | None:
    return None if candidate.parent is None else by_id.get(candidate.parent)


def _duration(seconds: float) -> str:
    """Seconds in the largest unit that divides them, as a user would write it."""
    for unit, size in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
