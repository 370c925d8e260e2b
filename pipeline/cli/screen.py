"""The terminal: log lines scroll, and below them a live line for each stage of what is running."""

from __future__ import annotations

import shutil
import threading
from typing import TextIO

from pipeline.events import ArtifactCommitted, ArtifactFailed, Event, Progressed
from pipeline.report import format_seconds, format_size

_BAR = 12


class Lines:
    """A plain stream of lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write_line(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class Screen:
    """A terminal with a live part at the bottom that is redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._live: dict[tuple[str, str], list[str]] = {}
        self._drawn = 0

    def write_line(self, line: str) -> None:
        with self._lock:
            self._erase()
            self._stream.write(line + "\n")
            self._draw()

    def show(self, event: Event) -> None:
        """Keep the live part up to date; a subscriber."""
        if isinstance(event, Progressed):
            with self._lock:
                self._live[event.backup, event.artifact] = progress_lines(event)
                self._erase()
                self._draw()
        elif isinstance(event, (ArtifactCommitted, ArtifactFailed)):
            self.clear(event.backup, event.artifact)

    def clear(self, backup: str, artifact: str) -> None:
        with self._lock:
            self._live.pop((backup, artifact), None)
            self._erase()
            self._draw()

    def close(self) -> None:
        """Remove the live part."""
        with self._lock:
            self._live.clear()
            self._erase()
            self._stream.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        lines = [line for block in self._live.values() for line in block][: height - 1]
        for line in lines:
            self._stream.write(line[: width - 1] + "\n")
        self._drawn = len(lines)
        self._stream.flush()


def progress_lines(event: Progressed) -> list[str]:
    """One line for the artifact, one for each stage: bytes, mean rate, fill of the channel before
    it.
    """
    head = f"{event.backup}/{event.artifact}  {format_seconds(event.seconds)}"
    if event.bottleneck:
        head += f"  waiting for: {event.bottleneck}"
    lines = [head]
    for stage in event.stages:
        rate = format_size(stage.bytes / event.seconds if event.seconds else 0)
        line = f"  {stage.stage:<14} {format_size(stage.bytes):>10}  {rate:>10}/s"
        lines.append(line if stage.fill is None else f"{line}  {_bar(stage.fill)}")
    return lines


def _bar(fill: float) -> str:
    full = round(min(max(fill, 0.0), 1.0) * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}]"
