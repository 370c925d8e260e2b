"""Looking at all items of a directory: one after the other, or many at once where that takes long.

A local file system answers in microseconds, and threads would only get in each other's way. Over a
network each look takes a round trip; a directory of thousands of files would take seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from pipeline.context import Teardown
from stages.sources._files.listing import look
from stages.sources._files.tasks import Pool, Task

_THREADS = 64
_TRIED = 4
"""Items that are looked at to find out how long it takes."""
_SLOW = 300e-6
"""Seconds; less is a matter of the machine, not of the way to the file system."""
_SLICE = 8

_Entry = os.DirEntry[str]
_Rows = list[bytes | None]


class Looker:
    """May be used by several threads; close it in the end."""

    def __init__(self, teardown: Teardown) -> None:
        self._teardown = teardown
        self._pool = Pool("look")
        self._lock = threading.Lock()

    def look(self, entries: Sequence[_Entry]) -> _Rows:
        """The packed row of each item; None for what has vanished."""
        if len(entries) <= 2 * _SLICE:
            return _look(entries)
        rows: _Rows = []
        quickest = 1.0
        for entry in entries[:_TRIED]:
            started = time.perf_counter()
            rows += _look([entry])
            quickest = min(quickest, time.perf_counter() - started)
        rest = entries[_TRIED:]
        return rows + (_look(rest) if quickest < _SLOW else self._look_at_many(rest))

    def close(self) -> None:
        """End the threads; one that hangs in the kernel is left behind."""
        self._pool.close()

    def _look_at_many(self, entries: Sequence[_Entry]) -> _Rows:
        tasks = [_task(entries[at : at + _SLICE]) for at in range(0, len(entries), _SLICE)]
        for task in tasks:
            with self._lock:
                self._pool.submit(task, _THREADS)
        rows: _Rows = []
        for task in tasks:
            rows += task.result((), self._teardown)
        return rows


def _task(entries: Sequence[_Entry]) -> Task[_Rows]:
    return Task(lambda _: _look(entries), _forget)


def _forget(_rows: _Rows | None, _ran: bool) -> None:
    """There is nothing to free."""


def _look(entries: Sequence[_Entry]) -> _Rows:
    try:
        return look(entries)
    except OSError:
        return [row for entry in entries for row in _look_or_none(entry)]


def _look_or_none(entry: _Entry) -> _Rows:
    try:
        return look([entry])
    except OSError:
        return [None]
