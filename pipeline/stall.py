"""Tells a part of the graph that is stuck from one that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable


class StallWatch:
    """How long something has had work and done none.

    Args:
        progress: a number that grows with all that is done.
        has_work: whether there is anything to do now.
    """

    def __init__(self, progress: Callable[[], int], has_work: Callable[[], bool]) -> None:
        self._progress, self._has_work = progress, has_work
        self._seen = -1
        self._since = time.monotonic()

    def idle_seconds(self, now: float) -> float:
        """Seconds without progress, as of `now` (monotonic); 0 while there is nothing to do."""
        progress = self._progress()
        if progress != self._seen or not self._has_work():
            self._seen, self._since = progress, now
        return now - self._since
