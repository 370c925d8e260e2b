"""The part of `plan` that looks ahead: what schedule and rotation lead to, as documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline import registry, series
from pipeline.catalog import Entry
from pipeline.context import Teardown
from pipeline.graph import Plan
from pipeline.naming import format_stamp
from pipeline.retention import Candidate
from pipeline.simulate import Course, Holding, simulate

_Objects = Mapping[str, list[str]]
"""By the id of a copy: the objects it is made of. Of an imagined one there are none."""


def simulated(
    plan: Plan,
    subjects: Iterable[str],
    entries: Mapping[str, list[Entry]],
    owner: tuple[str, str],
    moments: Sequence[datetime],
    teardown: Teardown,
) -> dict[str, list[dict[str, Any]]]:
    """By storage, a document for each subject.

    Args:
        subjects: what each run makes a copy of (see `pipeline.shards`).
        entries: by storage, what it has of ours; only storages that have told.
        moments: of the runs.
    """
    documents: dict[str, list[dict[str, Any]]] = {name: [] for name in entries}
    known: dict[str, dict[str, Course]] = {}
    for subject in subjects:
        holdings: dict[str, Holding] = {}
        objects: dict[str, _Objects] = {}
        for branch in plan.branches:
            if branch.name in entries:
                copies = registry.rotation().subjects(entries[branch.name], owner).get(subject, [])
                objects[branch.name], candidates = _anonymous(copies)
                levels = _levels([entry for _, copy in copies for entry in copy])
                holdings[branch.name] = Holding(candidates, branch.rotate, levels)
        # What was taken at the same times fares alike: most subjects of a backup do.
        key = repr(holdings)
        if key not in known:
            known[key] = simulate(holdings, _heeding(moments, teardown), plan.source.periods)
        for name, course in known[key].items():
            documents[name].append(_document(subject, course, objects[name]))
    return documents


def _heeding(moments: Sequence[datetime], teardown: Teardown) -> Iterator[datetime]:
    """The moments, until the command is interrupted."""
    for moment in moments:
        teardown.check()
        yield moment


def _anonymous(
    copies: Sequence[tuple[Candidate, list[Entry]]],
) -> tuple[_Objects, list[Candidate]]:
    """The copies under the names of their times instead of their objects."""
    times = {candidate.id: format_stamp(candidate.taken_at) for candidate, _ in copies}
    objects = {times[each.id]: [entry.path for entry in copy] for each, copy in copies}
    candidates = [
        Candidate(
            times[each.id], each.taken_at, each.parent and times.get(each.parent), each.complete
        )
        for each, _ in copies
    ]
    return objects, candidates


def _levels(entries: list[Entry]) -> dict[datetime, int]:
    return {at: entry.manifest.level for at, entry in series.bases(entries).items()}


def _document(subject: str, course: Course, objects: _Objects) -> dict[str, Any]:
    return {
        "name": subject,
        "made": [stamp(copy.taken_at) for copy in course.made],
        "removed": [
            {
                "at": stamp(removal.at),
                "taken_at": stamp(removal.copy.taken_at),
                "objects": objects.get(removal.copy.id, []),
            }
            for removal in course.removed
        ],
        "kept": [
            {
                "taken_at": stamp(kept.candidate.taken_at),
                "objects": objects.get(kept.candidate.id, []),
                "reasons": list(kept.reasons),
            }
            for kept in course.kept
        ],
    }


def stamp(moment: datetime) -> str:
    """A moment in UTC, as documents have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
