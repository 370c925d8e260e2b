"""Builds and reads manifests: pure functions of values. The model is in `schemas.manifest`."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass

from pydantic import ValidationError

from pipeline.channel import Trailer
from pipeline.context import Findings
from pipeline.graph import BranchPlan, Plan
from pipeline.naming import MANIFEST_SUFFIX, ObjectName, parse_object
from pipeline.redact import Redactor
from pipeline.stage import Artifact
from pipeline.version import VERSION
from schemas.manifest import Manifest, ManifestIndex, ManifestShard, ManifestSource, ManifestStage


def restore_line(object_name: str, undo: list[str], extract: str) -> str:
    """The shell line that restores with standard tools: undo the stages backwards, then extract."""
    steps = [command for command in reversed(undo) if command]
    if extract:
        steps.append(extract)
    if not steps:
        return f"cat {shlex.quote(object_name)}"
    first, *rest = steps
    return " | ".join([f"{first} < {shlex.quote(object_name)}", *rest])


@dataclass(frozen=True)
class InSeries:
    """What a manifest says about the place of a copy in a series of increments."""

    level: int = 0
    parent: Manifest | None = None
    """Of the copy it builds on."""
    index: ManifestIndex | None = None


def build(
    plan: Plan,
    branch: BranchPlan,
    artifact: Artifact,
    name: ObjectName,
    identity: tuple[str, str, str],
    plain: Trailer,
    stored: Trailer,
    findings: Findings,
    redactor: Redactor,
    series: InSeries = InSeries(),
) -> Manifest:
    """Describe one stored object.

    Args:
        identity: run id, project, host.
        plain: size and digest of what the source produced.
        stored: size and digest of what the storage got.
        redactor: cuts secrets out of commands and messages; names and sizes stay as they are.
        series: for a copy that builds on another, or can be built on.
    """
    run, project, host = identity
    base = name.path.rpartition("/")[2]
    stages = [
        ManifestStage(
            type=node.name,
            suffix=node.transform.suffix,
            undo=redactor.text(node.transform.undo),
        )
        for node in plan.stages_to(branch)
        if node.transform.changes_bytes
    ]
    return Manifest(
        program_version=VERSION,
        run=run,
        project=project,
        host=host,
        backup=plan.backup,
        artifact=artifact.name,
        taken_at=name.taken_at,
        object=base,
        suffix=artifact.suffix,
        source=ManifestSource(
            type=plan.source_type,
            server_version=findings.server_version,
            facts=redactor.value(findings.facts),
        ),
        stages=stages,
        stored_size=stored.size,
        stored_sha256=stored.sha256 or "",
        plain_size=plain.size,
        plain_sha256=None if plan.encrypts(branch) else plain.sha256,
        counts=findings.counts,
        skipped=redactor.value(findings.skipped),
        skipped_total=findings.skipped_total,
        warnings=redactor.value(findings.warnings),
        parent=series.parent.object if series.parent else None,
        level=series.level,
        index=series.index,
        shard=ManifestShard(**asdict(artifact.shard)) if artifact.shard else None,
        restore=_with_parents(
            series.parent, restore_line(base, [stage.undo for stage in stages], artifact.extract)
        ),
    )


def _with_parents(parent: Manifest | None, line: str) -> str:
    """The line of an increment, after those of all that it builds on."""
    return f"{parent.restore} && {line}" if parent else line


def dump(manifest: Manifest) -> bytes:
    """JSON, readable by people too."""
    text = manifest.model_dump_json(indent=2, exclude_none=True)
    return text.encode("utf-8") + b"\n"


def parse(path: str, data: bytes) -> Manifest | None:
    """Read the manifest stored as `path`; None when it is not one of ours or does not belong to
    that place.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        return None
    name = parse_object(path.removesuffix(MANIFEST_SUFFIX))
    if name is None or not path.endswith(MANIFEST_SUFFIX):
        return None
    claimed = (manifest.backup, manifest.artifact, manifest.taken_at, manifest.object)
    actual = (name.backup, name.artifact, name.taken_at, name.path.rpartition("/")[2])
    return manifest if claimed == actual else None
