"""What the live view shows: a line for each artifact that is under way, and for each storage it
goes to. Pure: events in, lines of text out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.events import (
    ArtifactCommitted,
    ArtifactFailed,
    ArtifactStarted,
    BackupFinished,
    BranchFailed,
    Event,
    Progressed,
    StageProgress,
)
from pipeline.progress import Rate, clock, percent, seconds_left, source_of, storages_of
from pipeline.redact import printable
from pipeline.report import format_size

_BAR = 8
_LABEL_SHARE = 0.3
"""Of the width, for names, when they are long."""


class _Cell(NamedTuple):
    """A part of a line; of those that do not fit the least important go first."""

    text: str
    importance: int


@dataclass
class _Row:
    """One artifact."""

    storages: tuple[str, ...]
    progress: Progressed | None = None
    ended: dict[str, str] = field(default_factory=dict)
    """What became of it on a storage: `stored` or `failed`."""
    rates: dict[tuple[str, str], Rate] = field(default_factory=dict)
    """Of the source and of each storage."""

    def note(self, event: Progressed) -> None:
        self.progress = event
        for stage in event.stages:
            self.rates.setdefault((stage.kind, stage.stage), Rate()).add(event.seconds, stage.bytes)

    def rate(self, stage: StageProgress) -> float:
        return self.rates[stage.kind, stage.stage].now


class Live:
    """The artifacts of a run that are under way."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}

    def take(self, event: Event) -> bool:
        """Note an event; whether something is to be drawn anew at once."""
        if isinstance(event, BackupFinished):
            for key in [key for key in self._rows if key[0] == event.backup]:
                del self._rows[key]
            return True
        key = (getattr(event, "backup", ""), getattr(event, "artifact", ""))
        if isinstance(event, ArtifactStarted):
            self._rows[key] = _Row(event.storages)
        elif isinstance(event, ArtifactFailed):
            self._rows.pop(key, None)
        elif (row := self._rows.get(key)) is not None:
            return self._update(key, row, event)
        return isinstance(event, ArtifactFailed)

    def _update(self, key: tuple[str, str], row: _Row, event: Event) -> bool:
        if isinstance(event, Progressed):
            row.note(event)
            return False
        if isinstance(event, (ArtifactCommitted, BranchFailed)):
            committed = isinstance(event, ArtifactCommitted)
            row.ended[event.storage] = "stored" if committed else "failed"
            if set(row.ended) == set(row.storages):
                del self._rows[key]
            return True
        return False

    def lines(self, width: int, height: int) -> list[str]:
        """What to show on so many columns and rows."""
        lines = [
            (name, cells)
            for (backup, artifact), row in self._rows.items()
            if row.progress is not None
            for name, cells in _block(f"{backup}/{artifact}", row, row.progress)
        ]
        longest = max((columns_of(name) for name, _ in lines), default=0)
        label = min(longest, int(width * _LABEL_SHARE))
        if len(lines) <= height:
            return [_line(name, label, cells, width) for name, cells in lines]
        kept = max(height - 1, 0)
        rest = _fitted(f"... {len(lines) - kept} more lines", width)
        return [*(_line(name, label, cells, width) for name, cells in lines[:kept]), rest][:height]


def _block(name: str, row: _Row, event: Progressed) -> Iterator[tuple[str, list[_Cell]]]:
    yield printable(name), _head(row, event)
    for stage in storages_of(event):
        yield printable(f"  {stage.stage}"), _branch(row, event, stage)


def _head(row: _Row, event: Progressed) -> list[_Cell]:
    """The artifact: what the source has given."""
    source = source_of(event)
    rate = row.rate(source)
    fill = next((stage.fill for stage in event.stages if stage.kind == "transform"), None)
    done, left = percent(event), seconds_left(event, rate)
    cells = [*_amount(source, rate), _Cell(f"  {_bar(fill)}", 2)]
    cells.append(_Cell(f"{clock(event.seconds):>7}", 3))
    if done is not None:
        cells.append(_Cell(f"{done:>4}%", 5))
    if left is not None:
        cells.append(_Cell(f"  {clock(left)} left", 6))
    if event.bottleneck not in {None, *(stage.stage for stage in storages_of(event))}:
        cells.append(_Cell(f"  <- {event.bottleneck}", 4))
    return cells


def _branch(row: _Row, event: Progressed, stage: StageProgress) -> list[_Cell]:
    cells = [*_amount(stage, row.rate(stage)), _Cell(f"  {_bar(stage.fill)}", 2)]
    if stage.stage in row.ended:
        cells.append(_Cell(f"  {row.ended[stage.stage]}", 6))
    elif event.bottleneck == stage.stage:
        cells.append(_Cell("  <- bottleneck", 4))
    return cells


def _amount(stage: StageProgress, rate: float) -> list[_Cell]:
    return [
        _Cell(f"{format_size(stage.bytes):>12}", 8),
        _Cell(f"{format_size(rate) + '/s':>14}", 7),
    ]


def _bar(fill: float | None) -> str:
    """How full a channel is; blank where there is none."""
    if fill is None:
        return " " * (_BAR + 2)
    full = round(min(max(fill, 0.0), 1.0) * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}]"


def _line(name: str, label: int, cells: list[_Cell], width: int) -> str:
    kept = list(cells)
    while kept and label + sum(len(cell.text) for cell in kept) > width:
        kept.remove(min(kept, key=lambda cell: cell.importance))
    text = _fitted(name, label)
    text += " " * (label - columns_of(text)) + "".join(cell.text for cell in kept)
    return _fitted(text.rstrip(), width)


def _fitted(text: str, width: int) -> str:
    """Its beginning, when it takes more columns than there are."""
    if columns_of(text) <= width:
        return text
    kept = ""
    for character in text:
        if columns_of(kept + character) > width - 1:
            break
        kept += character
    return kept + "~" if width > 0 else ""


def columns_of(text: str) -> int:
    """Columns that a terminal needs: two for a wide character, none for one that combines."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
