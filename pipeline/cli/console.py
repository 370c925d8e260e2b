"""stderr while backups run: log lines, and progress in the way that fits whoever reads it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Literal

from pipeline._logs.journald import is_journal as reads_journal
from pipeline.cli.ci import Ci
from pipeline.cli.screen import Screen, terminal_size
from pipeline.cli.session import log_level, wants_color
from pipeline.events import (
    BackupFinished,
    BackupStarted,
    Event,
    EventBus,
    LoggingFailed,
    RunFinished,
    RunStarted,
)
from pipeline.logs import (
    Record,
    Render,
    Write,
    json_lines,
    log_subscriber,
    progress_subscriber,
    text_lines,
)
from pipeline.outlet import Outlet
from pipeline.progress import Pace

Progress = Literal["bar", "lines", "json", "off"]


class Console:
    """Subscribes to what stderr tells of a run.

    Args:
        ci: the service that reads it, if one does.
        has_journal: whether the journal is told of every event directly; then it need not read them
            from stderr as well.
    """

    def __init__(
        self, options: argparse.Namespace, bus: EventBus, ci: Ci | None, has_journal: bool = False
    ) -> None:
        self._descriptor = sys.stderr.fileno()
        # Not the stream: a write that blocks would hold its lock, and the end of the process.
        self._outlet = Outlet("stderr", _unheard)
        self._screen: Screen | None = None
        is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        is_journal = reads_journal(self._descriptor, os.environ)
        log_format = options.log_format or ("json" if options.progress == "json" else "text")
        progress = progress_for(options.progress, is_terminal, log_format, options.quiet > 0)
        if log_format == "json":
            render = json_lines(bus.redactor)
        else:
            colors = wants_color(options, is_terminal)
            render = text_lines(bus.redactor, colors, stamped=not is_journal)
        log = self._writer(_with_priority(render) if is_journal else render)
        if is_journal and has_journal:
            bus.subscribe(log_subscriber(_only_failures(log), log_level(options)))
            return
        groups = Groups(ci, self._line, options.parallel) if ci and log_format == "text" else None
        if groups:
            bus.subscribe(groups.before)
        bus.subscribe(log_subscriber(log, log_level(options)))
        self._subscribe_progress(progress, log, bus)
        if groups:
            bus.subscribe(groups.after)

    def _subscribe_progress(self, progress: Progress, log: Write, bus: EventBus) -> None:
        if progress == "bar":
            size = partial(terminal_size, self._descriptor)
            self._screen = Screen(self._put, lambda: self._outlet.is_behind, size)
            bus.subscribe(self._screen.show)
        elif progress == "lines":
            bus.subscribe(progress_subscriber(log, Pace()))
        elif progress == "json":
            write = self._writer(json_lines(bus.redactor))
            bus.subscribe(progress_subscriber(write, Pace(1.0, 1.0)))

    def close(self) -> None:
        """Remove the live part, and write what is left, for a few seconds at most."""
        if self._screen is not None:
            self._screen.close()
        lost = f"{self._outlet.lost} lines could not be written in time\n"
        self._outlet.close(partial(self._write, lost) if self._outlet.lost else None)

    def _writer(self, render: Render) -> Write:
        def write(record: Record) -> None:
            self._line(render(record))

        return write

    def _line(self, line: str) -> None:
        if self._screen is not None:
            self._screen.write_line(line)
        else:
            self._put(line + "\n")

    def _put(self, text: str) -> None:
        self._outlet.put(partial(self._write, text))

    def _write(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[os.write(self._descriptor, data) :]


def _unheard(_: OSError) -> None:
    """Nobody can be told: this is where we tell."""


def progress_for(choice: str, is_terminal: bool, log_format: str, is_quiet: bool) -> Progress:
    """What `--progress auto` comes to; any other choice is what it is."""
    if choice in ("bar", "lines", "json", "off"):
        return choice  # type: ignore[return-value]
    if is_quiet:
        return "off"
    return "bar" if is_terminal and log_format == "text" else "lines"


def _with_priority(render: Render) -> Render:
    """Lines as the journal wants them on stderr, see sd-daemon(3)."""
    return lambda record: f"<{record.priority}>{render(record)}"


def _only_failures(log: Write) -> Write:
    """What the journal cannot be told directly, when that is what does not work."""

    def write(record: Record) -> None:
        if isinstance(record.event, LoggingFailed):
            log(record)

    return write


class Groups:
    """The logs of a run in groups: one for each backup; one for all when they run side by side.

    Groups cannot be interleaved. What comes before or after the lines of an event is a subscriber
    of its own.
    """

    def __init__(self, ci: Ci, write_line: Callable[[str], None], parallel: int) -> None:
        self._ci = ci
        self._write_line = write_line
        self._parallel = parallel > 1
        self._is_open = False

    def before(self, event: Event) -> None:
        """Open a group."""
        if self._parallel and isinstance(event, RunStarted):
            self._open(f"logs of {', '.join(event.backups)}")
        elif not self._parallel and isinstance(event, BackupStarted):
            self._open(f"backup {event.backup}")

    def after(self, event: Event) -> None:
        """Close it; at the end of the run when an interrupted backup did not come to its end."""
        ends = RunFinished if self._parallel else (BackupFinished, RunFinished)
        if self._is_open and isinstance(event, ends):
            self._is_open = False
            self._write_line(self._ci.close_group())

    def _open(self, title: str) -> None:
        self._is_open = True
        self._write_line(self._ci.open_group(title))
