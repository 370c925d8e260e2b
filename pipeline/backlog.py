"""Events that a notifier has still to tell: each once, few at a time, and all of them counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from pipeline.events import LEVELS, Event, EventsOmitted

TOLD = 30
"""Events of a message; the others are in a digest below."""
KEPT = 1000
"""Different events of a level that wait at most; beyond them, they are only counted."""

_Kind = tuple[str, str, str]
"""Level, name and backup: what a digest counts by."""


class Backlog:
    """Filled from any thread, emptied by one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Event, int] = {}
        """How often each has happened, in the order of the first time."""
        self._by_level: Counter[str] = Counter()
        self._uncounted: Counter[_Kind] = Counter()

    def add(self, event: Event) -> None:
        """Take one; never waits for long."""
        with self._lock:
            if event in self._waiting:
                self._waiting[event] += 1
            elif self._by_level[event.severity] < KEPT:
                self._by_level[event.severity] += 1
                self._waiting[event] = 1
            else:
                self._uncounted[_kind(event)] += 1

    def drain(self) -> tuple[list[Event], int]:
        """What to tell now, and of how many events that is the whole story.

        The worst are told one by one, in the order in which they came, with a note on those that
        were repeated; the others as a digest.
        """
        with self._lock:
            waiting, omitted = self._waiting, self._uncounted
            self._waiting, self._uncounted = {}, Counter()
            self._by_level.clear()
        total = sum(waiting.values()) + sum(omitted.values())
        chosen = _worst(list(waiting))
        told: list[Event] = []
        for event, times in waiting.items():
            if event not in chosen:
                omitted[_kind(event)] += times
                continue
            told.append(event)
            if times > 1:
                told.append(_omitted(_kind(event), times - 1, "repeated"))
        told += [_omitted(kind, number, "too many") for kind, number in omitted.items()]
        return told, total


def _worst(events: Sequence[Event]) -> frozenset[Event]:
    by_level = sorted(events, key=lambda event: -LEVELS.index(event.severity))
    return frozenset(by_level[:TOLD])


def _kind(event: Event) -> _Kind:
    return event.severity, event.name, getattr(event, "backup", "")


def _omitted(kind: _Kind, number: int, reason: str) -> EventsOmitted:
    level, name, backup = kind
    return EventsOmitted(name, number, reason, level, backup)
