"""Stages that fail, wait or count on command; they keep the contracts of real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone

from pipeline.context import StageContext
from pipeline.engine import ArtifactRun, RunIdentity
from pipeline.errors import Aborted, SourceError, StorageError, StorageRefused, TransformError
from pipeline.events import Event, EventBus
from pipeline.graph import BranchPlan, Plan, StageNode
from pipeline.naming import run_token
from pipeline.stage import CHUNK, Artifact, ObjectInfo, Source, Storage, Transform, Writer
from schemas.retention import RetentionPolicy

TAKEN_AT = datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc)
TOKEN = run_token("01234567", TAKEN_AT, "abcdef")
ARTIFACT = Artifact("crm", ".sql")


class FakeSource(Source):
    """Gives chunks; may fail, or block for ever, after some of them."""

    def __init__(
        self,
        chunks: Iterable[bytes] = (b"data",),
        fail: Exception | None = None,
        block: bool = False,
        skipped: int = 0,
        expected: int | None = None,
    ) -> None:
        self._chunks, self._fail, self._block, self._skipped = chunks, fail, block, skipped
        self._expected = expected
        self.blocked = threading.Event()
        self.released: list[Artifact] = []

    def artifacts(self) -> list[Artifact]:
        return [ARTIFACT]

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        context.expected = self._expected
        for number in range(self._skipped):
            context.findings.skip(f"/file{number}", "permission denied")
        for chunk in self._chunks:
            context.teardown.check()
            yield chunk
        if self._block:
            self.blocked.set()
            context.teardown.sleep(3600)
        if self._fail is not None:
            raise self._fail

    def release(self, artifact: Artifact) -> None:
        self.released.append(artifact)

    def probe(self) -> list[str]:
        return []


class FakeTransform(Transform):
    """Turns every byte around; may fail after some chunks, or at its last flush."""

    suffix = ".neg"
    encrypts = False

    def __init__(self, fail_after: int | None = None, fail_at_end: bool = False) -> None:
        self._fail_after, self._fail_at_end = fail_after, fail_at_end

    def apply(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        for number, chunk in enumerate(chunks):
            if number == self._fail_after:
                raise TransformError("broken on command")
            yield chunk.translate(_TURNED)
        if self._fail_at_end:
            raise TransformError("broken on command")

    def invert(self, chunks: Iterable[bytes], context: StageContext) -> Iterator[bytes]:
        return self.apply(chunks, context)

    @property
    def undo(self) -> str:
        return "turn"


_TURNED = bytes(range(255, -1, -1))


class FaultyStorage(Storage):
    """A storage that works until the step named by `fail`, or hangs there until it is aborted."""

    error: type[StorageError] = StorageRefused

    def __init__(self, inner: Storage, fail: str, hang: bool = False, after: int = 0) -> None:
        self.inner, self.fail, self.hang, self.after = inner, fail, hang, after
        self.hanging = threading.Event()

    def reach(self, step: str, stop: threading.Event) -> None:
        if step != self.fail:
            return
        if not self.hang:
            raise self.error(f"broken on command in {step}")
        self.hanging.set()
        stop.wait(60)
        raise Aborted

    def create(self, name: str, token: str) -> Writer:
        self.reach("create", threading.Event())
        return FaultyWriter(self, self.inner.create(name, token), name)

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        self.reach("open", threading.Event())
        return self.inner.open(name, offset)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        self.reach("list", threading.Event())
        return self.inner.list(prefix)

    def delete(self, names: Sequence[str]) -> None:
        self.reach("delete", threading.Event())
        self.inner.delete(names)

    def unfinished(self, prefix: str) -> Sequence[str]:
        self.reach("unfinished", threading.Event())
        return self.inner.unfinished(prefix)

    def sweep(self, names: Sequence[str]) -> None:
        self.inner.sweep(names)

    def probe(self) -> Sequence[str]:
        return self.inner.probe()


class FaultyWriter(Writer):
    def __init__(self, storage: FaultyStorage, inner: Writer, name: str) -> None:
        self._storage, self._inner = storage, inner
        self._kind = "manifest " if name.endswith(".json") else ""
        self._stop = threading.Event()
        self._written = 0

    def write(self, chunk: bytes) -> None:
        if self._written >= self._storage.after:
            self._storage.reach(self._kind + "write", self._stop)
        self._inner.write(chunk)
        self._written += len(chunk)

    def flush(self) -> None:
        self._storage.reach(self._kind + "flush", self._stop)
        self._inner.flush()

    def commit(self) -> None:
        self._storage.reach(self._kind + "commit", self._stop)
        self._inner.commit()

    def abort(self) -> None:
        self._stop.set()
        self._inner.abort()


class NullStorage(Storage):
    """Takes everything, keeps nothing: what is measured is the engine."""

    def create(self, name: str, token: str) -> Writer:
        return _NullWriter()

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        return iter(())

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        return []

    def delete(self, names: Sequence[str]) -> None: ...

    def unfinished(self, prefix: str) -> Sequence[str]:
        return []

    def sweep(self, names: Sequence[str]) -> None: ...

    def probe(self) -> Sequence[str]:
        return []


class _NullWriter(Writer):
    def write(self, chunk: bytes) -> None: ...

    def flush(self) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...


def branch(
    storage: Storage,
    name: str = "nas",
    required: bool = True,
    stages: Sequence[Transform] = (),
    rotate: RetentionPolicy | None = None,
) -> BranchPlan:
    nodes = tuple(StageNode("fake", stage) for stage in stages)
    return BranchPlan(name, storage, nodes, rotate, required)


def plan(
    source: Source,
    branches: Sequence[BranchPlan],
    stages: Sequence[Transform] = (),
    stall_timeout: float = 60.0,
    buffer: int = 8 * CHUNK,
) -> Plan:
    return Plan(
        backup="shop",
        source_type="fake",
        source=source,
        stages=tuple(StageNode("fake", stage) for stage in stages),
        branches=tuple(branches),
        buffer=buffer,
        stall_timeout=stall_timeout,
        notify=(),
    )


def artifact_run(
    made: Plan, emit: Callable[[Event], None] | None = None, artifact: Artifact = ARTIFACT
) -> ArtifactRun:
    identity = RunIdentity("run1", "project", "host", TAKEN_AT, TOKEN)
    return ArtifactRun(made, artifact, identity, EventBus(*([emit] if emit else [])))


def broken_source(after: int = 3) -> FakeSource:
    return FakeSource([b"x" * CHUNK] * after, SourceError("broken on command"))
