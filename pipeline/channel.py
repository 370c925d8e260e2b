"""A bounded pipe between two threads.

Bounded in bytes, not items: what a run may hold in memory is then known before it starts. Two
`SimpleQueue`s, one with the data and one with the credits that come back, cost 1 to 4 µs a chunk; a
lock and condition variables cost more, and a hop through the event loop a hundred times as much.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from pipeline.errors import Aborted


class Truncated(Aborted):
    """What came out is not what went in: the stream is not whole."""


@dataclass(frozen=True)
class Trailer:
    """The explicit end of a stream that ended well."""

    size: int
    """Bytes of the whole stream."""
    sha256: str | None = None
    """Hex digest of the whole stream, where it was computed on the way."""


_WAKE = -1


class Channel:
    """One producer thread, one consumer thread, at most `capacity` bytes in between.

    A chunk larger than the capacity passes when the channel is empty. The consumer gives the credit
    for a chunk back before it works on it, so up to one chunk more is alive on either side. An end
    without `finish` is an error for the consumer, always: a crash upstream must never look like an
    end.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.sent = 0
        """Bytes put in so far."""
        self.received = 0
        """Bytes taken out so far."""
        self.full_seconds = 0.0
        """How long the producer has waited for room."""
        self.empty_seconds = 0.0
        """How long the consumer has waited for something to take out."""
        self.trailer: Trailer | None = None
        """Set once the consumer has seen the end."""
        self._data: SimpleQueue[bytes | Trailer | None] = SimpleQueue()
        self._credits: SimpleQueue[int] = SimpleQueue()
        self._debt = 0
        self._dead = False
        self._finished = False

    @property
    def is_empty(self) -> bool:
        """True while there is nothing to take out, and the end has not come."""
        return self.fill == 0 and not self._finished

    @property
    def fill(self) -> int:
        """Bytes in the channel now."""
        return self.sent - self.received

    @property
    def share(self) -> float:
        """How full it is; above 1 with a chunk larger than the capacity."""
        return self.fill / self.capacity

    def send(self, chunk: bytes) -> None:
        """Put a chunk in; wait while there is no room.

        Raises:
            Aborted: the other side went away, or the run is being stopped.
        """
        size = len(chunk)
        if self._debt and self._debt + size > self.capacity:
            self._wait_for_room(size)
        if self._dead:
            raise Aborted
        self._debt += size
        self.sent += size
        self._data.put(chunk)

    def _wait_for_room(self, size: int) -> None:
        started = time.monotonic()
        try:
            while self._debt and self._debt + size > self.capacity:
                credit = self._credits.get()
                if credit == _WAKE:
                    raise Aborted
                self._debt -= credit
        finally:
            self.full_seconds += time.monotonic() - started

    def finish(self, trailer: Trailer) -> None:
        """The stream ended well."""
        self._finished = True
        self._data.put(trailer)

    def abort(self) -> None:
        """Wake both sides; all that follows raises `Aborted`. From any thread, at any time."""
        self._dead = True
        try:
            while True:
                self._data.get_nowait()  # what nobody will take would stay in memory
        except Empty:
            pass
        self._data.put(None)
        self._credits.put(_WAKE)

    def __iter__(self) -> Iterator[bytes]:
        get, credit = self._data.get, self._credits.put
        while True:
            # The clock is looked at only where there is nothing to take: this is the hot path.
            item = get() if self.sent > self.received else self._wait_for_item()
            if self._dead:
                raise Aborted
            if isinstance(item, bytes):
                size = len(item)
                self.received += size
                credit(size)
                yield item
            elif isinstance(item, Trailer):
                self._check(item)
                self.trailer = item
                return
            else:
                raise Aborted

    def _wait_for_item(self) -> bytes | Trailer | None:
        started = time.monotonic()
        item = self._data.get()
        self.empty_seconds += time.monotonic() - started
        return item

    def _check(self, trailer: Trailer) -> None:
        if trailer.size != self.received:
            raise Truncated
