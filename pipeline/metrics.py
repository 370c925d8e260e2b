"""The result of a run as metrics for Prometheus: pure functions, no file and no network.

Text format: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4. All are
gauges, since they tell the last run; names and units follow
https://prometheus.io/docs/practices/naming/. They are stable: users build alerts on them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pipeline.report import ArtifactReport, BackupReport, Outcome, RunReport, StageReport
from pipeline.version import VERSION

PREFIX = "nxs_backup_"

HELP: Mapping[str, str] = {
    "info": "Version of nxs-backup that made the last run.",
    "run_timestamp_seconds": "When the last run ended.",
    "run_duration_seconds": "How long the last run took.",
    "run_exit_code": "Exit code of the last run: 0 well, 1 failed, 3 partial, 11 locked, 130 "
    "interrupted.",
    "run_undelivered_messages": "Messages of the last run that no notifier could deliver.",
    "success": "Whether the last run of the backup was whole.",
    "partial": "Whether the last run of the backup was partial: neither whole nor failed.",
    "last_run_timestamp_seconds": "When the backup last ended, well or not.",
    "last_success_timestamp_seconds": "When the backup was last whole.",
    "duration_seconds": "How long the last run of the backup took.",
    "memory_ceiling_bytes": "The most memory that a run of the backup takes.",
    "removed_objects": "Old backups that rotation removed in the last run.",
    "problems": "What went wrong in the last run after the data was safe, such as a rotation.",
    "artifact_success": "Whether the artifact was whole in the last run.",
    "artifact_partial": "Whether the artifact was partial in the last run.",
    "artifact_duration_seconds": "How long the artifact took.",
    "artifact_plain_bytes": "Bytes that the source gave, before any stage.",
    "artifact_items": "What the source counted: files, tables, rows, keys.",
    "artifact_skipped_items": "Items that could not be read.",
    "artifact_warnings": "Warnings of the source.",
    "storage_success": "Whether the artifact was stored there in the last run.",
    "storage_stored_bytes": "Bytes of the stored object; 0 when it was not stored.",
    "storage_stall_seconds": "How long the stages before the fan-out waited for the storage.",
    "storage_last_success_timestamp_seconds": "When all artifacts of the backup were last stored "
    "there.",
    "stage_bytes": "Bytes that the stage produced; of a storage, what it was given.",
    "stage_stall_seconds": "How long the stage waited for input, or for those after it to take its "
    "output.",
}
"""Each metric, without its prefix, in the order they are written in."""

LASTING = frozenset({"last_success_timestamp_seconds", "storage_last_success_timestamp_seconds"})
"""Metrics that keep their value when there is no new one."""

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """One value of one metric."""

    name: str
    """Without the prefix."""
    labels: tuple[tuple[str, str], ...]
    value: float

    @property
    def series(self) -> tuple[str, frozenset[tuple[str, str]]]:
        """What tells it from all others."""
        return self.name, frozenset(self.labels)

    def label(self, name: str) -> str | None:
        return dict(self.labels).get(name)


def _sample(name: str, labels: Labels, value: float) -> Sample:
    return Sample(name, tuple(labels.items()), float(value))


# -- from a report -------------------------------------------------------------------------------


def measure(report: RunReport) -> list[Sample]:
    """All there is to say about a run.

    Nothing about a backup that did not run: another run holds its lock and will tell, or this one
    was interrupted before.
    """
    owner = {"project": report.project, "host": report.host}
    ended = report.started + timedelta(seconds=report.seconds)
    found = [
        _sample("info", {**owner, "version": VERSION}, 1),
        _sample("run_timestamp_seconds", owner, ended.timestamp()),
        _sample("run_duration_seconds", owner, report.seconds),
        _sample("run_exit_code", owner, report.outcome.exit_code),
        _sample("run_undelivered_messages", owner, len(report.notifications)),
    ]
    for backup in report.backups:
        if backup.outcome is not Outcome.LOCKED and backup.started is not None:
            found += _of_backup(backup, {**owner, "backup": backup.name})
    return found


def _of_backup(backup: BackupReport, labels: Labels) -> Iterator[Sample]:
    assert backup.started is not None
    ended = (backup.started + timedelta(seconds=backup.seconds)).timestamp()
    yield from _of_outcome("", backup.outcome, labels)
    yield _sample("last_run_timestamp_seconds", labels, ended)
    if backup.outcome is Outcome.OK:
        yield _sample("last_success_timestamp_seconds", labels, ended)
    yield _sample("duration_seconds", labels, backup.seconds)
    yield _sample("memory_ceiling_bytes", labels, backup.memory_ceiling)
    yield _sample("removed_objects", labels, len(backup.removed))
    yield _sample("problems", labels, len(backup.problems))
    for artifact in backup.artifacts:
        yield from _of_artifact(artifact, {**labels, "artifact": artifact.name})
    for storage in _whole_on(backup):
        where = {**labels, "storage": storage}
        yield _sample("storage_last_success_timestamp_seconds", where, ended)


def _whole_on(backup: BackupReport) -> list[str]:
    """The storages that got all of it."""
    branches = [branch for artifact in backup.artifacts for branch in artifact.branches]
    failed = {branch.storage for branch in branches if branch.outcome is not Outcome.OK}
    everywhere = dict.fromkeys(branch.storage for branch in branches)
    return [] if backup.error else [name for name in everywhere if name not in failed]


def _of_artifact(artifact: ArtifactReport, labels: Labels) -> Iterator[Sample]:
    yield from _of_outcome("artifact_", artifact.outcome, labels)
    yield _sample("artifact_duration_seconds", labels, artifact.seconds)
    yield _sample("artifact_plain_bytes", labels, artifact.plain_size)
    for item, number in artifact.counts.items():
        yield _sample("artifact_items", {**labels, "item": item}, number)
    yield _sample("artifact_skipped_items", labels, artifact.skipped_total)
    yield _sample("artifact_warnings", labels, len(artifact.warnings))
    for branch in artifact.branches:
        where = {**labels, "storage": branch.storage}
        yield _sample("storage_success", where, branch.outcome is Outcome.OK)
        yield _sample("storage_stored_bytes", where, branch.stored_size or 0)
        yield _sample("storage_stall_seconds", where, branch.held_up)
    for position, stage in enumerate(artifact.stages):
        yield from _of_stage(stage, {**labels, "position": str(position)})


def _of_outcome(prefix: str, outcome: Outcome, labels: Labels) -> Iterator[Sample]:
    yield _sample(f"{prefix}success", labels, outcome is Outcome.OK)
    yield _sample(f"{prefix}partial", labels, outcome is Outcome.PARTIAL)


def _of_stage(stage: StageReport, labels: Labels) -> Iterator[Sample]:
    where = {**labels, "stage": stage.name, "kind": stage.kind}
    if stage.storage is not None:
        where["storage"] = stage.storage
    yield _sample("stage_bytes", where, stage.bytes)
    yield _sample("stage_stall_seconds", {**where, "side": "input"}, stage.waited_for_input)
    yield _sample("stage_stall_seconds", {**where, "side": "output"}, stage.waited_for_output)


# -- what is there already ------------------------------------------------------------------------


def merge(
    new: Sequence[Sample], old: Sequence[Sample], known: Mapping[str, Collection[str]]
) -> list[Sample]:
    """What a file says after a run: the new, and what is still true of the old.

    Args:
        known: the storages of each backup of the configuration; what is told about others goes.
    """
    ours = {(sample.label("project"), sample.label("host")) for sample in new}
    ran = {sample.label("backup") for sample in new}
    told = {sample.series for sample in new}

    def stays(sample: Sample) -> bool:
        if (sample.label("project"), sample.label("host")) not in ours:
            return True
        backup, storage = sample.label("backup"), sample.label("storage")
        if backup is None or backup not in known:
            return False
        if storage is not None and storage not in known[backup]:
            return False
        return backup not in ran or (sample.name in LASTING and sample.series not in told)

    return [*new, *filter(stays, old)]


# -- for a Pushgateway ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Samples that a Pushgateway keeps together, and that replace each other."""

    labels: tuple[tuple[str, str], ...]
    samples: tuple[Sample, ...]
    complete: bool
    """Whether it may replace all that is there: nothing lasting would be lost."""


def groups(samples: Iterable[Sample]) -> list[Group]:
    """One for the run, one for each backup, and one for each of its storages.

    The last success is kept there when there is none to tell, so what lasts has to be alone with
    what it belongs to.
    """
    parted: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        names = ["backup", "storage"] if sample.name.startswith("storage_") else ["backup"]
        key = tuple(pair for pair in sample.labels if pair[0] in names)
        parted.setdefault(key, []).append(sample)
    return [
        Group(key, tuple(found), not key or any(sample.name in LASTING for sample in found))
        for key, found in parted.items()
    ]


# -- text -----------------------------------------------------------------------------------------


def render(samples: Iterable[Sample]) -> str:
    """The text format; the samples of a metric stand together."""
    by_name: dict[str, list[Sample]] = {name: [] for name in HELP}
    for sample in samples:
        by_name[sample.name].append(sample)
    return "".join(line for name, found in by_name.items() for line in _lines(name, found))


def _lines(name: str, samples: Sequence[Sample]) -> Iterator[str]:
    if samples:
        yield f"# HELP {PREFIX}{name} {HELP[name]}\n"
        yield f"# TYPE {PREFIX}{name} gauge\n"
    for sample in samples:
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels)
        yield f"{PREFIX}{name}{{{labels}}} {_number(sample.value)}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))


def _escaped(value: str) -> str:
    # A file name may hold what UTF-8 cannot express.
    value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


_LINE = re.compile(re.escape(PREFIX) + r"([a-z_]+)\{(.*)\} ([0-9.e+-]+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")


def parse(text: str) -> list[Sample]:
    """The samples of a text that `render` made; any other line is passed over."""
    return [sample for line in text.split("\n") if (sample := _parsed(line)) is not None]


def _parsed(line: str) -> Sample | None:
    match = _LINE.fullmatch(line)
    if match is None or match[1] not in HELP:
        return None
    labels = tuple((name, _ESCAPE.sub(_plain, text)) for name, text in _LABEL.findall(match[2]))
    try:
        return Sample(match[1], labels, float(match[3]))
    except ValueError:
        return None


def _plain(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
