"""The calendars of the documentation are what the program would do."""

from __future__ import annotations

from calendar import Calendar
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone

from pipeline import retention, series
from pipeline.retention import Candidate
from pipeline.series import Copy
from schemas.retention import RetentionPolicy
from tests.markdown import DOCS, blocks

HEAD = "Mon     Tue     Wed     Thu     Fri     Sat     Sun"


def nights(first: date, last: date) -> Iterator[datetime]:
    """3:15 of every day, UTC."""
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        yield datetime(day.year, day.month, day.day, 3, 15, tzinfo=timezone.utc)


def drawn(first: date, last: date, mark: Callable[[date], str]) -> str:
    """Months, with a mark beside each day."""
    lines: list[str] = []
    month = first
    while month <= last:
        lines += [f"{month:%B %Y}", HEAD]
        for week in Calendar().monthdatescalendar(month.year, month.month):
            cells = [f"{day.day:2} {mark(day)}" if day.month == month.month else "" for day in week]
            lines.append("".join(f"{cell:<8}" for cell in cells).rstrip())
        lines.append("")
        month = (month + timedelta(days=32)).replace(day=1)
    return "\n".join(lines).rstrip("\n") + "\n"


def test_rotation() -> None:
    first, last = date(2026, 9, 1), date(2026, 11, 25)
    policy = RetentionPolicy(daily=7, weekly=5, monthly=3)
    there: list[Candidate] = []
    for night in nights(first, last):
        there.append(Candidate(night.isoformat(), night))
        decision = retention.decide(there, policy, night)
        there = [kept.candidate for kept in decision.keep]
    letters = {
        kept.candidate.taken_at.date(): "".join(
            reason[0].upper() for reason in kept.reasons if reason != "newest"
        )
        for kept in decision.keep
    }

    def mark(day: date) -> str:
        return letters.get(day, ".") if day <= last else ""

    (shown,) = [b.text for b in blocks(DOCS / "rotation.md", "text") if HEAD in b.text]
    assert shown == drawn(first, last, mark)
    assert (len(letters), (last - first).days + 1) == (12, 86)
    assert "Twelve of eighty-six are left" in (DOCS / "rotation.md").read_text()


def test_levels() -> None:
    first, last = date(2026, 7, 1), date(2026, 7, 31)
    copies: list[Copy] = []
    parents: dict[date, date | None] = {}
    for night in nights(first, last):
        level, base = series.decide(copies, ("monthly", "weekly"), night)
        copies.append(Copy(night, level))
        parents[night.date()] = base.taken_at.date() if base else None
    levels = {copy.taken_at.date(): copy.level for copy in copies}
    (shown,) = [b.text for b in blocks(DOCS / "incremental.md", "text") if HEAD in b.text]
    assert shown == drawn(first, last, lambda day: str(levels[day]))

    def chain(day: int) -> list[int]:
        found, current = [], parents[date(2026, 7, day)]
        while current:
            found, current = [current.day, *found], parents[current]
        return [*found, day]

    assert chain(9) == [1, 6, 7, 8, 9]
    assert chain(13) == [1, 13]
