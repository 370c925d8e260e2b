"""A backup of the configuration, compiled into stages that are ready to run. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import registry
from pipeline.errors import UnknownName
from pipeline.legacy import Tree, tree_for
from pipeline.registry import Storages
from pipeline.stage import CHUNK, Source, Storage, Transform
from schemas.pipeline import Backup, Branch, Pipeline
from schemas.retention import RetentionPolicy
from schemas.sources import SourceSpec
from schemas.transforms import TransformSpec

MIB = 1 << 20
TRUNK = 4 * MIB
"""Capacity of the channel between the source and the transforms: enough to keep both busy."""
INDEX_BUFFER = 2 * MIB
"""Capacity of the channels that the index of an increment goes through."""
BASE = 84 * MIB
"""Interpreter, our code, drivers (measured: 55 to 70 MiB), and what the allocator cannot reuse."""


@dataclass(frozen=True)
class StageNode:
    """A transform with the name people know it by."""

    name: str
    transform: Transform


@dataclass(frozen=True)
class BranchPlan:
    """One edge of the fan-out: the transforms of the branch, then its storage."""

    name: str
    storage: Storage
    stages: tuple[StageNode, ...]
    rotate: RetentionPolicy | None
    required: bool
    legacy: Tree | None = None
    """Where nxs-backup v3 kept its copies of the same source."""

    @property
    def changes_bytes(self) -> bool:
        return any(node.transform.changes_bytes for node in self.stages)


@dataclass(frozen=True)
class Plan:
    """Everything a backup needs to run."""

    backup: str
    source_type: str
    source: Source
    stages: tuple[StageNode, ...]
    branches: tuple[BranchPlan, ...]
    buffer: int
    stall_timeout: float
    notify: tuple[str, ...]
    index_key: Transform | None = None
    """What encrypts the indexes of a series."""

    def stages_to(self, branch: BranchPlan) -> tuple[StageNode, ...]:
        """All transforms between the source and one storage, in order."""
        return self.stages + branch.stages

    def suffix_to(self, branch: BranchPlan) -> str:
        return "".join(node.transform.suffix for node in self.stages_to(branch))

    def encrypts(self, branch: BranchPlan) -> bool:
        return any(node.transform.encrypts for node in self.stages_to(branch))

    def memory(self) -> Iterator[tuple[str, int]]:
        """The parts of the memory ceiling, in bytes.

        The branches share the chunks of the trunk: each lags behind the same head, so together they
        hold no more than the one that lags most. Only a branch that makes chunks of its own adds a
        buffer of its own. A source that is read by several processes takes it all so many times.
        """
        number = self.source.processes
        if number == 1:
            yield from self._memory_of_one()
            return
        yield "program", BASE
        for part, size in self._memory_of_one():
            yield f"{part}, {number} times", number * size

    def _memory_of_one(self) -> Iterator[tuple[str, int]]:
        yield "program", BASE
        yield "source", self.source.memory
        yield "channel to the transforms", TRUNK + 2 * CHUNK
        for node in self.stages:
            yield f"stage {node.name}", node.transform.memory + CHUNK
        yield "buffer before the storages", self.buffer + 2 * CHUNK
        for branch in self.branches:
            for node in branch.stages:
                yield f"stage {node.name} of {branch.name}", node.transform.memory + CHUNK
            yield f"storage {branch.name}", branch.storage.memory + 2 * CHUNK
        if self.source.periods:
            yield "index to the transforms", INDEX_BUFFER + 2 * CHUNK
            if self.index_key:
                yield "stage index", self.index_key.memory + CHUNK
            for branch in self.branches:
                own = branch.storage.memory + INDEX_BUFFER + 2 * CHUNK
                yield f"storage {branch.name}, index", own

    def ceiling(self) -> int:
        """The most memory a run of this backup takes, in bytes, however much data there is."""
        return sum(size for _, size in self.memory())


def _nodes(specs: list[TransformSpec]) -> tuple[StageNode, ...]:
    return tuple(StageNode(spec.type, registry.make_transform(spec)) for spec in specs)


def _branch(spec: Branch, name: str, source: SourceSpec, storages: Storages) -> BranchPlan:
    return BranchPlan(
        spec.storage,
        storages[spec.storage],
        _nodes(spec.stages),
        spec.rotate,
        spec.required,
        tree_for(source, name, spec.legacy_directory) if spec.legacy else None,
    )


def compile_backup(pipeline: Pipeline, name: str, storages: Storages) -> Plan:
    """Make the plan of one backup.

    Raises:
        UnknownName: there is no such backup.
        ConfigError: a component cannot be used on this machine.
    """
    if name not in pipeline.backups:
        raise unknown("backup", name, list(pipeline.backups))
    backup: Backup = pipeline.backup(name)
    source = registry.make_source(backup.source, name)
    return Plan(
        backup=name,
        source_type=backup.source.type,
        source=source,
        stages=_nodes(backup.stages),
        branches=tuple(_branch(spec, name, backup.source, storages) for spec in backup.fan_out),
        buffer=backup.buffer,
        stall_timeout=backup.stall_timeout,
        notify=tuple(backup.notify),
        index_key=registry.make_index_key(source.index_identity) if source.index_identity else None,
    )


def unknown(kind: str, name: str, known: list[str]) -> UnknownName:
    """The error for a name that does not exist, with those that do."""
    return UnknownName(f'there is no {kind} "{name}"', f"known: {', '.join(sorted(known))}")
