"""Renders events with structlog, text for people and JSON lines for machines, and hands them to
whatever writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import structlog

from pipeline.events import LEVELS, Event, Progressed, RunStarted, StageProgress, Subscriber
from pipeline.progress import Pace, progress_fields
from pipeline.redact import Redactor, printable
from pipeline.report import format_seconds, format_size

PRIORITIES = {"error": 3, "warning": 4, "info": 6, "debug": 7}
"""The levels as syslog(3) counts them."""


@dataclass(frozen=True)
class Record:
    """An event, when it happened and in which run."""

    event: Event
    time: datetime
    """In UTC."""
    run: str = ""

    @property
    def priority(self) -> int:
        return PRIORITIES[self.event.severity]


Render = Callable[[Record], str]
"""One line of a log, without its end."""


Write = Callable[[Record], None]
"""Keeps a record; must be quick."""


def log_subscriber(write: Write, level: str) -> Subscriber:
    """A subscriber that hands on each event at or above `level`, but no progress."""
    threshold = LEVELS.index(level)

    def is_wanted(event: Event) -> bool:
        return not isinstance(event, Progressed) and LEVELS.index(event.severity) >= threshold

    return _subscriber(is_wanted, write)


def progress_subscriber(write: Write, pace: Pace) -> Subscriber:
    """A subscriber that hands on progress, so often and nothing else."""
    return _subscriber(lambda event: isinstance(event, Progressed) and pace.is_due(event), write)


def _subscriber(is_wanted: Callable[[Event], bool], write: Write) -> Subscriber:
    run = ""

    def take(event: Event) -> None:
        nonlocal run
        if isinstance(event, RunStarted):
            run = event.run
        if is_wanted(event):
            write(Record(event, datetime.now(timezone.utc), run))

    return take


def json_lines(redactor: Redactor) -> Render:
    """JSON objects with `time` (UTC), `level`, `event`, `run`, then what `events.FIELDS` lists.

    Fields that have nothing to say are left out.
    """

    def render(record: Record) -> str:
        head = {"level": record.event.severity, "event": record.event.name, "run": record.run}
        fields = {name: plain(value) for name, value in record.event.to_fields().items()}
        head = {name: text for name, text in head.items() if text}
        time = record.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"time": time, **redactor.document({**head, **fields})})

    return render


def text_lines(redactor: Redactor, colors: bool = False, stamped: bool = True) -> Render:
    """Lines for people, without control characters whatever an event may hold.

    Args:
        stamped: with time and level; whoever adds these itself needs none.
    """
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        pad_event_to=20 if stamped else 0,
        timestamp_key="time",
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(record: Record) -> str:
        event = record.event
        fields = redactor.document(_readable(event))
        if stamped:
            time = record.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            fields = {"time": time, "level": event.severity, **fields}
        return renderer(None, event.severity, {"event": event.name, **fields}).rstrip()

    return render


def _readable(event: Event) -> dict[str, str]:
    """Sizes, times and lists as people read them; the long names of objects are for machines."""
    fields: dict[str, Any] = event.to_fields()
    if isinstance(event, Progressed):
        fields = progress_fields(event)
    if "size" in fields:
        fields.pop("object", None)
    return {name: printable(_words(name, value)) for name, value in fields.items()}


def _words(name: str, value: Any) -> str:
    if name == "size":
        return format_size(value)
    if name == "seconds":
        return format_seconds(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def plain(value: Any) -> Any:
    """A value of an event as JSON knows it."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, StageProgress):
        return {name: plain(item) for name, item in vars(value).items()}
    return value


RENDERERS: dict[str, Callable[[Redactor], Render]] = {"text": text_lines, "json": json_lines}
"""By `log.format`; plain, as they go into a file."""
