"""Events and reports as text for people, in pieces that a service takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from pipeline.events import LEVELS, Event, EventsOmitted, RunStarted
from pipeline.report import BackupReport, RunReport, format_size

Size = Callable[[str], int]

MOST_PIECES = 5
"""More messages than these at once are not calm; the last one says what is left out."""
_RESERVE = 40
"""Room for that."""
_LONGEST_LINE = 1500
"""Of an event: one that says more would crowd out the others."""


def worst_level(events: Sequence[Event]) -> str:
    """The highest level of a batch."""
    return max((event.severity for event in events), key=LEVELS.index)


def events_title(events: Sequence[Event], about: RunStarted | None) -> str:
    """`[warning] shop on web-1: 214 events`; of one event, its name."""
    number = sum(one.number if isinstance(one, EventsOmitted) else 1 for one in events)
    what = events[0].name if len(events) == 1 else f"{number:,} events"
    where = f"{about.project} on {about.host}: " if about is not None else ""
    return f"[{worst_level(events)}] {where}{what}"


def events_text(events: Sequence[Event], about: RunStarted | None) -> str:
    """A line for each, below a title that counts all of them."""
    return "\n".join([events_title(events, about), *map(event_line, events)])


def event_line(event: Event) -> str:
    """`warning: items skipped backup=etc number=1`."""
    if isinstance(event, EventsOmitted):
        of = f" backup={event.backup}" if event.backup else ""
        return f"{event.severity}: {event.number:,} more: {event.event} ({event.reason}){of}"
    line = _full_line(event)
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + " ..."


def _full_line(event: Event) -> str:
    fields = " ".join(f"{name}={value}" for name, value in _plain_fields(event).items())
    return f"{event.severity}: {event.name} {fields}"


def event_document(event: Event) -> dict[str, Any]:
    """JSON-ready, with the names that the JSON log has."""
    return {"event": event.name, "level": event.severity, **_plain_fields(event)}


def _plain_fields(event: Event) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in event.to_fields().items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain_value(one) for one in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def brief(report: RunReport) -> str:
    """The result of a run, a line for each backup: for services that thread the details."""
    head = report.summary().partition("\n")[0]
    return "\n".join([head, *(report.redactor.text(_backup_line(one)) for one in report.backups)])


def _backup_line(backup: BackupReport) -> str:
    read = format_size(sum(artifact.plain_size for artifact in backup.artifacts))
    errors = [backup.error, *(artifact.error for artifact in backup.artifacts)]
    why = next(filter(None, errors), None)
    return f"{backup.name}: {backup.outcome.value}, {read} read" + (f": {why}" if why else "")


def pieces(text: str, limit: int, size: Size = len, most: int = MOST_PIECES) -> list[str]:
    """Split at the ends of lines, and inside a line only when it alone is too long.

    Args:
        limit: what `size` may give for a piece.
        most: so many pieces; the last one says how many lines are left out.
    """
    room = limit - _RESERVE
    lines = list(_lines(text, room, size))
    found: list[str] = []
    at = 0
    while at < len(lines) and len(found) < most:
        first, used = at, size(lines[at])
        at += 1
        while at < len(lines) and used + size("\n") + size(lines[at]) <= room:
            used += size("\n") + size(lines[at])
            at += 1
        found.append("\n".join(lines[first:at]))
    if at < len(lines):
        found[-1] += f"\n... {len(lines) - at} more lines"
    return found


def _lines(text: str, limit: int, size: Size) -> Iterator[str]:
    for line in text.split("\n"):
        rest = line
        while size(rest) > limit:
            fits = _longest(rest, limit, size)
            yield rest[:fits]
            rest = rest[fits:]
        yield rest


def _longest(line: str, limit: int, size: Size) -> int:
    """How many characters of a line fit; at least one."""
    low, high = 1, min(len(line), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(line[:middle]) <= limit else (low, middle - 1)
    return low


def utf16_units(text: str) -> int:
    """Length as Telegram and Discord count it: beyond the basic plane a character is two."""
    return len(text) + sum(ord(character) > 0xFFFF for character in text)


def utf8_bytes(text: str) -> int:
    """Length once it is encoded."""
    return len(text.encode("utf-8", "replace"))
