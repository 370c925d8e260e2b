"""How long, and how often, a broken connection is made again."""

from __future__ import annotations

import time

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_SHORTEST_ATTEMPT = 1.0


class Patience:
    """Counts the time without progress, and spaces the attempts: the first is made at once.

    A server that fell silent is noticed by waiting, which uses up some of the time: half of it at
    most, so that there is some left to connect again.

    Args:
        seconds: without progress after which it ends.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: float | None = None
        self._delay = 0.0

    def progress(self) -> None:
        """Something went well: start from the beginning next time."""
        self._since = None

    def strain(self, heard: float) -> None:
        """A connection broke.

        Args:
            heard: when its server was last heard, or asked, whichever was later.
        """
        if self._since is None:
            self._since = max(heard, time.monotonic() - self.seconds / 2)
            self._delay = 0.0

    def next_delay(self) -> float | None:
        """Seconds to sleep before the next attempt; None when it has ended."""
        left = self._left()
        if left <= 0:
            return None
        delay = min(self._delay, left)
        self._delay = min(max(2 * self._delay, _FIRST_DELAY), _LONGEST_DELAY)
        return delay

    @property
    def attempt(self) -> float:
        """Seconds that an attempt may take."""
        return max(self._left(), _SHORTEST_ATTEMPT)

    def _left(self) -> float:
        now = time.monotonic()
        return (now if self._since is None else self._since) + self.seconds - now
