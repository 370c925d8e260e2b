"""What each stage of an artifact does and waits for, from its meters and channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pipeline.branch import BranchRun, describe
from pipeline.errors import Aborted
from pipeline.events import StageProgress
from pipeline.graph import Plan
from pipeline.lane import Lane
from pipeline.report import BranchReport, Outcome, StageReport
from pipeline.streams import Meter

_Kind = Literal["source", "transform", "storage"]


def stage_progress(source: Meter, lane: Lane) -> tuple[StageProgress, ...]:
    """What every stage has done so far, in the order of the stream."""
    stages = [StageProgress(source.name, source.bytes, kind="source")]
    fill: float | None = lane.trunk.share
    for meter in lane.meters:
        # The transforms of a chain run in one thread: a channel stands before the first alone.
        stages.append(StageProgress(meter.name, meter.bytes, fill))
        fill = None
    for branch in lane.branches:
        name, size = branch.plan.name, branch.meter.bytes
        stages.append(StageProgress(name, size, branch.channel.share, "storage"))
    return tuple(stages)


def bottleneck(plan: Plan, lane: Lane, is_read: bool) -> str:
    """The stage everything waits for: the one behind the last full channel.

    Args:
        is_read: nothing more comes from the source.
    """
    # Once everything is read, all that is left to wait for is the storage that lags most.
    enough = 0.0 if is_read else 0.8
    slowest = max(lane.branches, key=lambda branch: branch.channel.fill)
    if slowest.channel.fill > enough * slowest.channel.capacity:
        return slowest.plan.name
    if lane.trunk.fill > 0.8 * lane.trunk.capacity and plan.stages:
        return "+".join(node.name for node in plan.stages)
    return plan.source_type


def branch_report(branch: BranchRun) -> BranchReport:
    """How a branch ended."""
    report = BranchReport(branch.plan.name, branch.plan.required)
    report.held_up = branch.channel.full_seconds
    if branch.committed and branch.stored:
        report.outcome = Outcome.OK
        report.object = branch.name.path
        report.stored_size = branch.stored.size
    elif branch.error is not None and not isinstance(branch.error, Aborted):
        report.error = describe(branch.error)
    return report


def stage_reports(source: Meter, lane: Lane, started: float) -> list[StageReport]:
    """All stages, in the order of the stream.

    Args:
        source: the meter of the source.
        started: when the artifact did (monotonic).
    """
    first = _report(source, "source", started)
    first.waited_for_output = lane.trunk.full_seconds
    transforms = [_report(meter, "transform", started) for meter in lane.meters]
    # The transforms of a chain run in one thread: it waits at its two ends only.
    if transforms:
        transforms[0].waited_for_input = lane.trunk.empty_seconds
        held_up = (branch.channel.full_seconds for branch in lane.branches)
        transforms[-1].waited_for_output = sum(held_up)
    return [first, *transforms, *_branches(lane.branches, started)]


def _branches(branches: Sequence[BranchRun], started: float) -> Iterator[StageReport]:
    for branch in branches:
        name = branch.plan.name
        stages = [_report(meter, "transform", started, name) for meter in branch.meters]
        stages.append(_report(branch.meter, "storage", started, name))
        if branch.error is not None and not isinstance(branch.error, Aborted):
            # Also one that was cut off because nothing moved.
            blamed = any(stage.outcome is Outcome.FAILED for stage in stages[:-1])
            stages[-1].outcome = Outcome.INTERRUPTED if blamed else Outcome.FAILED
        stages[0].waited_for_input = branch.channel.empty_seconds
        yield from stages


def _report(meter: Meter, kind: _Kind, started: float, storage: str | None = None) -> StageReport:
    seconds = 0.0 if meter.ended is None else meter.ended - started
    return StageReport(meter.name, kind, storage, meter.outcome, meter.bytes, seconds)
