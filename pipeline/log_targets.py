"""The places of the `log` section, and what happens when one of them fails: nothing but a word."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from pipeline._logs.file import LogFile
from pipeline._logs.journald import SOCKET, SOCKET_VARIABLE, Journal
from pipeline._logs.syslog import Syslog
from pipeline.events import EventBus, LoggingFailed
from pipeline.logs import (
    RENDERERS,
    Record,
    log_subscriber,
    progress_subscriber,
    text_lines,
)
from pipeline.outlet import Outlet
from pipeline.progress import Pace
from pipeline.redact import Redactor
from schemas.log import LogSpec


class Target(Protocol):
    """A place that logs go to; all but `name` is called in a thread of its own."""

    name: str

    def write(self, record: Record) -> None:
        """Keep a record.

        Raises:
            OSError: it is lost.
        """

    def close(self) -> None: ...


class _Place:
    """A target behind a queue, with a thread of its own."""

    def __init__(self, target: Target, failed: Callable[[str, str], None]) -> None:
        self.target = target
        self._failed = failed
        self._told = False
        self.outlet = Outlet(target.name, self._tell)

    def write(self, record: Record) -> None:
        """Keep a record soon; never waits."""
        self.outlet.put(partial(self.target.write, record))

    def close(self) -> None:
        """Write what is left, for a few seconds at most, and tell how much was lost."""
        self.outlet.close()
        if self.outlet.lost:
            self._failed(self.target.name, f"{self.outlet.lost} lines are missing there")
        if not self.outlet.is_alive:
            self.target.close()

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._failed(self.target.name, (error.strerror or str(error)).lower())


class Logs:
    """Everything that the `log` section asks for; subscribes to the bus.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, spec: LogSpec | None, host: str, bus: EventBus) -> None:
        self._bus = bus
        targets = _targets(spec, host, bus.redactor) if spec else ()
        self._places = [_Place(target, self._failed) for target in targets]
        for place in self._places:
            assert spec is not None
            bus.subscribe(log_subscriber(place.write, spec.level))
            if spec.level == "debug":
                bus.subscribe(progress_subscriber(place.write, Pace()))

    @property
    def has_file(self) -> bool:
        return any(isinstance(place.target, LogFile) for place in self._places)

    def reopen(self) -> None:
        """Have the file opened anew, as whoever has moved it away asks for; never waits."""
        for place in self._places:
            if isinstance(place.target, LogFile):
                place.outlet.put(place.target.reopen)

    def close(self) -> None:
        """Write what is left, for a few seconds at most, and tell what was lost."""
        # The file last: it can still be told of the others.
        for place in reversed(self._places):
            place.close()

    def _failed(self, name: str, error: str) -> None:
        self._bus.emit(LoggingFailed(name, error))


def _targets(spec: LogSpec, host: str, redactor: Redactor) -> Iterator[Target]:
    render = RENDERERS[spec.format](redactor)
    if spec.file is not None:
        yield LogFile(spec.file, render)
    unstamped = text_lines(redactor, stamped=False)
    if spec.syslog is not None:
        yield Syslog(spec.syslog, render if spec.format == "json" else unstamped, host)
    if spec.journald:
        yield Journal(unstamped, os.environ.get(SOCKET_VARIABLE, SOCKET))
