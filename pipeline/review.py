"""What can be said of compiled backups without connecting anywhere, each at its place in the file:
programs that are missing, and storages that do not take what is expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pipeline.catalog import Entry
from pipeline.errors import StorageError
from pipeline.graph import BranchPlan, Plan
from pipeline.report import format_size
from pipeline.stage import Needed
from schemas.load import Loaded
from schemas.problems import Path, Problem

_TOO_SMALL = "choose a storage that takes larger objects, or make them smaller"


def review(loaded: Loaded, plans: Sequence[Plan]) -> list[Problem]:
    """Errors for what a run would fail of, warnings for what only an optional storage would."""
    found: list[Problem] = []
    for plan in plans:
        found += _missing(loaded, plan)
        found += _too_large(loaded, plan)
    return sorted(found, key=lambda problem: (problem.file, problem.line, problem.column))


def programs(plan: Plan) -> Iterator[tuple[Path, bool, Needed]]:
    """What a backup needs: the place in the file of who needs it, whether a run fails without."""
    own: Path = ("backups", plan.backup)
    for needed in plan.source.programs():
        yield (*own, "source"), True, needed
    for number, node in enumerate(plan.stages):
        for needed in node.transform.programs():
            yield (*own, "stages", number), True, needed
    for place, branch in enumerate(plan.branches):
        for number, node in enumerate(branch.stages):
            for needed in node.transform.programs():
                yield (*own, "fan_out", place, "stages", number), branch.required, needed


def expected_size(loaded: Loaded, plan: Plan, entries: Iterable[Entry] = ()) -> int | None:
    """Bytes of the largest object a run is expected to store; None when nobody knows.

    Args:
        entries: what the storages have of this project and host.
    """
    told = loaded.pipeline.backup(plan.backup).expected_size
    return told or max((entry.manifest.stored_size for entry in entries), default=None)


def refuse_too_large(branch: BranchPlan, expected: int | None) -> None:
    """Say so when a storage does not take an object of this size.

    Raises:
        StorageError: it does not.
    """
    most = branch.storage.max_object_size
    if most is not None and expected is not None and expected > most:
        raise StorageError(
            f'"{branch.name}" takes objects up to {format_size(most)}, and one of '
            f"{format_size(expected)} is expected",
            _TOO_SMALL,
        )


def _missing(loaded: Loaded, plan: Plan) -> Iterator[Problem]:
    for path, required, needed in programs(plan):
        if not needed.paths and not needed.to_restore:
            message = f'runs "{needed.name}", which is not installed'
            yield loaded.problem(path, message, f"install {needed.install}", _severity(required))


def _too_large(loaded: Loaded, plan: Plan) -> Iterator[Problem]:
    expected = expected_size(loaded, plan)
    for number, branch in enumerate(plan.branches):
        most = branch.storage.max_object_size
        if expected is not None and most is not None and expected > most:
            path = ("backups", plan.backup, "fan_out", number, "storage")
            message = (
                f"does not take what expected_size says; at most {format_size(most)} an object"
            )
            yield loaded.problem(path, message, _TOO_SMALL, _severity(branch.required))


def _severity(required: bool) -> Literal["error", "warning"]:
    return "error" if required else "warning"
