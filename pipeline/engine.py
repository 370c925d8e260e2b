"""Runs one artifact: source, transforms, fan-out, and the barrier before the commit.

::

    [source] --4 MiB--> [transforms, digest, tee] --buffer--> [branch: transforms, writer]   one
    thread each
                                                  --buffer--> [branch: transforms, writer]

Teardown, from whatever side it comes, is one thing: `abort` marks all channels dead and calls what
the stages registered, so that every blocked thread wakes up, and the task group only has to wait
for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256

import anyio

from pipeline import events, manifest
from pipeline.branch import BranchRun, describe
from pipeline.channel import Trailer
from pipeline.context import Increment, StageContext
from pipeline.errors import Aborted, SourceError, StorageUnavailable, TransformError
from pipeline.events import EventBus, Progressed
from pipeline.figures import bottleneck, branch_report, stage_progress, stage_reports
from pipeline.graph import Plan
from pipeline.lane import Lane, data_lane, index_lane
from pipeline.naming import INDEX_SUFFIX, ObjectName
from pipeline.report import ArtifactReport, Outcome
from pipeline.segment import GRACE, run_in_thread
from pipeline.series import Placement
from pipeline.stage import Artifact
from pipeline.stall import StallWatch
from pipeline.streams import Meter, naming
from schemas.manifest import ManifestIndex

TICK = 0.2
"""Seconds between two looks at progress and stalls."""


@dataclass(frozen=True)
class RunIdentity:
    """What all artifacts of a run share."""

    run: str
    project: str
    host: str
    taken_at: datetime
    token: str


class ArtifactRun:
    """One artifact on its way through its own copy of the graph.

    Args:
        placement: where the copy stands in its series; None for a source that keeps none.
    """

    def __init__(
        self,
        plan: Plan,
        artifact: Artifact,
        identity: RunIdentity,
        bus: EventBus,
        placement: Placement | None = None,
    ) -> None:
        self._plan = plan
        self._artifact = artifact
        self._identity = identity
        self._bus = bus
        self._placement = placement or Placement()
        self._context = StageContext()
        self._meter = Meter(plan.source_type)
        self._data = data_lane(plan, identity.token, self._name_for, self._context)
        self._branches = self._data.branches
        self._index: Lane | None = None
        if placement is not None:
            self._index = index_lane(plan, identity.token, self._index_name, self._context)
            self._context.increment = self._increment(placement, self._index)
            self._context.findings.warnings += placement.warnings
        self._plain: Trailer | None = None
        self._errors: list[BaseException] = []
        self._ended = False
        self._started = time.monotonic()
        self._started_at = datetime.now(timezone.utc)
        self._seconds = 0.0

    def _name_for(self, suffix: str) -> ObjectName:
        return ObjectName(
            self._plan.backup,
            self._artifact.name,
            self._identity.taken_at,
            self._artifact.suffix + suffix,
        )

    def _index_name(self, suffix: str) -> ObjectName:
        return replace(self._name_for(""), suffix=INDEX_SUFFIX + suffix)

    def _increment(self, placement: Placement, lane: Lane) -> Increment:
        read = placement.index
        return Increment(lane.trunk.send, partial(read, self._context) if read else None)

    @property
    def _lanes(self) -> list[Lane]:
        return [self._data, self._index] if self._index else [self._data]

    # -- structure -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run to the end; every failure ends up in `report`.

        Only cancellation passes through, after everything was aborted.
        """
        self._bus.emit(
            events.ArtifactStarted(
                self._plan.backup,
                self._artifact.name,
                tuple(branch.plan.name for branch in self._branches),
            )
        )
        self._cut_off_silent()
        try:
            await self._stream()
            await self._commit()
            self._ended = True
            await self._release()
        finally:
            await self._abort_branches()
            self._seconds = time.monotonic() - self._started

    def _cut_off_silent(self) -> None:
        """Without what it builds on an increment is no backup: none where that is not known."""
        parents = self._placement.parents
        for branch in self._branches:
            if parents and branch.plan.name not in parents:
                why = "it did not tell what it has, which an increment has to build on"
                branch.fail(StorageUnavailable(why, "the next run asks again"))
                branch.interrupt()

    async def _stream(self) -> None:
        """Move the data. Afterwards `_errors` is empty and `_plain` set only if all went well."""
        async with anyio.create_task_group() as group:
            async with anyio.create_task_group() as work:
                group.start_soon(self._watch, work.cancel_scope)
                work.start_soon(self._segment, "source", self._read)
                for lane in self._lanes:
                    work.start_soon(self._segment, "transforms", lane.convert)
                for position, branch in enumerate(self._branches):
                    index = self._index.branches[position] if self._index else None
                    work.start_soon(self._pump, branch, index)
                    if index:
                        work.start_soon(self._pump, index, branch)
            group.cancel_scope.cancel()

    async def _segment(self, name: str, body: Callable[[], None]) -> None:
        await run_in_thread(name, partial(self._guarded, body), self._abort)

    def _guarded(self, body: Callable[[], None]) -> None:
        """Run a segment; its failure stops the others at once, without the detour through the event
        loop.
        """
        try:
            body()
        except BaseException as error:
            if not isinstance(
                error, Aborted
            ):  # that is a consequence; its cause is known elsewhere
                self._errors.append(error)
            self._abort()

    async def _pump(self, branch: BranchRun, partner: BranchRun | None) -> None:
        """Run a branch, and cut it off when it makes no progress.

        Data and index of a copy are nothing without each other: each is the other's partner.
        """
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch_stall, branch, scope)
                await run_in_thread(f"storage {branch.plan.name}", branch.pump, branch.interrupt)
                group.cancel_scope.cancel()
        if branch.error is None:
            return
        if partner is not None:
            partner.fail(branch.error)
            partner.interrupt()
        if branch in self._branches:
            self._announce_failure(branch)

    async def _watch_stall(self, branch: BranchRun, scope: anyio.CancelScope) -> None:
        watch = StallWatch(branch.progress, lambda: branch.has_work)
        while watch.idle_seconds(time.monotonic()) < self._plan.stall_timeout:
            await anyio.sleep(min(TICK, self._plan.stall_timeout / 4))
        branch.stalled(self._plan.stall_timeout)
        scope.cancel()

    async def _watch(self, work: anyio.CancelScope) -> None:
        """Report progress while the data moves, and see to it that a dead run ends."""
        stalls = StallWatch(self._trunk_progress, self._trunk_must_move)
        last_alive = time.monotonic()
        while True:
            await anyio.sleep(TICK)
            now = time.monotonic()
            self._bus.emit(self._progress(now - self._started))
            if not self._context.teardown.aborted:
                last_alive = now
                if stalls.idle_seconds(now) > self._plan.stall_timeout:
                    timeout = f"no progress for {self._plan.stall_timeout:g} s"
                    self._errors.append(TransformError(f"the stages made {timeout}"))
                    self._abort()
            elif now - last_alive > GRACE:
                work.cancel()  # a thread that cannot be woken is left behind

    def _trunk_progress(self) -> int:
        meters = (meter for lane in self._lanes for meter in lane.meters)
        received = sum(lane.trunk.received for lane in self._lanes)
        return self._meter.bytes + sum(meter.bytes for meter in meters) + received

    def _trunk_must_move(self) -> bool:
        """Everything is read or the source has to wait, and no storage is what it waits for."""
        pending = self._plain is not None or any(lane.trunk.fill > 0 for lane in self._lanes)
        return pending and not any(lane.has_work for lane in self._lanes)

    async def _commit(self) -> None:
        """Past the barrier: make visible what every healthy branch has stored."""
        plain = self._plain
        if plain is None or self._errors:
            return
        async with anyio.create_task_group() as group:
            for position, branch in enumerate(self._branches):
                index = self._index.branches[position] if self._index else None
                if branch.error is None and branch.stored is not None:
                    group.start_soon(self._commit_branch, branch, index, plain, branch.stored)

    async def _commit_branch(
        self, branch: BranchRun, index: BranchRun | None, plain: Trailer, stored: Trailer
    ) -> None:
        document = self._manifest_for(branch, index, plain, stored)
        commit = partial(run_in_thread, "commit", partial(branch.commit, document, index))
        try:
            # Cancelled, a commit that can still end well may do so within the grace period.
            with anyio.move_on_after(self._plan.stall_timeout) as scope:
                await commit()
            if scope.cancelled_caught and not branch.committed:
                branch.stalled(self._plan.stall_timeout)
        finally:
            self._announce(branch, stored)

    async def _release(self) -> None:
        """Tell the source that the artifact is safe, unless it is not."""
        if self.report().outcome not in (Outcome.OK, Outcome.PARTIAL):
            return
        release = partial(self._plan.source.release, self._artifact)
        try:
            with anyio.move_on_after(self._plan.stall_timeout):
                await run_in_thread("release", release, grace=0)
        except Exception as error:
            self._context.findings.warn(describe(error))

    def _announce(self, branch: BranchRun, stored: Trailer) -> None:
        if branch.committed:
            self._bus.emit(
                events.ArtifactCommitted(
                    self._plan.backup,
                    self._artifact.name,
                    branch.plan.name,
                    branch.name.path,
                    stored.size,
                )
            )
        else:
            self._announce_failure(branch)

    async def _abort_branches(self) -> None:
        """Leave no trace of what was not committed; bounded in time, also while we are being
        cancelled.
        """
        every = [branch for lane in self._lanes for branch in lane.branches]
        open_branches = [branch for branch in every if not branch.committed]
        if not open_branches:
            return
        self._abort()
        with anyio.move_on_after(GRACE, shield=True):
            async with anyio.create_task_group() as group:
                for branch in open_branches:
                    group.start_soon(partial(run_in_thread, "abort", branch.abort, grace=0))

    # -- data, in threads ------------------------------------------------------------------------

    def _read(self) -> None:
        """Segment one: the source."""
        needs_digest = not all(self._plan.encrypts(branch) for branch in self._plan.branches)
        digest = sha256() if needs_digest else None
        meter, send = self._meter, self._data.trunk.send
        stream = self._plan.source.stream(self._artifact, self._context)
        name = naming(f"source {self._plan.source_type}")
        with name, meter.running(), closing(stream):  # type: ignore[type-var]
            for chunk in stream:
                meter.bytes += len(chunk)
                if digest is not None:
                    digest.update(chunk)
                send(chunk)
            self._check_size(meter.bytes)
        self._plain = Trailer(meter.bytes, digest.hexdigest() if digest else None)
        self._data.trunk.finish(self._plain)
        if self._index:
            self._index.trunk.finish(Trailer(self._index.trunk.sent, None))

    def _check_size(self, size: int) -> None:
        if size < self._artifact.min_size:
            what = "nothing" if size == 0 else f"only {size} bytes"
            raise SourceError(
                f'"{self._artifact.name}" gave {what}', "an empty dump is no backup; see `min_size`"
            )

    # -- from any thread -------------------------------------------------------------------------

    def _abort(self) -> None:
        self._context.teardown.abort()
        for lane in self._lanes:
            lane.interrupt()

    # -- what others see -------------------------------------------------------------------------

    def _progress(self, seconds: float) -> Progressed:
        return Progressed(
            self._plan.backup,
            self._artifact.name,
            seconds,
            stage_progress(self._meter, self._data),
            bottleneck(self._plan, self._data, is_read=self._plain is not None),
            self._context.expected,
        )

    def _manifest_for(
        self, branch: BranchRun, index: BranchRun | None, plain: Trailer, stored: Trailer
    ) -> bytes:
        identity = (self._identity.run, self._identity.project, self._identity.host)
        return manifest.dump(
            manifest.build(
                self._plan,
                branch.plan,
                self._artifact,
                branch.name,
                identity,
                plain,
                stored,
                self._context.findings,
                self._bus.redactor,
                self._in_series(branch, index),
            )
        )

    def _in_series(self, branch: BranchRun, index: BranchRun | None) -> manifest.InSeries:
        if index is None or index.stored is None:
            return manifest.InSeries()
        parent = self._placement.parents.get(branch.plan.name)
        base = index.name.path.rpartition("/")[2]
        written = ManifestIndex(
            object=base, stored_size=index.stored.size, stored_sha256=index.stored.sha256 or ""
        )
        return manifest.InSeries(
            self._placement.level, parent.manifest if parent else None, written
        )

    def _announce_failure(self, branch: BranchRun) -> None:
        if branch.error is None or isinstance(branch.error, Aborted):
            return
        self._bus.emit(
            events.BranchFailed(
                self._plan.backup,
                self._artifact.name,
                branch.plan.name,
                branch.plan.required,
                describe(branch.error),
            )
        )

    def report(self) -> ArtifactReport:
        """How it ended."""
        findings = self._context.findings
        report = ArtifactReport(
            self._artifact.name,
            plain_size=self._meter.bytes,
            started=self._started_at,
            seconds=self._seconds,
            counts=findings.counts,
            warnings=findings.warnings,
            skipped=findings.skipped,
            skipped_total=findings.skipped_total,
            branches=[branch_report(branch) for branch in self._branches],
            stages=stage_reports(self._meter, self._data, self._started),
        )
        if self._errors:
            report.error = "; ".join(describe(error) for error in self._errors)
        elif self._ended:
            report.conclude()
        else:
            report.outcome, report.error = Outcome.INTERRUPTED, "interrupted"
        return report
