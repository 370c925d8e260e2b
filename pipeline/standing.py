"""How a run stands, from its events, as the text of a message that is edited while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pipeline.events import (
    ArtifactStarted,
    BackupFinished,
    BackupStarted,
    BranchFailed,
    Event,
    Progressed,
    RunStarted,
)
from pipeline.report import format_seconds, format_size


class Standing:
    """Fed from any thread, and read from another.

    Args:
        backups: those that matter, in their order.
    """

    def __init__(self, backups: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._lines = dict.fromkeys(backups, "waiting")
        self._problems: dict[str, list[str]] = {name: [] for name in backups}
        self._ended: set[str] = set()
        self.started: RunStarted | None = None

    def take(self, event: Event) -> None:
        """Note what matters of an event; never waits for long."""
        with self._lock:
            if isinstance(event, RunStarted):
                self.started = event
            elif isinstance(event, BranchFailed):
                where = f"{event.artifact} to {event.storage}"
                self._problems[event.backup].append(f"  {where} failed: {event.error}")
            elif (line := _line(event)) is not None:
                backup: str = event.backup  # type: ignore[attr-defined]
                self._lines[backup] = line
                if isinstance(event, BackupFinished):
                    self._ended.add(backup)

    def text(self) -> str | None:
        """A line for each backup, with what went wrong so far; None before the run has started."""
        with self._lock:
            if self.started is None:
                return None
            done, total = len(self._ended), len(self._lines)
            head = f"[running] {self.started.project} on {self.started.host}: "
            lines = [f"{head}{done} of {total} backups ended"]
            for backup, line in self._lines.items():
                lines += [f"{backup}: {line}", *self._problems[backup][:3]]
            return "\n".join(lines)


def _line(event: Event) -> str | None:
    if isinstance(event, BackupStarted):
        return "started"
    if isinstance(event, ArtifactStarted):
        return f"{event.artifact} to {', '.join(event.storages)}"
    if isinstance(event, Progressed):
        read = format_size(event.stages[0].bytes) if event.stages else "nothing"
        return f"{event.artifact}, {read} read in {format_seconds(event.seconds)}"
    if isinstance(event, BackupFinished):
        return f"{event.outcome}, {format_seconds(event.seconds)}"
    return None
