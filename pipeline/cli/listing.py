"""`list`: the backups that exist, from their manifests."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline import catalog
from pipeline.branch import describe
from pipeline.catalog import Entry
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import StorageError
from pipeline.graph import BranchPlan, unknown
from pipeline.naming import parse_object
from pipeline.report import format_size


def run(options: argparse.Namespace) -> int:
    """Print what exists; 1 when a storage could not be read."""
    session = Session(options)
    entries, errors = run_blocking(lambda teardown: collect(session, teardown))
    if options.json:
        session.print_json({"backups": [_document(e) for e in entries], "errors": errors})
    else:
        for line in _table(entries):
            session.say(line)
    for error in errors:
        session.complain(f"error: {error}")
    return 1 if errors else 0


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


def collect(session: Session, teardown: Teardown) -> tuple[list[Entry], list[str]]:
    """All entries, and what could not be read."""
    entries: list[Entry] = []
    errors: list[str] = []
    for name, branch in branches(session):
        teardown.check()
        try:
            broken: list[str] = []
            entries += catalog.read(branch.storage, branch.name, name, broken)
            errors += [f"the manifest {path} cannot be read" for path in broken]
        except StorageError as error:
            errors.append(f"storage {branch.name}: {describe(error)}")
    session.storages.close()
    return entries, errors


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


def _table(entries: list[Entry]) -> list[str]:
    if not entries:
        return ["no backups"]
    rows = [("BACKUP", "ARTIFACT", "TAKEN AT", "STORAGE", "SIZE", "HOST", "")]
    for entry in entries:
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
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
