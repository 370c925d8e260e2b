"""`plan`, and `run --dry-run`: what a run would read, store and remove, without doing any of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Any

from pipeline import catalog, registry, series
from pipeline.branch import describe
from pipeline.catalog import Entry
from pipeline.cli.interrupts import run_blocking
from pipeline.cli.plan_simulation import simulated, stamp
from pipeline.cli.plan_text import text
from pipeline.cli.session import Session
from pipeline.context import Teardown
from pipeline.errors import NxsError
from pipeline.graph import BranchPlan, Plan
from pipeline.legacy import LEGACY
from pipeline.programs import version
from pipeline.review import expected_size, programs
from pipeline.runner import utc_now
from pipeline.schedule import firings, local_zone
from pipeline.shards import subject
from pipeline.stage import Artifact, Needed
from schemas.problems import show_path

NEXT = 5
"""So many coming runs are named."""
MOST_RUNS = 5000
"""So many runs of a backup are imagined at most."""


def run(options: argparse.Namespace) -> int:
    """Print the plan of the chosen backups; returns the exit code."""
    session = Session(options)
    return _show(session, session.chosen(options.backup), {})


def dry_run(session: Session) -> int:
    """The same for the chosen backups of a run."""
    session.options.simulate = None
    return _show(session, session.chosen(session.options.backup), {"dry_run": True})


def _show(session: Session, names: list[str], head: dict[str, Any]) -> int:
    """1 when one of the backups could not start, or a storage does not tell what it has."""
    now = utc_now()
    ahead: float | None = session.options.simulate
    until = now + timedelta(seconds=ahead) if ahead else None
    look = _Look(session, now, until)
    backups = run_blocking(lambda teardown: [look.backup(name, teardown) for name in names])
    session.storages.close()
    if session.options.json:
        times = {
            "now": stamp(now),
            "simulated_until": until and stamp(until),
            "time_zone": look.zone_name,
        }
        session.print_json({**head, **times, "backups": backups})
    else:
        blocks = ["\n".join(text(backup, look.zone_name)) for backup in backups]
        session.say(("\n\n" if until else "\n").join(blocks))
    errors = (part["error"] for backup in backups for part in (backup, *backup["storages"]))
    return 1 if any(errors) else 0


class _Look:
    """Finds out about backups, as of one moment; see docs for the fields of the documents."""

    def __init__(self, session: Session, now: datetime, until: datetime | None) -> None:
        self._session = session
        self._now = now
        self._until = until
        self._owner = (session.pipeline.name, session.pipeline.host)
        self._versions: dict[str, str | None] = {}
        self.zone, self.zone_name = local_zone()

    def backup(self, name: str, teardown: Teardown) -> dict[str, Any]:
        teardown.check()
        found: dict[str, Any] = {"name": name, "error": None, "schedule": self._schedule(name)}
        found |= {"artifacts": [], "programs": [], "storages": []}
        try:
            plan = self._session.plan(name)
            found["memory_ceiling"] = plan.ceiling()
            found["memory"] = [{"part": part, "bytes": size} for part, size in plan.memory()]
            found["programs"] = self._programs(plan)
            found["error"] = _missing(found["programs"])
            entries: dict[str, list[Entry]] = {}
            for branch in plan.branches:
                teardown.check()
                found["storages"].append(self._storage(plan, branch, entries))
            ours = [entry for each in entries.values() for entry in each]
            found["expected_size"] = expected_size(self._session.loaded, plan, ours)
            _judge_sizes(found)
            subjects = self._subjects(plan, found) or dict.fromkeys(map(subject, ours))
            self._simulate(plan, subjects, entries, found, teardown)
        except NxsError as error:
            found["error"] = describe(error)
        return found

    def _subjects(self, plan: Plan, found: dict[str, Any]) -> Iterable[str]:
        """What a run would make copies of; nothing when it could not start."""
        try:
            planned = plan.source.artifacts()
        except NxsError as error:
            found["error"] = describe(error)
            return ()
        found["artifacts"] = [self._artifact(plan, artifact) for artifact in planned]
        return dict.fromkeys(each.shard.of if each.shard else each.name for each in planned)

    def _schedule(self, name: str) -> dict[str, Any] | None:
        schedule = self._session.pipeline.backup(name).schedule
        if schedule is None:
            return None
        coming = islice(firings(schedule, self._now, self.zone), NEXT)
        return {"cron": schedule, "next": [moment.isoformat() for moment in coming]}

    def _programs(self, plan: Plan) -> list[dict[str, Any]]:
        return [
            {
                "name": needed.name,
                "needed_by": show_path(path[2:]),
                "required": required,
                "to_restore": needed.to_restore,
                "found": [
                    {"path": at, "version": self._version(needed, at)} for at in needed.paths
                ],
                "install": needed.install,
            }
            for path, required, needed in programs(plan)
        ]

    def _version(self, needed: Needed, path: str) -> str | None:
        if not needed.tells_version:
            return None
        if path not in self._versions:
            self._versions[path] = version(path)
        return self._versions[path]

    def _artifact(self, plan: Plan, artifact: Artifact) -> dict[str, Any]:
        suffixes = {b.name: artifact.suffix + plan.suffix_to(b) for b in plan.branches}
        found: dict[str, Any] = {"name": artifact.name, "storages": suffixes}
        if plan.source.periods:
            level, parents, warnings = series.next_copy(plan, artifact, self._owner, self._now)
            base = next((entry.manifest for entry in parents.values()), None)
            found["level"] = level
            found["builds_on"] = base.object if base else None
            found["warnings"] = warnings
        return found

    def _storage(
        self, plan: Plan, branch: BranchPlan, entries: dict[str, list[Entry]]
    ) -> dict[str, Any]:
        """Args:
        entries: takes what the storage has of ours, when it answers.
        """
        found: dict[str, Any] = {
            "name": branch.name,
            "required": branch.required,
            "largest_object": branch.storage.max_object_size,
            "takes_expected": None,
            "error": None,
            "would_remove": [],
            "would_keep": {},
            "simulation": None,
        }
        try:
            written = catalog.read(branch.storage, branch.name, plan.backup)
            entries[branch.name] = [entry for entry in written if entry.is_of(*self._owner)]
            if branch.rotate is not None:
                # As of now: what the coming backup would push out is in the simulation.
                plan_rotation = registry.rotation().plan_rotation
                rotation = plan_rotation(written, branch.rotate, self._owner, self._now)
                found["would_remove"] = [entry.path for entry in rotation.remove]
                found["would_keep"] = {
                    entry.path: list(reasons) for entry, reasons in rotation.keep
                }
                self._legacy(plan, branch, found)
        except NxsError as error:
            found["error"] = describe(error)
        return found

    def _legacy(self, plan: Plan, branch: BranchPlan, found: dict[str, Any]) -> None:
        """What rotation would do with the copies that nxs-backup v3 left there."""
        if branch.legacy is None:
            return
        where = (branch.storage, branch.name, plan.backup, branch.legacy, branch.rotate)
        old = registry.rotation().plan_legacy(*where, self._owner, self._now)
        found["would_remove"] += [copy.path for copy in old.remove]
        found["would_keep"] |= {copy.path: [*reasons, LEGACY] for copy, reasons in old.keep}

    def _simulate(
        self,
        plan: Plan,
        subjects: Iterable[str],
        entries: Mapping[str, list[Entry]],
        found: dict[str, Any],
        teardown: Teardown,
    ) -> None:
        """Imagine the runs of the schedule, for each storage that has told what it has."""
        schedule = self._session.pipeline.backup(plan.backup).schedule
        if schedule is None or self._until is None:
            return
        until = self._until
        coming = takewhile(lambda at: at <= until, firings(schedule, self._now, self.zone))
        moments = [moment.astimezone(self._now.tzinfo) for moment in islice(coming, MOST_RUNS)]
        last = moments[-1] if len(moments) == MOST_RUNS else until
        documents = {each["name"]: each for each in found["storages"]}
        courses = simulated(plan, subjects, entries, self._owner, moments, teardown)
        for name, artifacts in courses.items():
            documents[name]["simulation"] = {"until": stamp(last), "artifacts": artifacts}


def _missing(programs: list[dict[str, Any]]) -> str | None:
    """Why a run would fail for want of a program."""
    for each in programs:
        if each["required"] and not each["to_restore"] and not each["found"]:
            return f'"{each["name"]}" is not installed; install {each["install"]}'
    return None


def _judge_sizes(found: dict[str, Any]) -> None:
    expected = found["expected_size"]
    for storage in found["storages"]:
        if expected is not None:
            most = storage["largest_object"]
            storage["takes_expected"] = most is None or expected <= most
