"""`prune`: rotation alone, and the end of what dead runs left behind."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field
from functools import partial

from pipeline import catalog, registry
from pipeline.branch import describe
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import LockHeld, NxsError
from pipeline.graph import BranchPlan
from pipeline.legacy import LEGACY, Tree
from pipeline.lock import RunLock, identity
from pipeline.runner import utc_now


@dataclass
class Pruned:
    """What prune did, or would do, for one backup on one storage."""

    backup: str
    storage: str
    removed: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    kept: dict[str, list[str]] = field(default_factory=dict)
    """Path of each backup that stays, with the reasons."""
    error: str | None = None
    locked: bool = False


def run(options: argparse.Namespace) -> int:
    """Rotate and clear; returns the exit code."""
    session = Session(options)
    results = run_blocking(lambda teardown: _prune(session, teardown))
    if options.json:
        session.print_json({"dry_run": options.dry_run, "pruned": [asdict(r) for r in results]})
    else:
        for result in results:
            _show(session, result)
    if any(result.error and not result.locked for result in results):
        return 1
    return 11 if any(result.locked for result in results) else 0


def _prune(session: Session, teardown: Teardown) -> list[Pruned]:
    results = []
    for name in session.chosen(session.options.backup):
        teardown.check()
        plan = session.plan(name)
        try:
            with RunLock(session.pipeline.name, session.pipeline.host, name):
                results += [_prune_branch(session, name, branch) for branch in plan.branches]
        except LockHeld as error:
            results.append(Pruned(name, "*", error=describe(error), locked=True))
    session.storages.close()
    return results


def _prune_branch(session: Session, backup: str, branch: BranchPlan) -> Pruned:
    result = Pruned(backup, branch.name)
    try:
        _clear(session, result, branch)
        _rotate(session, result, branch)
    except NxsError as error:
        result.error = describe(error)
    return result


def _clear(session: Session, result: Pruned, branch: BranchPlan) -> None:
    rotation = registry.rotation()
    clear = rotation.leftovers if session.options.dry_run else rotation.clear_leftovers
    mark = identity(session.pipeline.name, session.pipeline.host, result.backup)
    result.cleared = list(clear(branch.storage, result.backup, mark, utc_now()))


def _rotate(session: Session, result: Pruned, branch: BranchPlan) -> None:
    if branch.rotate is None:
        return
    rotation, now = registry.rotation(), utc_now()
    owner = (session.pipeline.name, session.pipeline.host)
    if session.options.dry_run:
        entries = catalog.read(branch.storage, branch.name, result.backup)
        done = rotation.plan_rotation(entries, branch.rotate, owner, now)
        result.removed = [entry.path for entry in done.remove]
    else:
        rotate = partial(rotation.rotate, branch.storage, branch.name, result.backup)
        done = rotate(branch.rotate, owner, now, result.removed.append)
    result.kept = {entry.path: list(reasons) for entry, reasons in done.keep}
    if branch.legacy is not None:
        _rotate_legacy(session, result, branch, branch.legacy)


def _rotate_legacy(session: Session, result: Pruned, branch: BranchPlan, tree: Tree) -> None:
    """The same for what v3 left."""
    rotation, owner = registry.rotation(), (session.pipeline.name, session.pipeline.host)
    where = (branch.storage, branch.name, result.backup, tree, branch.rotate, owner, utc_now())
    if session.options.dry_run:
        old = rotation.plan_legacy(*where)
        result.removed += [copy.path for copy in old.remove]
    else:
        old = rotation.rotate_legacy(*where, result.removed.append)
    result.kept |= {copy.path: [*reasons, LEGACY] for copy, reasons in old.keep}


def _show(session: Session, result: Pruned) -> None:
    would = "would be " if session.options.dry_run else ""
    session.say(
        f"{result.backup} on {result.storage}: {len(result.removed)} {would}removed, "
        f"{len(result.kept)} kept, {len(result.cleared)} leftovers {would}cleared"
    )
    for path in result.removed:
        session.say(f"  {would}removed  {path}")
    for path, reasons in result.kept.items():
        session.say(f"  kept     {path}  ({', '.join(reasons)})")
    for path in result.cleared:
        session.say(f"  leftover {path}")
    if result.error:
        session.complain(f"error: {result.backup} on {result.storage}: {result.error}")
