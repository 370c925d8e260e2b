"""The terminal: log lines scroll, and below them a live line for each stage of what is running."""

from __future__ import annotations

import os
import shutil
import threading
from queue import Full, Queue

from pipeline.events import ArtifactCommitted, ArtifactFailed, Event, Progressed
from pipeline.report import format_seconds, format_size

_BAR = 12
_QUEUE = 5000
_PATIENCE = 3.0


class Outlet:
    """Writes to a stream from a thread of its own.

    A terminal on hold, or a full pipe that nobody reads, then holds up nothing else: what does not
    fit into the queue is dropped, and counted at the end.
    """

    def __init__(self, descriptor: int) -> None:
        # Not the stream: a write that blocks would hold its lock, and the end of the process.
        self._descriptor = descriptor
        self._queue: Queue[str | None] = Queue(_QUEUE)
        self._dropped = 0
        self._thread = threading.Thread(target=self._drain, name="output", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        try:
            self._queue.put_nowait(text)
        except Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is left, for a few seconds at most."""
        try:
            if self._dropped:
                lost = f"{self._dropped} lines could not be written in time\n"
                self._queue.put(lost, timeout=_PATIENCE)
            self._queue.put(None, timeout=_PATIENCE)
        except Full:
            return
        self._thread.join(_PATIENCE)

    def _drain(self) -> None:
        try:
            while (text := self._queue.get()) is not None:
                data = memoryview(text.encode("utf-8", "replace"))
                while data:
                    data = data[os.write(self._descriptor, data) :]
        except OSError:
            return  # nobody can be told: this is where we tell


class Lines:
    """A plain stream of lines."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def write_line(self, line: str) -> None:
        self._outlet.write(line + "\n")


class Screen:
    """A terminal with a live part at the bottom that is redrawn in place."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._lock = threading.Lock()
        self._live: dict[tuple[str, str], list[str]] = {}
        self._drawn = 0

    def write_line(self, line: str) -> None:
        with self._lock:
            self._outlet.write(self._erasing() + line + "\n" + self._drawing())

    def show(self, event: Event) -> None:
        """Keep the live part up to date; a subscriber."""
        if isinstance(event, Progressed):
            with self._lock:
                self._live[event.backup, event.artifact] = progress_lines(event)
                self._outlet.write(self._erasing() + self._drawing())
        elif isinstance(event, (ArtifactCommitted, ArtifactFailed)):
            self.clear(event.backup, event.artifact)

    def clear(self, backup: str, artifact: str) -> None:
        with self._lock:
            self._live.pop((backup, artifact), None)
            self._outlet.write(self._erasing() + self._drawing())

    def close(self) -> None:
        """Remove the live part."""
        with self._lock:
            self._live.clear()
            self._outlet.write(self._erasing())

    def _erasing(self) -> str:
        drawn, self._drawn = self._drawn, 0
        return f"\x1b[{drawn}A\x1b[J" if drawn else ""

    def _drawing(self) -> str:
        width, height = shutil.get_terminal_size()
        lines = [line for block in self._live.values() for line in block][: height - 1]
        self._drawn = len(lines)
        return "".join(line[: width - 1] + "\n" for line in lines)


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
