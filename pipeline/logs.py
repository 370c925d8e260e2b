"""Renders events with structlog: text for people, JSON lines for machines."""

from __future__ import annotations

from typing import Any, Protocol

import structlog

from pipeline.events import LEVELS, Event, Progressed, Subscriber
from pipeline.redact import Redactor


class LineSink(Protocol):
    """Whatever takes finished lines: a stream, or a screen with a live part below."""

    def write_line(self, line: str) -> None: ...


class _SinkLogger:
    """The end of the structlog chain."""

    def __init__(self, sink: LineSink) -> None:
        self._sink = sink

    def msg(self, message: str) -> None:
        self._sink.write_line(message)

    debug = info = warning = error = msg


def log_subscriber(
    sink: LineSink, log_format: str, level: str, colors: bool, redactor: Redactor
) -> Subscriber:
    """A subscriber that writes one line for each event at or above `level`.

    Args:
        log_format: `text` or `json`. JSON lines have `time` (UTC), `level`, `event`, then the
        event's fields.
    """
    logger = structlog.wrap_logger(
        _SinkLogger(sink),
        processors=_processors(log_format, colors, redactor),
        wrapper_class=structlog.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    threshold = LEVELS.index(level)

    def write(event: Event) -> None:
        if isinstance(event, Progressed) or LEVELS.index(event.severity) < threshold:
            return
        getattr(logger, event.severity)(event.name, **event.to_fields())

    return write


def _processors(log_format: str, colors: bool, redactor: Redactor) -> list[Any]:
    stamp = "iso" if log_format == "json" else "%Y-%m-%d %H:%M:%S"
    processors: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt=stamp, utc=log_format == "json", key="time"),
        lambda _logger, _method, fields: redactor.document(dict(fields)),
    ]
    if log_format == "json":
        return [*processors, structlog.processors.JSONRenderer(sort_keys=False)]
    plain = structlog.dev.plain_traceback
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        pad_event_to=20,
        timestamp_key="time",
        sort_keys=False,
        exception_formatter=plain,
    )
    return [*processors, _readable, renderer]


def _readable(_logger: Any, _method: str, fields: Any) -> Any:
    """Sizes, times and lists as people read them; the long names of objects are for machines."""
    from pipeline.report import format_seconds, format_size

    if "size" in fields:
        fields.pop("object", None)
    for key, value in fields.items():
        if key == "size":
            fields[key] = format_size(value)
        elif key == "seconds":
            fields[key] = format_seconds(value)
        elif isinstance(value, tuple):
            fields[key] = ", ".join(map(str, value))
    return fields
