"""How many reads are in flight: as many as a slow source needs, none in advance on a fast one."""

from __future__ import annotations

import time

_FIRST_PERIOD, _PERIOD = 0.05, 0.1
"""Seconds of reading after which the number is reconsidered."""
_LONGEST_PERIOD = 1.0
"""The same with the time in which the archive waits for whoever takes it."""
_WAITING, _SATURATED = 0.6, 1.0
"""Shares of the time that are spent on a processor: below the first one more readers help, above
the second one fewer do.
"""
_LEAP = 16
"""The number is multiplied by this at most."""
_UNHURRIED = 0.2
"""Share of the time in which the archive is waited for, below which it is fast enough."""
_LARGE_BATCH = 128
_SMALL_BATCH, MEDIUM_BATCH = 8, 16
"""Files to be read by one task when there are many tasks, and when there are few."""
_MANY = 16


class Pace:
    """Decides from the processor time of everybody who reads, compared to the time it took.

    A source whose data is in memory keeps a processor busy: more threads would only fight for the
    interpreter, so the writer reads by itself. One with latency leaves it idle: more requests at
    once are all that helps.

    Args:
        most: batches in flight at most; 1 means that the writer reads by itself.
    """

    def __init__(self, most: int) -> None:
        self._most = most if most > 1 else 0
        self.readers = 0
        """Batches that may be in flight; 0 when the writer reads by itself."""
        self.batch = _SMALL_BATCH
        """Files to be read by one task."""
        self._period = _FIRST_PERIOD
        self._begin()

    def pause(self) -> None:
        """The archive waits for whoever takes it."""
        self._paused = (time.perf_counter(), time.thread_time())

    def resume(self) -> None:
        """Reading goes on; another thread may have come to do it."""
        wall, cpu = self._paused
        self._rested += time.perf_counter() - wall
        self._own += time.thread_time() - cpu

    def spent(self, cpu: float) -> None:
        """Another thread spent so many seconds of processor time on reading."""
        self._others += cpu

    def limit(self) -> None:
        """There are too few descriptors for so many."""
        self._most //= 2
        self.readers = min(self.readers, self._most)

    def adjust(self) -> None:
        """Reconsider; to be called often."""
        total = time.perf_counter() - self._started
        reading = total - self._rested
        if reading < self._period and total < _LONGEST_PERIOD:
            return
        busy = time.thread_time() - self._own + self._others
        if not self.readers:
            # On a busy machine, waiting for a processor is no reason for more threads.
            busy += _run_delay() - self._delay
            self.batch = _LARGE_BATCH
        if reading < _UNHURRIED * total or busy > _SATURATED * total:
            self._shrink()
        elif busy < _WAITING * reading:
            self._grow(min(_LEAP, max(2, int(_WAITING * reading / max(busy, 1e-6)))))
        self._begin()
        self._period = _PERIOD

    def _shrink(self) -> None:
        self.readers = self.readers * 3 // 4 if self.readers > 2 else 0
        self._divide()

    def _grow(self, factor: int) -> None:
        self.readers = min(self._most, max(1, self.readers) * factor)
        self._divide()

    def _divide(self) -> None:
        if self.readers:
            self.batch = _SMALL_BATCH if self.readers >= _MANY else MEDIUM_BATCH
        else:
            self.batch = _LARGE_BATCH

    def _begin(self) -> None:
        self._started = time.perf_counter()
        # Own processor time before this period, and outside of reading.
        self._own = time.thread_time()
        self._delay = _run_delay()
        self._rested = self._others = 0.0


def _run_delay() -> float:
    """Seconds that this thread was ready to run without a processor; 0 where nobody counts them."""
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
