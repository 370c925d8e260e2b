"""Writes the blocks between markers of `terminal.md` and `logs.md`.

    python docs/render_views.py         # prints which were stale; a test sees to it that none is

The views come from `terminal.jsonl`: the stderr of a real run with `--progress json`. Its events go
once more through the code that shows them; the screen is what a terminal makes of that.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.cli.screen import Screen
from pipeline.events import FIELDS, Event, EventsOmitted, Progressed, StageProgress
from pipeline.logs import Record, json_lines, text_lines
from pipeline.progress import Pace
from pipeline.redact import Redactor
from tests.display import Display

FOLDER = Path(__file__).resolve().parent
RECORDING = FOLDER / "terminal.jsonl"
COLUMNS, LINES = 100, 24
MOMENT = 8.0
"""Seconds after the start of the run at which its screen is shown."""
_HEAD = ("time", "level", "event")
_KINDS: dict[str, type[Event]] = {kind.name: kind for kind in Event.__subclasses__()}


@dataclass(frozen=True)
class Recorded:
    """A line of the recording."""

    text: str
    record: Record


def recording() -> Iterator[Recorded]:
    """The lines, with the events they were made from."""
    run = ""
    for text in RECORDING.read_text().splitlines():
        line = json.loads(text)
        moment, kind = datetime.fromisoformat(line["time"].replace("Z", "+00:00")), line["event"]
        run = line.get("run", run)
        yield Recorded(text, Record(event_of(_KINDS[kind], line), moment, run))


def event_of(kind: type[Event], line: dict[str, Any]) -> Event:
    """The event that a line of JSON was made from."""
    names = {field.name for field in fields(kind)}
    values = {name: _value(name, line[name]) for name in names if name in line}
    return kind(**values)


def _value(name: str, value: Any) -> Any:
    if name == "stages":
        return tuple(StageProgress(**stage) for stage in value)
    return tuple(value) if isinstance(value, list) else value


def screen() -> str:
    """What the terminal shows at one moment of the run."""
    display = Display(COLUMNS, LINES)
    live = Screen(display.feed, lambda: False, lambda: (COLUMNS, LINES), period=0.0)
    render = text_lines(Redactor())
    start: datetime | None = None
    for found in recording():
        record = found.record
        start = start or record.time
        if (record.time - start).total_seconds() > MOMENT:
            break
        live.show(record.event)
        if not isinstance(record.event, Progressed):
            live.write_line(render(record))
    return "\n".join(display.screen)


def lines() -> str:
    """What a log has of the same run, where nobody watches."""
    render, pace = text_lines(Redactor()), Pace()
    shown = (found.record for found in recording())
    return "\n".join(
        render(record)
        for record in shown
        if not isinstance(record.event, Progressed) or pace.is_due(record.event)
    )


def json_sample() -> str:
    """A line of each kind that says most."""
    wanted = ["run started", "progressed", "branch failed", "artifact committed", "run finished"]
    render = json_lines(Redactor())
    found = {each.record.event.name: render(each.record) for each in recording()}
    return "\n".join(found[name] for name in wanted)


def event_table() -> str:
    """Every event that a log can have."""
    rows = ["| event | level | when | fields |", "|---|---|---|---|"]
    for kind in _KINDS.values():
        if kind is not EventsOmitted:  # only notifiers are told of it
            when = " ".join((kind.__doc__ or "").split()).removesuffix(".")
            named = ", ".join(f"`{field.name}`" for field in fields(kind))
            outcome = "by `outcome`" if "outcome" in named else f"`{kind.level}`"
            rows.append(f"| `{kind.name}` | {outcome} | {when} | {named} |")
    return "\n".join(rows)


def field_table() -> str:
    """What the fields mean, in all of them."""
    logged = (kind for kind in _KINDS.values() if kind is not EventsOmitted)
    used = {field.name for kind in logged for field in fields(kind)}
    rows = [f"| `{name}` | {text} |" for name, text in FIELDS.items() if name in used]
    return "\n".join(["| field | what it says |", "|---|---|", *rows])


def blocks() -> dict[str, str]:
    """By the name of their markers, as Markdown."""
    return {
        "screen": f"```text\n{screen()}\n```",
        "lines": f"```text\n{lines()}\n```",
        "json": f"```json\n{json_sample()}\n```",
        "events": event_table(),
        "fields": field_table(),
    }


def rendered(page: str, made: dict[str, str]) -> str:
    """A page with what is between its markers made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{made[match[2]]}\n{match[3]}"

    return re.sub(r"(<!-- (\w+): .*?-->)\n.*?\n(<!-- end -->)", fill, page, flags=re.DOTALL)


def pages() -> dict[Path, str]:
    """The pages as they should be."""
    os.environ["TZ"] = "UTC"  # text is in the time of the place
    time.tzset()
    made = blocks()
    paths = (FOLDER / "terminal.md", FOLDER / "logs.md")
    return {path: rendered(path.read_text(), made) for path in paths}


if __name__ == "__main__":
    for path, text in pages().items():
        if path.read_text() != text:
            path.write_text(text)
            print(path.name)
