"""The result of a run as a trace for OpenTelemetry: a pure function, no network.

::

    run
    +-- backup
        +-- artifact
            +-- source, transforms, storages          side by side: they are one stream

Format: OTLP as JSON, https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding; the fields
are those of opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from pipeline.redact import Redactor
from pipeline.report import ArtifactReport, BackupReport, Outcome, RunReport, StageReport
from pipeline.version import VERSION

_INTERNAL = 1
"""SPAN_KIND_INTERNAL."""
_STATUS = {Outcome.OK: 1, Outcome.FAILED: 2, Outcome.INTERRUPTED: 2}
"""STATUS_CODE_OK and STATUS_CODE_ERROR; anything else stays unset."""
_PREFIX = "nxs_backup."

Value = str | int | float | bool | None


@dataclass(frozen=True)
class _Trace:
    """What all spans share."""

    key: str
    redactor: Redactor

    @property
    def id(self) -> str:
        return sha256(self.key.encode()).hexdigest()[:32]

    def span_id(self, path: tuple[str, ...]) -> str:
        return sha256("\0".join((self.key, *path)).encode()).hexdigest()[:16]

    def span(
        self,
        path: tuple[str, ...],
        name: str,
        start: datetime,
        seconds: float,
        outcome: Outcome,
        error: str | None = None,
        **attributes: Value,
    ) -> dict[str, Any]:
        """One span; `path` tells it and those above it from all others."""
        status: dict[str, Any] = {"code": _STATUS[outcome]} if outcome in _STATUS else {}
        if error:
            status["message"] = self.redactor.text(error)
        parent = {"parentSpanId": self.span_id(path[:-1])} if len(path) > 1 else {}
        return {
            "traceId": self.id,
            "spanId": self.span_id(path),
            **parent,
            "name": name,
            "kind": _INTERNAL,
            "startTimeUnixNano": _nanoseconds(start),
            "endTimeUnixNano": _nanoseconds(start + timedelta(seconds=max(0.0, seconds))),
            "attributes": _attributes(
                {f"{_PREFIX}{name}": value for name, value in attributes.items()}
                | {f"{_PREFIX}outcome": outcome.value}
            ),
            "status": status,
        }


def trace(report: RunReport, attributes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """An `ExportTraceServiceRequest`, JSON-ready.

    Args:
        attributes: more of them for the resource.
    """
    resource: dict[str, Value] = {
        "service.name": "nxs-backup",
        "service.version": VERSION,
        "host.name": report.host,
        f"{_PREFIX}project": report.project,
        **(attributes or {}),
    }
    scope = {"name": "nxs-backup", "version": VERSION}
    spans = list(_of_run(report))
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": scope, "spans": spans}],
            }
        ]
    }


def _of_run(report: RunReport) -> Iterator[dict[str, Any]]:
    shared = _Trace(report.run, report.redactor)
    path = ("run",)
    # That of the report has no fraction of a second: a backup must not end after its run.
    begun = [backup.started for backup in report.backups if backup.started]
    started = min(begun, default=report.started)
    name = f"run {report.project}"
    yield shared.span(path, name, started, report.seconds, report.outcome, run=report.run)
    for backup in report.backups:
        if backup.started is not None:
            yield from _of_backup(shared, path, backup, backup.started)


def _of_backup(
    shared: _Trace, above: tuple[str, ...], backup: BackupReport, started: datetime
) -> Iterator[dict[str, Any]]:
    path = (*above, backup.name)
    yield shared.span(
        path,
        f"backup {backup.name}",
        started,
        backup.seconds,
        backup.outcome,
        backup.error or "; ".join(backup.problems),
        backup=backup.name,
        removed=len(backup.removed),
    )
    for artifact in backup.artifacts:
        yield from _of_artifact(shared, path, backup.name, artifact, artifact.started or started)


def _of_artifact(
    shared: _Trace,
    above: tuple[str, ...],
    backup: str,
    artifact: ArtifactReport,
    started: datetime,
) -> Iterator[dict[str, Any]]:
    path = (*above, artifact.name)
    names = {"backup": backup, "artifact": artifact.name}
    yield shared.span(
        path,
        f"artifact {artifact.name}",
        started,
        artifact.seconds,
        artifact.outcome,
        artifact.error,
        **names,
        plain_bytes=artifact.plain_size,
        skipped=artifact.skipped_total,
        **{f"counts.{item}": number for item, number in artifact.counts.items()},
    )
    branches = {branch.storage: branch for branch in artifact.branches}
    for position, stage in enumerate(artifact.stages):
        more: dict[str, Value] = {**names, "position": position}
        branch = branches.get(stage.name) if stage.kind == "storage" else None
        if branch is not None:
            more |= {"object": branch.object, "required": branch.required}
            more |= {"held_up": branch.held_up}
        yield _of_stage(shared, path, stage, started, branch.error if branch else None, more)


def _of_stage(
    shared: _Trace,
    above: tuple[str, ...],
    stage: StageReport,
    started: datetime,
    error: str | None,
    more: Mapping[str, Value],
) -> dict[str, Any]:
    return shared.span(
        (*above, str(more["position"])),
        f"{stage.kind} {stage.name}",
        started,
        stage.seconds,
        stage.outcome,
        error,
        **more,
        storage=stage.storage,
        bytes=stage.bytes,
        waited_for_input=stage.waited_for_input,
        waited_for_output=stage.waited_for_output,
    )


def _nanoseconds(moment: datetime) -> str:
    """Since 1970; 64-bit numbers are text in this JSON."""
    return str(int(moment.timestamp() * 1_000_000) * 1000)


def _attributes(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": _value(value)} for key, value in values.items() if value is not None
    ]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": round(value, 6)}
    return {"stringValue": str(value)}
