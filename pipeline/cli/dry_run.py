"""`run --dry-run`: what a run would read, store and remove, without doing any of it."""

from __future__ import annotations

from typing import Any

from pipeline import catalog, registry
from pipeline.branch import describe
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import NxsError
from pipeline.graph import BranchPlan, Plan
from pipeline.report import format_size
from pipeline.runner import utc_now


def dry_run(session: Session) -> int:
    """Print the plan of every chosen backup; 1 when one of them could not start."""
    names = session.chosen(session.options.backup)
    backups = run_blocking(lambda teardown: [_look(session, name, teardown) for name in names])
    if session.options.json:
        session.print_json({"dry_run": True, "backups": backups})
    else:
        for backup in backups:
            session.say(_text(backup))
    return 1 if any(backup["error"] for backup in backups) else 0


def _look(session: Session, name: str, teardown: Teardown) -> dict[str, Any]:
    teardown.check()
    found: dict[str, Any] = {"name": name, "error": None, "artifacts": [], "would_remove": []}
    try:
        plan = session.plan(name)
        found["memory_ceiling"] = plan.ceiling()
        for artifact in plan.source.artifacts():
            suffixes = {b.name: artifact.suffix + plan.suffix_to(b) for b in plan.branches}
            found["artifacts"].append({"name": artifact.name, "storages": suffixes})
        for branch in plan.branches:
            found["would_remove"] += _would_remove(session, plan, branch)
    except NxsError as error:
        found["error"] = describe(error)
    return found


def _would_remove(session: Session, plan: Plan, branch: BranchPlan) -> list[str]:
    """As of now: what the coming backup would push out on top of that is not known yet."""
    if branch.rotate is None:
        return []
    entries = catalog.read(branch.storage, branch.name, plan.backup)
    owner = (session.pipeline.name, session.pipeline.host)
    rotation = registry.rotation().plan_rotation(entries, branch.rotate, owner, utc_now())
    return [f"{branch.name}:{entry.path}" for entry in rotation.remove]


def _text(backup: dict[str, Any]) -> str:
    lines = [f"{backup['name']}: would run"]
    if backup["error"]:
        lines = [f"{backup['name']}: cannot run: {backup['error']}"]
    for artifact in backup["artifacts"]:
        for storage, suffix in artifact["storages"].items():
            lines.append(f"  {artifact['name']} --> {storage} as *{suffix}")
    lines += [f"  rotation would remove {path}" for path in backup["would_remove"]]
    if "memory_ceiling" in backup:
        lines.append(f"  memory at most {format_size(backup['memory_ceiling'])}")
    return "\n".join(lines)
