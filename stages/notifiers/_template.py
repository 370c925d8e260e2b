"""What the templates of messages are filled with; `schemas.templates` says what they are."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.events import Event, RunStarted
from pipeline.report import RunReport, format_seconds
from stages.notifiers._text import events_text, events_title, worst_level


def of_report(report: RunReport) -> dict[str, str]:
    """The values for the result of a run."""
    text = report.summary()
    return {
        "text": text,
        "title": text.partition("\n")[0],
        "project": report.project,
        "host": report.host,
        "run": report.run,
        "level": report.level,
        "backups": ", ".join(backup.name for backup in report.backups),
        "outcome": report.outcome.value,
        "result": report.results[0],
        "duration": format_seconds(report.seconds),
    }


def of_events(events: Sequence[Event], about: RunStarted | None) -> dict[str, str]:
    """The values for a batch of events; what only runs have is empty.

    Args:
        about: the run they belong to, where it is known.
    """
    backups = dict.fromkeys(str(getattr(event, "backup", "")) for event in events)
    return {
        "text": events_text(events, about),
        "title": events_title(events, about),
        "project": about.project if about else "",
        "host": about.host if about else "",
        "run": about.run if about else "",
        "level": worst_level(events),
        "backups": ", ".join(filter(None, backups)),
        "outcome": "",
        "result": "",
        "duration": "",
    }
