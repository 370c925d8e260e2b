"""How far an artifact is, as people read it: pure functions of `Progressed` events."""

from __future__ import annotations

from collections import deque

from pipeline.events import Progressed, StageProgress
from pipeline.report import format_size

_WINDOW = 5.0
"""Seconds that a rate is the mean of: long enough to be calm, short enough to be now."""
FIRST_LINE, LONGEST_PAUSE = 15.0, 300.0
"""Seconds; a log has a line of progress after the first, then ever rarer."""


class Pace:
    """Which of many events to tell: each artifact's first after `first` seconds, then after pauses
    that double up to `longest`.
    """

    def __init__(self, first: float = FIRST_LINE, longest: float = LONGEST_PAUSE) -> None:
        self._first, self._longest = first, longest
        self._next: dict[tuple[str, str], tuple[float, float]] = {}

    def is_due(self, event: Progressed) -> bool:
        """Whether it is time for a line; asked once for each event."""
        key = (event.backup, event.artifact)
        due, pause = self._next.get(key, (self._first, self._first))
        if event.seconds < due:
            return False
        self._next[key] = (event.seconds + pause, min(2 * pause, self._longest))
        return True


class Rate:
    """Bytes a second over the last few seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque([(0.0, 0)])

    def add(self, seconds: float, size: int) -> None:
        """Note how much has passed since the start."""
        self._points.append((seconds, size))
        while len(self._points) > 2 and seconds - self._points[1][0] >= _WINDOW:
            self._points.popleft()

    @property
    def now(self) -> float:
        (before, passed), (seconds, size) = self._points[0], self._points[-1]
        return (size - passed) / (seconds - before) if seconds > before else 0.0


def source_of(event: Progressed) -> StageProgress:
    """What the source has given so far."""
    return event.stages[0]


def storages_of(event: Progressed) -> list[StageProgress]:
    """What each storage has taken so far."""
    return [stage for stage in event.stages if stage.kind == "storage"]


def seconds_left(event: Progressed, rate: float) -> float | None:
    """How long the source will take at this rate; None when nobody can tell."""
    read = source_of(event).bytes
    if event.total is None or rate <= 0 or read >= event.total:
        return None
    return (event.total - read) / rate


def percent(event: Progressed) -> int | None:
    """How much of the source was read; None when nobody can tell."""
    if not event.total:
        return None
    return min(100 * source_of(event).bytes // event.total, 100)


def clock(seconds: float) -> str:
    """`0:07`, `12:05`, `3:00:59`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def progress_fields(event: Progressed) -> dict[str, str]:
    """An event as the fields of a line of text."""
    read = source_of(event).bytes
    rate = read / event.seconds if event.seconds else 0.0
    left, done = seconds_left(event, rate), percent(event)
    found = {
        "backup": event.backup,
        "artifact": event.artifact,
        "read": format_size(read),
        "rate": f"{format_size(rate)}/s",
        "elapsed": clock(event.seconds),
        "done": None if done is None else f"{done}%",
        "left": None if left is None else clock(left),
        "stored": ", ".join(f"{s.stage} {format_size(s.bytes)}" for s in storages_of(event)),
        "bottleneck": event.bottleneck,
    }
    return {name: text for name, text in found.items() if text}
