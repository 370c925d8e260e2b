"""A run: the backups of a configuration, one after the other or several at once, and what comes
after each.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial

import anyio

from pipeline import events, notify, recovery, registry, series
from pipeline.branch import describe
from pipeline.engine import ArtifactRun, RunIdentity
from pipeline.errors import LockHeld, SourceError, root_causes
from pipeline.events import EventBus
from pipeline.export import export
from pipeline.graph import BranchPlan, Plan, compile_backup, unknown
from pipeline.lock import RunLock, identity
from pipeline.naming import format_stamp, quote_name, run_token
from pipeline.registry import Storages
from pipeline.report import ArtifactReport, BackupReport, Outcome, RunReport
from pipeline.segment import run_in_thread
from pipeline.series import Placement
from pipeline.stage import Artifact
from pipeline.stall import StallWatch
from pipeline.streams import naming
from pipeline.worker import Job, Worker
from schemas.pipeline import Pipeline

SWEEP_TIMEOUT = 60.0
"""Seconds a storage gets to clear what dead runs left; a backup does not wait longer for that."""


def utc_now() -> datetime:
    """Now, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


@dataclass
class Runner:
    """Runs backups of one configuration; `interrupt` stops it from within its event loop."""

    pipeline: Pipeline
    bus: EventBus = field(default_factory=EventBus)
    parallel: int = 1
    clock: Callable[[], datetime] = utc_now
    modules: tuple[str, ...] = ()
    """Files of the modules that the configuration names."""

    def __post_init__(self) -> None:
        self._scope: anyio.CancelScope | None = None
        self._interrupted = False
        self._storages = Storages(self.pipeline.storages)
        self._run_id = secrets.token_hex(8)

    def interrupt(self) -> None:
        """Stop everything, leave nothing behind, and let `run` return its report."""
        self._interrupted = True
        if self._scope is not None:
            self._scope.cancel()

    async def run(self, names: Sequence[str] = ()) -> RunReport:
        """Run the named backups, all when none is named. Failures end up in the report.

        Raises:
            UnknownName: there is no such backup; nothing was run.
        """
        chosen = list(dict.fromkeys(names)) or list(self.pipeline.backups)
        for name in chosen:
            if name not in self.pipeline.backups:
                raise unknown("backup", name, list(self.pipeline.backups))
        report = RunReport(self._run_id, *self.owner, self.clock(), redactor=self.bus.redactor)
        feeds = notify.make_feeds(
            self.pipeline.notifiers, [(name, self.pipeline.backup(name).notify) for name in chosen]
        )
        started = time.monotonic()
        async with notify.notifying(feeds, self.bus):
            self.bus.emit(events.RunStarted(report.run, report.project, report.host, tuple(chosen)))
            await self._run_all(chosen, report, notify.recovering(feeds))
            report.interrupted = self._interrupted
            report.seconds = time.monotonic() - started
            self.bus.emit(events.RunFinished(report.run, report.outcome.value, report.seconds))
            await notify.tell(feeds, report, self.bus)
        await export(self.pipeline, report, self.bus)
        return report

    async def _run_all(
        self, names: Sequence[str], report: RunReport, recovering: Container[str]
    ) -> None:
        slots = anyio.Semaphore(self.parallel)
        report.backups = [BackupReport(name) for name in names]
        try:
            with anyio.CancelScope() as self._scope:
                if self._interrupted:
                    self._scope.cancel()
                async with anyio.create_task_group() as self._group:
                    for backup in report.backups:
                        self._group.start_soon(self._run_one, backup, slots)
            async with anyio.create_task_group() as group:
                for backup in report.backups:
                    if backup.name in recovering and backup.outcome is not Outcome.LOCKED:
                        group.start_soon(self._settle, backup, report)
        finally:
            with anyio.move_on_after(SWEEP_TIMEOUT, shield=True):
                await run_in_thread("close", self._storages.close)

    async def _run_one(self, report: BackupReport, slots: anyio.Semaphore) -> None:
        """One backup, from its lock to its rotation; only cancellation passes through."""
        report.outcome, report.error = Outcome.INTERRUPTED, "interrupted"
        async with slots:
            report.started, started = datetime.now(timezone.utc), time.monotonic()
            self.bus.emit(events.BackupStarted(report.name))
            try:
                await BackupRun(self, report).run()
                report.error = None
                report.conclude()
            except LockHeld as held:
                report.outcome, report.error = Outcome.LOCKED, describe(held)
                self.bus.emit(events.BackupLocked(report.name, report.error))
            except Exception as group:
                error = next(root_causes(group), group)
                report.outcome, report.error = Outcome.FAILED, describe(error)
                self.bus.emit(events.BackupFailed(report.name, report.error))
            report.seconds = time.monotonic() - started
            self.bus.emit(events.BackupFinished(report.name, report.outcome.value, report.seconds))

    async def _settle(self, backup: BackupReport, report: RunReport) -> None:
        """Note a failure, or find out that one is over."""
        branches = self.pipeline.backup(backup.name).fan_out
        storages = {
            branch.storage: partial(self._storages.__getitem__, branch.storage)
            for branch in branches
        }
        owner = recovery.Owner(*self.owner, backup.name)
        ended = recovery.Ended(report.run, backup.outcome, report.started, self.clock())
        backup.recovered, unknown = await recovery.settle(storages, owner, ended)
        report.notifications += unknown
        if backup.recovered:
            when = format_stamp(backup.recovered)
            self.bus.emit(events.BackupRecovered(backup.name, when))

    def release_later(self, lock: RunLock, taken_at: datetime) -> None:
        """Release a lock when the second in which its backup began has passed.

        Two runs of a backup then never give an object the same name. Other backups go on meanwhile.
        """

        async def release() -> None:
            try:
                with anyio.move_on_after(1.0):
                    while self.clock() == taken_at:
                        await anyio.sleep(0.02)
            finally:
                lock.release()

        self._group.start_soon(release)

    @property
    def owner(self) -> tuple[str, str]:
        """Project and host: whose backups rotation may touch."""
        return self.pipeline.name, self.pipeline.host

    def compile(self, name: str) -> Plan:
        return compile_backup(self.pipeline, name, self._storages)

    @property
    def run_id(self) -> str:
        return self._run_id


class BackupRun:
    """One backup within a run."""

    def __init__(self, runner: Runner, report: BackupReport) -> None:
        self._runner = runner
        self._report = report
        self._bus = runner.bus
        self._mark = identity(*runner.owner, report.name)

    async def run(self) -> None:
        """Fill the report.

        Raises:
            NxsError: nothing could be backed up at all.
        """
        plan = self._runner.compile(self._report.name)
        self._report.memory_ceiling = plan.ceiling()
        lock = RunLock(*self._runner.owner, plan.backup)
        lock.acquire()
        taken_at = self._runner.clock()
        try:
            await self._clear_leftovers(plan, taken_at)
            artifacts = await self._plan_artifacts(plan)
            if plan.source.processes > 1:
                await self._run_in_processes(plan, artifacts, taken_at)
            else:
                await self._run_in_turn(plan, artifacts, taken_at)
            await self._rotate(plan, artifacts)
        finally:
            try:
                with anyio.move_on_after(SWEEP_TIMEOUT, shield=True):
                    await run_in_thread("close", plan.source.close)
            finally:
                self._runner.release_later(lock, taken_at)

    async def _plan_artifacts(self, plan: Plan) -> list[Artifact]:
        with naming(f"source {plan.source_type}"):
            with anyio.move_on_after(plan.stall_timeout):
                return await run_in_thread("plan", plan.source.artifacts, grace=0)
            raise SourceError(f"no answer within {plan.stall_timeout:g} s", "see `stall_timeout`")

    async def _run_in_turn(self, plan: Plan, artifacts: list[Artifact], now: datetime) -> None:
        for artifact in artifacts:
            placement = await self._place(plan, artifact, now)
            run = ArtifactRun(plan, artifact, self._identity(now), self._bus, placement)
            try:
                await run.run()
            finally:
                self._collect(run.report())

    async def _run_in_processes(self, plan: Plan, artifacts: list[Artifact], now: datetime) -> None:
        slots = anyio.Semaphore(plan.source.processes)
        async with anyio.create_task_group() as group:
            for artifact in artifacts:
                group.start_soon(self._run_in_process, plan, artifact, now, slots)

    async def _run_in_process(
        self, plan: Plan, artifact: Artifact, now: datetime, slots: anyio.Semaphore
    ) -> None:
        pipeline, redactor = self._runner.pipeline, self._bus.redactor
        identity, modules = self._identity(now), self._runner.modules
        job = Job(pipeline, plan.backup, artifact.name, identity, redactor, modules)
        worker = Worker(job, self._bus)
        try:
            async with slots:
                await run_in_thread("worker", worker.run, worker.stop)
        finally:
            self._collect(worker.report)

    async def _place(self, plan: Plan, artifact: Artifact, now: datetime) -> Placement | None:
        """What the artifact builds on; None when its source keeps no series."""
        if not plan.source.periods:
            return None
        with anyio.move_on_after(plan.stall_timeout):
            find = partial(series.place, plan, artifact, self._runner.owner, now)
            return await run_in_thread("series", find, grace=0)
        why = f"a full copy: no answer within {plan.stall_timeout:g} s about earlier ones"
        return Placement(warnings=(why,))

    def _collect(self, artifact: ArtifactReport) -> None:
        self._report.artifacts.append(artifact)
        where = (self._report.name, artifact.name)
        if artifact.skipped_total:
            first = tuple(artifact.skipped[:10])
            self._bus.emit(events.ItemsSkipped(*where, artifact.skipped_total, first))
        for warning in artifact.warnings[:10]:
            self._bus.emit(events.SourceWarned(*where, warning))
        if artifact.error:
            self._bus.emit(events.ArtifactFailed(*where, artifact.error))

    def _identity(self, taken_at: datetime) -> RunIdentity:
        token = run_token(self._mark, taken_at, secrets.token_hex(3))
        return RunIdentity(self._runner.run_id, *self._runner.owner, taken_at, token)

    async def _clear_leftovers(self, plan: Plan, now: datetime) -> None:
        """Remove what dead runs left; a storage that does not answer now will fail its branch
        later.
        """
        async with anyio.create_task_group() as group:
            for branch in plan.branches:
                group.start_soon(self._clear_branch, plan.backup, branch, now)

    async def _clear_branch(self, backup: str, branch: BranchPlan, now: datetime) -> None:
        clear = registry.rotation().clear_leftovers
        error = f"no answer within {SWEEP_TIMEOUT:g} s"
        with anyio.move_on_after(SWEEP_TIMEOUT):
            try:
                found = await run_in_thread(
                    "sweep", partial(clear, branch.storage, backup, self._mark, now), grace=0
                )
            except Exception as failure:
                error = describe(failure)
            else:
                self._note_cleared(branch.name, found)
                return
        self._bus.emit(events.SweepFailed(backup, branch.name, error))

    def _note_cleared(self, storage: str, names: Sequence[str]) -> None:
        for name in names:
            self._report.cleared.append(f"{storage}:{name}")
            self._bus.emit(events.LeftoverRemoved(self._report.name, storage, name))

    async def _rotate(self, plan: Plan, artifacts: list[Artifact]) -> None:
        """Rotate each artifact on each storage where it was committed just now, with its shards."""
        together: dict[str, list[Artifact]] = {}
        for artifact in artifacts:
            subject = artifact.shard.of if artifact.shard else artifact.name
            together.setdefault(subject, []).append(artifact)
        reports = {report.name: report for report in self._report.artifacts}
        for branch in plan.branches:
            for subject, parts in together.items():
                if branch.rotate and all(_is_on(reports[part.name], branch.name) for part in parts):
                    # Shards of earlier copies may be more than there are now.
                    below = "" if parts[0].shard else f"/{quote_name(subject)}"
                    await self._rotate_subject(plan, branch, subject, plan.backup + below)
            if branch.legacy and all(_is_on(report, branch.name) for report in reports.values()):
                await self._rotate_legacy(plan, branch)

    async def _rotate_subject(
        self, plan: Plan, branch: BranchPlan, subject: str, prefix: str
    ) -> None:
        rotate = partial(
            registry.rotation().rotate,
            branch.storage,
            branch.name,
            prefix,
            branch.rotate,
            self._runner.owner,
            self._runner.clock(),
            partial(self._note_removed, branch.name),
            subject,
        )
        await self._remove(plan, branch, rotate)

    async def _rotate_legacy(self, plan: Plan, branch: BranchPlan) -> None:
        """Let what nxs-backup v3 left on a storage age out, as far as rules say so."""
        if branch.rotate is None:
            return
        rotate = partial(
            registry.rotation().rotate_legacy,
            branch.storage,
            branch.name,
            plan.backup,
            branch.legacy,
            branch.rotate,
            self._runner.owner,
            self._runner.clock(),
            partial(self._note_removed, branch.name),
        )
        await self._remove(plan, branch, rotate)

    async def _remove(self, plan: Plan, branch: BranchPlan, rotate: Callable[[], object]) -> None:
        """Run a rotation; when it fails, or stands still, that is a problem, but no failure."""
        backup, stall_timeout = plan.backup, plan.stall_timeout
        error = f"no progress for {stall_timeout:g} s"
        watch = StallWatch(lambda: len(self._report.removed), lambda: True)
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_stalled, watch, stall_timeout, group.cancel_scope)
            try:
                await run_in_thread("rotate", rotate, grace=0)
                error = ""
            except Exception as failure:
                error = describe(failure)
            group.cancel_scope.cancel()
        if error:
            self._report.problems.append(f"rotation on {branch.name}: {error}")
            self._bus.emit(events.RotationFailed(backup, branch.name, error))

    async def _cancel_stalled(
        self, watch: StallWatch, timeout: float, scope: anyio.CancelScope
    ) -> None:
        while watch.idle_seconds(time.monotonic()) < timeout:
            await anyio.sleep(min(1.0, timeout / 4))
        scope.cancel()

    def _note_removed(self, storage: str, path: str) -> None:
        self._report.removed.append(f"{storage}:{path}")
        self._bus.emit(events.BackupRemoved(self._report.name, storage, path))


def _is_on(artifact: ArtifactReport, storage: str) -> bool:
    return any(
        branch.storage == storage and branch.outcome is Outcome.OK for branch in artifact.branches
    )
