"""What may block or fail is written by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Full, Queue

_SIZE = 5000
_PATIENCE = 3.0

Job = Callable[[], None]


class Outlet:
    """A bounded queue of small jobs, and a thread that does one after the other.

    A terminal on hold, a full pipe that nobody reads, or a log server that does not answer then
    holds up nothing else: what does not fit into the queue is dropped, and counted.

    Args:
        failed: called in the thread when a job raised an `OSError`, which loses what it had to
            write and nothing else.
    """

    def __init__(self, name: str, failed: Callable[[OSError], None]) -> None:
        self._queue: Queue[Job | None] = Queue(_SIZE)
        self._failed = failed
        self._dropped = 0
        self._broken = 0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether there are jobs that have not begun."""
        return not self._queue.empty()

    @property
    def is_alive(self) -> bool:
        """Whether a job is perhaps still being done."""
        return self._thread.is_alive()

    @property
    def lost(self) -> int:
        """So many jobs were dropped, or failed."""
        return self._dropped + self._broken

    def put(self, job: Job) -> None:
        """Have a job done soon; from any thread, never waits."""
        try:
            self._queue.put_nowait(job)
        except Full:
            self._dropped += 1

    def close(self, last: Job | None = None) -> None:
        """Do what is left, and `last` at the end, for a few seconds at most."""
        try:
            if last is not None:
                self._queue.put(last, timeout=_PATIENCE)
            self._queue.put(None, timeout=_PATIENCE)
            self._thread.join(_PATIENCE)
        except Full:
            pass  # it has not moved for so long; joining would be waiting for more of that
        if self.is_alive:
            self._dropped += self._queue.qsize()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                job()
            except OSError as error:
                self._broken += 1
                self._failed(error)
