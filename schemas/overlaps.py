"""Backups and storages that would write to one place."""

from __future__ import annotations

from schemas.document import Mapping
from schemas.pipeline import Pipeline
from schemas.places import Place, folds_case, place
from schemas.positions import position
from schemas.problems import Problems


def check_overlaps(pipeline: Pipeline, root: Mapping, problems: Problems) -> None:
    """Report storages that are one place, and backups whose names are one name there."""
    used = {name: _storages_of(pipeline, name) for name in pipeline.backups}
    first: dict[Place, str] = {}
    for name, spec in pipeline.storages.items():
        found = place(spec)
        other = name if found is None else first.setdefault(found, name)
        if other != name:
            both = [backup for backup, storages in used.items() if {name, other} <= storages]
            _same_place(root, problems, name, other, both)
        if folds_case(spec):
            _same_names(
                root, problems, name, [b for b, storages in used.items() if name in storages]
            )


def _storages_of(pipeline: Pipeline, backup: str) -> set[str]:
    return {branch.storage for branch in pipeline.backup(backup).fan_out}


def _same_place(
    root: Mapping, problems: Problems, name: str, other: str, backups: list[str]
) -> None:
    at = position(root, ("storages", name))
    message = f'is the same place as "{other}"'
    if backups:
        hint = f'the backup "{backups[0]}" would write each object there twice; remove one of them'
        problems.add(at, ("storages", name), message, hint)
    else:
        hint = "use one of them in all backups, or give each a path of its own"
        problems.add(at, ("storages", name), message, hint, "warning")


def _same_names(root: Mapping, problems: Problems, storage: str, backups: list[str]) -> None:
    first: dict[str, str] = {}
    for backup in backups:
        other = first.setdefault(backup.casefold(), backup)
        if other != backup:
            message = f'is the same name as "{other}" on the storage "{storage}"'
            hint = "upper and lower case are one there; rename one of the backups"
            path = ("backups", backup)
            problems.add(position(root, path), path, message, hint)
