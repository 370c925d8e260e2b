"""`plan`, and `run --dry-run`: what a run would read, store and remove, without doing any of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pipeline import catalog, registry, series
from pipeline.branch import describe
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import NxsError
from pipeline.graph import BranchPlan, Plan
from pipeline.report import format_size
from pipeline.runner import utc_now
from pipeline.stage import Artifact


def run(options: argparse.Namespace) -> int:
    """Print the plan of every backup; returns the exit code."""
    session = Session(options)
    return _show(session, list(session.pipeline.backups), {})


def dry_run(session: Session) -> int:
    """The same for the chosen backups of a run."""
    return _show(session, session.chosen(session.options.backup), {"dry_run": True})


def _show(session: Session, names: list[str], head: dict[str, Any]) -> int:
    """1 when one of the backups could not start, or a storage does not tell what it has."""
    backups = run_blocking(lambda teardown: [_look(session, name, teardown) for name in names])
    session.storages.close()
    if session.options.json:
        session.print_json({**head, "backups": backups})
    else:
        for backup in backups:
            session.say("\n".join(_text(backup)))
    errors = (part["error"] for backup in backups for part in (backup, *backup["storages"]))
    return 1 if any(errors) else 0


def _look(session: Session, name: str, teardown: Teardown) -> dict[str, Any]:
    teardown.check()
    found: dict[str, Any] = {"name": name, "error": None, "artifacts": [], "storages": []}
    now = utc_now()
    try:
        plan = session.plan(name)
        found["memory_ceiling"] = plan.ceiling()
        found["memory"] = [{"part": part, "bytes": size} for part, size in plan.memory()]
        found["storages"] = [_storage(session, plan, branch, now) for branch in plan.branches]
        for artifact in plan.source.artifacts():
            teardown.check()
            found["artifacts"].append(_artifact(session, plan, artifact, now))
    except NxsError as error:
        found["error"] = describe(error)
    return found


def _artifact(session: Session, plan: Plan, artifact: Artifact, now: datetime) -> dict[str, Any]:
    suffixes = {b.name: artifact.suffix + plan.suffix_to(b) for b in plan.branches}
    found: dict[str, Any] = {"name": artifact.name, "storages": suffixes}
    if plan.source.periods:
        owner = (session.pipeline.name, session.pipeline.host)
        level, parents, warnings = series.next_copy(plan, artifact, owner, now)
        base = next((entry.manifest for entry in parents.values()), None)
        found["level"] = level
        found["builds_on"] = base.object if base else None
        found["warnings"] = warnings
    return found


def _storage(session: Session, plan: Plan, branch: BranchPlan, now: datetime) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": branch.name,
        "required": branch.required,
        "largest_object": branch.storage.max_object_size,
        "error": None,
        "would_remove": [],
        "would_keep": {},
    }
    try:
        if branch.rotate is not None:
            # As of now: what the coming backup would push out on top of that is not known yet.
            entries = catalog.read(branch.storage, branch.name, plan.backup)
            owner = (session.pipeline.name, session.pipeline.host)
            rotation = registry.rotation().plan_rotation(entries, branch.rotate, owner, now)
            found["would_remove"] = [entry.path for entry in rotation.remove]
            found["would_keep"] = {entry.path: list(reasons) for entry, reasons in rotation.keep}
    except NxsError as error:
        found["error"] = describe(error)
    return found


def _text(backup: dict[str, Any]) -> Iterator[str]:
    error = backup["error"]
    yield f"{backup['name']}: cannot run: {error}" if error else f"{backup['name']}: would run"
    for artifact in backup["artifacts"]:
        for storage, suffix in artifact["storages"].items():
            yield f"  {artifact['name']} --> {storage} as *{suffix}"
        if "level" in artifact:
            base = artifact["builds_on"]
            yield f"    level {artifact['level']}, " + (f"builds on {base}" if base else "full")
        yield from (f"    warning: {warning}" for warning in artifact.get("warnings", ()))
    for storage in backup["storages"]:
        yield from _storage_text(storage)
    if "memory_ceiling" in backup:
        yield f"  memory at most {format_size(backup['memory_ceiling'])}:"
        for part in backup["memory"]:
            yield f"    {format_size(part['bytes']):>10}  {part['part']}"


def _storage_text(storage: dict[str, Any]) -> Iterator[str]:
    largest = storage["largest_object"]
    size = f"objects up to {format_size(largest)}" if largest else "no limit of its own on objects"
    optional = "" if storage["required"] else " (optional)"
    yield f"  storage {storage['name']}{optional}: {size}"
    if storage["error"]:
        yield f"    error: {storage['error']}"
    for path in storage["would_remove"]:
        yield f"    rotation would remove {path}"
    for path, reasons in storage["would_keep"].items():
        yield f"    rotation would keep {path}  ({', '.join(reasons)})"
