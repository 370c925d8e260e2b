"""The engine on one artifact: what is visible afterwards, whatever went wrong.

The same faults on real storages are in tests/contracts/test_runs.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from hashlib import sha256

import anyio
import pytest

from pipeline.channel import Channel
from pipeline.context import StageContext
from pipeline.engine import ArtifactRun
from pipeline.errors import SourceError
from pipeline.events import Event, Progressed
from pipeline.report import ArtifactReport, Outcome
from pipeline.stage import CHUNK, Artifact
from schemas.storages import MemoryStorage
from stages.storages import memory
from tests.fakes import (
    FakeSource,
    FakeTransform,
    FaultyStorage,
    NullStorage,
    artifact_run,
    branch,
    broken_source,
    plan,
)

pytestmark = pytest.mark.anyio

OBJECT = "shop/crm/crm_2026-11-23T03-15-00Z.sql"
DATA = [bytes([number]) * CHUNK for number in range(20)]


@pytest.fixture
def storage() -> Iterator[memory.Memory]:
    memory.clear()
    yield memory.Memory(MemoryStorage(type="memory", path="nas"))
    memory.clear()


@pytest.fixture
def other() -> memory.Memory:
    return memory.Memory(MemoryStorage(type="memory", path="other"))


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while left := {t for t in threading.enumerate() if t not in before and "Trio" not in t.name}:
        assert time.monotonic() < deadline, left
        time.sleep(0.005)


def objects(storage: memory.Memory) -> dict[str, bytes]:
    return {info.name: b"".join(storage.open(info.name)) for info in storage.list("")}


def is_untouched(storage: memory.Memory) -> bool:
    return not storage.list("") and not storage.unfinished("")


async def finish(run: ArtifactRun) -> ArtifactReport:
    with anyio.fail_after(30):
        await run.run()
    return run.report()


async def test_every_branch_gets_the_same_object_and_a_true_manifest(
    storage: memory.Memory, other: memory.Memory
) -> None:
    made = plan(FakeSource(DATA), [branch(storage), branch(other, "offsite")], [FakeTransform()])
    report = await finish(artifact_run(made))
    assert report.outcome is Outcome.OK
    for place in (storage, other):
        found = objects(place)
        stored = found[OBJECT + ".neg"]
        document = json.loads(found[OBJECT + ".neg.manifest.json"])
        assert stored == b"".join(FakeTransform().apply(DATA, StageContext()))
        assert document["stored_sha256"] == sha256(stored).hexdigest()
        assert document["stored_size"] == document["plain_size"] == len(stored)
        assert document["plain_sha256"] == sha256(b"".join(DATA)).hexdigest()
        assert document["restore"] == "turn < crm_2026-11-23T03-15-00Z.sql.neg"
        assert len(found) == 2


async def test_a_branch_with_stages_of_its_own_has_a_digest_of_its_own(
    storage: memory.Memory, other: memory.Memory
) -> None:
    branches = [branch(storage), branch(other, "offsite", stages=[FakeTransform()])]
    report = await finish(artifact_run(plan(FakeSource(DATA), branches)))
    assert report.outcome is Outcome.OK
    plain = objects(storage)
    turned = objects(other)
    assert set(plain) == {OBJECT, OBJECT + ".manifest.json"}
    document = json.loads(turned[OBJECT + ".neg.manifest.json"])
    assert document["stored_sha256"] == sha256(turned[OBJECT + ".neg"]).hexdigest()


async def test_the_plain_digest_is_not_published_beside_an_encrypted_object(
    storage: memory.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTransform, "encrypts", True)
    await finish(artifact_run(plan(FakeSource(DATA), [branch(storage)], [FakeTransform()])))
    assert "plain_sha256" not in json.loads(objects(storage)[OBJECT + ".neg.manifest.json"])


async def test_a_source_that_dies_half_way_leaves_nothing(
    storage: memory.Memory, other: memory.Memory
) -> None:
    made = plan(broken_source(), [branch(storage), branch(other, "offsite")])
    report = await finish(artifact_run(made))
    assert report.outcome is Outcome.FAILED
    assert report.error == "source fake: broken on command"
    assert [entry.error for entry in report.branches] == [None, None]
    assert is_untouched(storage)
    assert is_untouched(other)


@pytest.mark.parametrize(
    "transform",
    [FakeTransform(fail_after=0), FakeTransform(fail_after=7), FakeTransform(fail_at_end=True)],
    ids=["first chunk", "later", "last flush"],
)
async def test_a_transform_that_raises_leaves_nothing(
    storage: memory.Memory, transform: FakeTransform
) -> None:
    report = await finish(artifact_run(plan(FakeSource(DATA), [branch(storage)], [transform])))
    assert report.outcome is Outcome.FAILED
    assert report.error == "stage fake: broken on command"
    assert is_untouched(storage)


async def test_a_transform_of_one_branch_that_raises_costs_only_that_branch(
    storage: memory.Memory, other: memory.Memory
) -> None:
    bad = branch(other, "offsite", required=False, stages=[FakeTransform(fail_at_end=True)])
    report = await finish(artifact_run(plan(FakeSource(DATA), [branch(storage), bad])))
    assert report.outcome is Outcome.PARTIAL
    assert len(objects(storage)) == 2
    assert is_untouched(other)


STEPS = [
    "create",
    "write",
    "flush",
    "commit",
    "manifest write",
    "manifest flush",
    "manifest commit",
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("required", [True, False])
async def test_one_branch_failing_leaves_the_other_complete(
    storage: memory.Memory, other: memory.Memory, step: str, required: bool
) -> None:
    bad = branch(FaultyStorage(other, step), "offsite", required)
    report = await finish(artifact_run(plan(FakeSource(DATA), [branch(storage), bad])))
    assert report.outcome is (Outcome.FAILED if required else Outcome.PARTIAL)
    assert [entry.outcome for entry in report.branches] == [Outcome.OK, Outcome.FAILED]
    assert f"broken on command in {step}" in str(report.branches[1].error)
    assert len(objects(storage)) == 2
    assert is_untouched(other)


async def test_when_all_optional_branches_fail_the_artifact_has_failed(
    storage: memory.Memory, other: memory.Memory
) -> None:
    bad = [
        branch(FaultyStorage(storage, "write"), "nas", required=False),
        branch(FaultyStorage(other, "create"), "offsite", required=False),
    ]
    report = await finish(artifact_run(plan(FakeSource(DATA * 3), bad)))
    assert report.outcome is Outcome.FAILED
    assert all(entry.error for entry in report.branches)


@pytest.mark.parametrize("step", ["create", "write", "flush", "commit"])
async def test_a_branch_that_hangs_is_cut_off_after_the_stall_timeout(
    storage: memory.Memory, other: memory.Memory, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.segment.GRACE", 0.2)
    hanging = FaultyStorage(other, step, hang=True)
    if step == "create":
        monkeypatch.setattr(hanging, "reach", lambda _step, _stop: time.sleep(2))
    bad = branch(hanging, "offsite", required=False)
    made = plan(FakeSource(DATA), [branch(storage), bad], stall_timeout=0.3)
    report = await finish(artifact_run(made))
    assert report.outcome is Outcome.PARTIAL
    assert report.branches[1].error == "no progress for 0.3 s; see `stall_timeout`"
    assert len(objects(storage)) == 2
    assert not other.list("")


@pytest.mark.parametrize("where", ["storage", "source"])
async def test_a_thread_that_cannot_be_woken_does_not_hold_up_a_failed_run(
    storage: memory.Memory, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stuck in a system call, as on a dead mount: it is left behind, and the failure is told."""
    monkeypatch.setattr("pipeline.segment.GRACE", 0.2)
    monkeypatch.setattr("pipeline.engine.GRACE", 0.2)
    stuck = threading.Event()

    def never_wakes(*_: object) -> None:
        stuck.wait(3)

    faulty = FaultyStorage(storage, "")
    source = broken_source(3)
    if where == "storage":
        monkeypatch.setattr(faulty, "reach", never_wakes)
    else:

        def stream(*_: object) -> Iterator[bytes]:
            yield b"data"
            never_wakes()

        monkeypatch.setattr(source, "stream", stream)
    transform = FakeTransform(fail_after=0) if where == "source" else FakeTransform()
    started = time.monotonic()
    report = await finish(artifact_run(plan(source, [branch(faulty)], [transform])))
    assert time.monotonic() - started < 2.5, "it waited for the thread"
    stuck.set()
    assert report.outcome is Outcome.FAILED
    assert "broken on command" in str(report.error)


async def test_a_branch_that_failed_gives_its_place_back_at_once(
    storage: memory.Memory, other: memory.Memory
) -> None:
    """A disk that ran full must not stay full until the other storages are done."""
    left: list[int] = []

    def watched() -> Iterator[bytes]:
        yield from DATA
        time.sleep(0.3)
        left.append(len(other.unfinished("")))
        yield b"the end"

    full = branch(FaultyStorage(other, "write", after=3 * CHUNK), "full", required=False)
    report = await finish(artifact_run(plan(FakeSource(watched()), [branch(storage), full])))
    assert report.outcome is Outcome.PARTIAL
    assert left == [0]


async def test_a_writer_whose_abort_raises_costs_only_its_own_branch(
    storage: memory.Memory, other: memory.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = FaultyStorage(other, "commit")

    def raises(_: object) -> None:
        raise ZeroDivisionError("against its contract")

    monkeypatch.setattr("tests.fakes.FaultyWriter.abort", raises)
    branches = [branch(faulty, "bad", required=False), branch(storage)]
    report = await finish(artifact_run(plan(FakeSource(DATA), branches)))
    assert report.outcome is Outcome.PARTIAL
    assert len(objects(storage)) == 2


async def test_a_channel_nobody_reads_any_more_keeps_no_memory() -> None:
    channel = Channel(64 * CHUNK)
    for _ in range(32):
        channel.send(bytes(CHUNK))
    channel.abort()
    assert channel._data.qsize() == 1  # only the word that it is over


async def test_a_slow_source_is_not_taken_for_a_stalled_storage(storage: memory.Memory) -> None:
    def slowly() -> Iterator[bytes]:
        for chunk in DATA[:3]:
            time.sleep(0.4)
            yield chunk

    made = plan(FakeSource(slowly()), [branch(storage)], stall_timeout=0.25)
    report = await finish(artifact_run(made))
    assert report.outcome is Outcome.OK


async def test_nothing_read_is_a_failure(storage: memory.Memory) -> None:
    report = await finish(artifact_run(plan(FakeSource([]), [branch(storage)])))
    assert report.outcome is Outcome.FAILED
    assert (
        report.error
        == 'source fake: "crm" gave nothing; an empty dump is no backup; see `min_size`'
    )
    assert is_untouched(storage)


async def test_less_than_min_size_is_a_failure(storage: memory.Memory) -> None:
    run = artifact_run(
        plan(FakeSource([b"123"]), [branch(storage)]), artifact=Artifact("crm", ".sql", min_size=4)
    )
    report = await finish(run)
    assert report.outcome is Outcome.FAILED
    assert "only 3 bytes" in str(report.error)


async def test_skipped_items_make_it_partial_and_are_named_in_the_manifest(
    storage: memory.Memory,
) -> None:
    report = await finish(artifact_run(plan(FakeSource(DATA, skipped=2), [branch(storage)])))
    assert report.outcome is Outcome.PARTIAL
    assert report.skipped_total == 2
    document = json.loads(objects(storage)[OBJECT + ".manifest.json"])
    assert document["skipped"] == [
        "/file0: permission denied",
        "/file1: permission denied",
    ]


async def test_cancelling_while_the_source_blocks_leaves_nothing(storage: memory.Memory) -> None:
    source = FakeSource(DATA, block=True)
    run = artifact_run(plan(source, [branch(storage)]))
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        while not source.blocked.is_set():
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert run.report().outcome is Outcome.INTERRUPTED
    assert is_untouched(storage)


@pytest.mark.parametrize("step", ["write", "flush"])
async def test_cancelling_while_a_storage_hangs_leaves_nothing(
    storage: memory.Memory, step: str
) -> None:
    hanging = FaultyStorage(storage, step, hang=True)
    run = artifact_run(plan(FakeSource(DATA), [branch(hanging)]))
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        while not hanging.hanging.is_set():
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert is_untouched(storage)


async def test_a_deadline_around_the_run_is_respected(storage: memory.Memory) -> None:
    run = artifact_run(plan(FakeSource(DATA, block=True), [branch(storage)]))
    with anyio.move_on_after(0.2) as scope:
        await run.run()
    assert scope.cancelled_caught
    assert is_untouched(storage)


async def test_the_source_never_runs_ahead_of_the_slowest_branch_by_more_than_the_buffer() -> None:
    produced = 0
    hanging = FaultyStorage(NullStorage(), "write", hang=True)

    def count() -> Iterator[bytes]:
        nonlocal produced
        while True:
            produced += CHUNK
            yield bytes(CHUNK)

    run = artifact_run(plan(FakeSource(count()), [branch(hanging)], buffer=4 * CHUNK))
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        await anyio.sleep(0.5)
        group.cancel_scope.cancel()
    # 4 MiB trunk, 4 MiB buffer, and a chunk in the hands of each side.
    assert 8 * CHUNK <= produced <= 12 * CHUNK


async def test_an_unexpected_error_of_a_stage_is_named_not_swallowed(
    storage: memory.Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Iterator[bytes]:
        yield b"x"
        raise ZeroDivisionError("oops")

    source = FakeSource()
    monkeypatch.setattr(source, "stream", broken)
    report = await finish(artifact_run(plan(source, [branch(storage)])))
    assert report.outcome is Outcome.FAILED
    assert report.error == "source fake: ZeroDivisionError: oops"
    assert is_untouched(storage)


async def test_progress_names_the_stage_everything_waits_for() -> None:
    seen: list[Event] = []
    hanging = FaultyStorage(NullStorage(), "write", hang=True)
    run = artifact_run(plan(FakeSource(DATA * 2), [branch(hanging, "offsite")]), seen.append)
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        with anyio.fail_after(10):
            while not any(isinstance(event, Progressed) for event in seen):
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    progress = next(event for event in seen if isinstance(event, Progressed))
    assert progress.bottleneck == "offsite"


async def test_progress_tells_what_is_expected_and_how_full_each_channel_is() -> None:
    seen: list[Event] = []
    source = FakeSource(DATA * 2, block=True, expected=sum(map(len, DATA)) * 2)
    hanging = FaultyStorage(NullStorage(), "write", hang=True)
    made = plan(source, [branch(hanging, "offsite")], [FakeTransform()])
    run = artifact_run(made, seen.append)
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        with anyio.fail_after(10):
            while not any(e.stages[2].fill for e in seen if isinstance(e, Progressed)):
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    *_, last = (event for event in seen if isinstance(event, Progressed))
    assert last.total == sum(map(len, DATA)) * 2
    assert [stage.kind for stage in last.stages] == ["source", "transform", "storage"]
    first, transform, storage = (stage.fill for stage in last.stages)
    assert first is None
    assert transform is not None
    assert storage is not None
    assert storage > 0


async def test_two_hundred_failures_at_random_moments_never_commit(
    storage: memory.Memory,
) -> None:
    for number in range(200):
        made = plan(broken_source(number % 12), [branch(storage)], [FakeTransform()])
        await partial(artifact_run(made).run)()
    assert is_untouched(storage)


class TestRelease:
    """What an artifact was read from may go when it is safe, and only then."""

    async def test_an_artifact_that_is_stored(self, storage: memory.Memory) -> None:
        source = FakeSource(DATA)
        await finish(artifact_run(plan(source, [branch(storage)])))
        assert [artifact.name for artifact in source.released] == ["crm"]

    async def test_an_artifact_that_is_where_it_has_to_be(
        self, storage: memory.Memory, other: memory.Memory
    ) -> None:
        source = FakeSource(DATA)
        bad = FaultyStorage(other, "commit")
        made = plan(source, [branch(storage), branch(bad, "offsite", required=False)])
        report = await finish(artifact_run(made))
        assert report.outcome is Outcome.PARTIAL
        assert len(source.released) == 1

    @pytest.mark.parametrize("step", ["write", "commit", "manifest commit"])
    async def test_an_artifact_that_is_not_stored_stays(
        self, storage: memory.Memory, other: memory.Memory, step: str
    ) -> None:
        source = FakeSource(DATA)
        made = plan(source, [branch(FaultyStorage(storage, step)), branch(other, "offsite")])
        assert (await finish(artifact_run(made))).outcome is Outcome.FAILED
        assert source.released == []

    async def test_an_artifact_that_failed_stays(self, storage: memory.Memory) -> None:
        source = broken_source()
        await finish(artifact_run(plan(source, [branch(storage)])))
        assert source.released == []

    async def test_what_cannot_go_is_a_warning(self, storage: memory.Memory) -> None:
        class Clinging(FakeSource):
            def release(self, artifact: Artifact) -> None:
                raise SourceError("it is still there")

        report = await finish(artifact_run(plan(Clinging(DATA), [branch(storage)])))
        assert report.outcome is Outcome.OK
        assert report.warnings == ["it is still there"]
