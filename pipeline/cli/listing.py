"""`list`: the backups that exist, from their manifests."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

from pipeline import catalog, legacy
from pipeline.branch import describe
from pipeline.catalog import Entry
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import StorageError
from pipeline.graph import BranchPlan, unknown
from pipeline.legacy import LEGACY, OldCopy
from pipeline.naming import parse_object
from pipeline.report import format_size


def run(options: argparse.Namespace) -> int:
    """Print what exists; 1 when a storage could not be read."""
    session = Session(options)
    found = run_blocking(lambda teardown: collect(session, teardown))
    if options.json:
        session.print_json(
            {
                "backups": [_document(entry) for entry in found.entries],
                "legacy": [_old_document(*old) for old in found.legacy],
                "errors": found.errors,
            }
        )
    else:
        for line in _table(found):
            session.say(line)
    for error in found.errors:
        session.complain(f"error: {error}")
    return 1 if found.errors else 0


def branches(session: Session) -> list[tuple[str, BranchPlan]]:
    """The (backup, branch) pairs that `--backup` and `--storage` choose.

    Raises:
        UnknownName: there is no such backup, or no chosen backup uses that storage.
    """
    options = session.options
    names = session.chosen([options.backup] if options.backup else [])
    pairs = [(name, branch) for name in names for branch in session.plan(name).branches]
    if options.storage is None:
        return pairs
    chosen = [pair for pair in pairs if pair[1].name == options.storage]
    if not chosen:
        raise unknown("storage", options.storage, sorted({branch.name for _, branch in pairs}))
    return chosen


@dataclass
class Found:
    """All there is, and what could not be read."""

    entries: list[Entry] = field(default_factory=list)
    legacy: list[tuple[str, str, OldCopy]] = field(default_factory=list)
    """Copies of nxs-backup v3, each with the backup and the storage it belongs to."""
    errors: list[str] = field(default_factory=list)


def collect(session: Session, teardown: Teardown) -> Found:
    """Look at every storage that was chosen."""
    found = Found()
    for name, branch in branches(session):
        teardown.check()
        try:
            broken: list[str] = []
            found.entries += catalog.read(branch.storage, branch.name, name, broken)
            found.errors += [f"the manifest {path} cannot be read" for path in broken]
            found.legacy += [(name, branch.name, old) for old in _old_copies(branch)]
        except StorageError as error:
            found.errors.append(f"storage {branch.name}: {describe(error)}")
    session.storages.close()
    return found


def _old_copies(branch: BranchPlan) -> list[OldCopy]:
    tree = branch.legacy
    return legacy.find(branch.storage.list(tree.directory), tree) if tree else []


def _old_document(backup: str, storage: str, copy: OldCopy) -> dict[str, Any]:
    return {
        "layout": "nxs-v3",
        "backup": backup,
        "target": copy.target or None,
        "storage": storage,
        "path": copy.path,
        "taken_at": f"{copy.taken_at:%Y-%m-%d %H:%M}",
        "level": copy.level,
        "size": copy.size,
    }


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "storage": entry.storage,
        "path": entry.path,
        "damage": entry.damage,
        "manifest": entry.manifest.model_dump(mode="json", exclude_none=True),
    }


def _note(entry: Entry) -> str:
    """What is special about a backup."""
    manifest = entry.manifest
    notes = [entry.damage] if entry.damage else []
    if manifest.skipped_total:
        notes.append(f"{manifest.skipped_total} skipped")
    if manifest.parent:
        base = parse_object(f"{entry.directory}/{manifest.parent}")
        since = f" since {base.taken_at:%Y-%m-%d %H:%M:%SZ}" if base else ""
        notes.append(f"level {manifest.level}{since}")
    return ", ".join(notes)


def _table(found: Found) -> list[str]:
    if not found.entries and not found.legacy:
        return ["no backups"]
    rows = [("BACKUP", "ARTIFACT", "TAKEN AT", "STORAGE", "SIZE", "HOST", "")]
    for entry in found.entries:
        manifest = entry.manifest
        rows.append(
            (
                manifest.backup,
                manifest.artifact,
                manifest.taken_at.strftime("%Y-%m-%d %H:%M:%SZ"),
                entry.storage,
                format_size(manifest.stored_size),
                manifest.host,
                _note(entry),
            )
        )
    for backup, storage, old in found.legacy:
        note = f"{LEGACY}, level {old.level}" if old.year else LEGACY
        taken_at = f"{old.taken_at:%Y-%m-%d %H:%M}"
        size = format_size(old.size)
        rows.append((backup, old.target or "-", taken_at, storage, size, "-", note))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
