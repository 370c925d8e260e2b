"""The terminal: log lines scroll, and below them a live part is redrawn in place."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from pipeline.cli.live import Live, columns_of
from pipeline.events import Event

PERIOD = 0.1
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"

Size = tuple[int, int]
"""Columns and lines."""


def terminal_size(descriptor: int) -> Size:
    """Of the terminal behind a descriptor; the usual one when it is none."""
    try:
        columns, lines = os.get_terminal_size(descriptor)
    except OSError:
        columns, lines = 0, 0
    return columns or 80, lines or 24


class Screen:
    """A terminal with a live part at the bottom.

    Args:
        write: takes text with control sequences.
        is_behind: whether it has not written everything yet; then nothing is drawn that only shows
            progress.
        size: asked before each drawing, as a window can be resized.
        period: seconds between two drawings that only show progress.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        is_behind: Callable[[], bool],
        size: Callable[[], Size],
        period: float = PERIOD,
    ) -> None:
        self._write = write
        self._is_behind = is_behind
        self._size = size
        self._period = period
        self._live = Live()
        self._lock = threading.Lock()
        self._drawn: list[int] = []
        """Columns of each line of the live part, as it stands there."""
        self._drawn_at = 0.0

    def write_line(self, line: str) -> None:
        """A line above the live part."""
        with self._lock:
            self._draw(f"{line}\n")

    def show(self, event: Event) -> None:
        """Keep the live part up to date; a subscriber."""
        with self._lock:
            urgent = self._live.take(event)
            is_due = time.monotonic() - self._drawn_at >= self._period and not self._is_behind()
            if urgent or is_due:
                self._draw("")

    def close(self) -> None:
        """Remove the live part."""
        with self._lock:
            self._live = Live()
            self._draw("")

    def _draw(self, above: str) -> None:
        width, height = self._size()
        # A terminal that has become narrower has wrapped what stands there.
        rows = sum(max(1, -(-columns // width)) for columns in self._drawn)
        lines = self._live.lines(width - 1, height - 1)
        text = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
        if rows:
            # Over what is there, not into the blank, which would flicker; a line above may wrap.
            text = f"\x1b[{rows}A\r{_CLEAR_BELOW if above else ''}{above}{text}{_CLEAR_BELOW}"
        else:
            text = above + text
        if text:
            self._write(text)
        self._drawn = [columns_of(line) for line in lines]
        self._drawn_at = time.monotonic()
