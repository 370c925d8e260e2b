"""What each stage of an artifact did and waited for, as the engine counts it."""

from __future__ import annotations

import threading
import time

import anyio
import pytest

from pipeline.channel import Channel, Trailer
from pipeline.report import ArtifactReport, Outcome, StageReport
from pipeline.stage import CHUNK, Transform
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

OK, FAILED, STOPPED = Outcome.OK, Outcome.FAILED, Outcome.INTERRUPTED
PAUSE = 0.2
"""Seconds that one side keeps the other waiting; it can only become longer."""


class TestChannel:
    def test_a_producer_that_waits_for_room_is_counted(self) -> None:
        channel = Channel(CHUNK)

        def produce() -> None:
            for _ in range(3):
                channel.send(bytes(CHUNK))
            channel.finish(Trailer(3 * CHUNK))

        thread = threading.Thread(target=produce)
        thread.start()
        time.sleep(PAUSE)
        assert sum(map(len, channel)) == 3 * CHUNK
        thread.join()
        assert channel.full_seconds > PAUSE / 2

    def test_a_consumer_that_waits_for_something_is_counted(self) -> None:
        channel = Channel(8 * CHUNK)
        thread = threading.Thread(target=lambda: list(channel))
        thread.start()
        time.sleep(PAUSE)
        channel.send(bytes(CHUNK))
        channel.finish(Trailer(CHUNK))
        thread.join()
        assert channel.empty_seconds > PAUSE / 2
        assert channel.full_seconds == 0

    def test_an_abort_ends_the_counting(self) -> None:
        channel = Channel(CHUNK)
        channel.send(bytes(CHUNK))
        threading.Timer(PAUSE, channel.abort).start()
        with pytest.raises(Exception, match="stopped"):
            channel.send(bytes(CHUNK))
        assert channel.full_seconds > PAUSE / 2


class Slow(Transform):
    """Looks at its input after a pause."""

    changes_bytes = False
    undo = ""

    def apply(self, chunks, context):  # type: ignore[no-untyped-def]
        for chunk in chunks:
            time.sleep(PAUSE / 4)
            yield chunk

    invert = apply


def run(*args: object, **options: object) -> ArtifactReport:
    made = artifact_run(plan(*args, **options))  # type: ignore[arg-type]
    anyio.run(made.run)
    return made.report()


def stages(report: ArtifactReport) -> dict[str, StageReport]:
    return {f"{stage.kind} {stage.storage or ''}".strip(): stage for stage in report.stages}


def outcomes(report: ArtifactReport) -> list[Outcome]:
    return [stage.outcome for stage in report.stages]


def test_the_bytes_of_every_stage_are_counted_in_the_order_of_the_stream() -> None:
    source = FakeSource([bytes(CHUNK)] * 3)
    report = run(
        source,
        [branch(NullStorage(), stages=[FakeTransform()]), branch(NullStorage(), "offsite")],
        [FakeTransform()],
    )
    assert [(stage.kind, stage.storage, stage.bytes) for stage in report.stages] == [
        ("source", None, 3 * CHUNK),
        ("transform", None, 3 * CHUNK),
        ("transform", "nas", 3 * CHUNK),
        ("storage", "nas", 3 * CHUNK),
        ("storage", "offsite", 3 * CHUNK),
    ]
    assert set(outcomes(report)) == {OK}
    assert all(0 < stage.seconds <= report.seconds for stage in report.stages)


def test_the_others_wait_for_the_slow_branch_and_it_is_named() -> None:
    """Eight chunks of which one fits: the rest has to wait."""
    slow = branch(NullStorage(), stages=[Slow()])
    quick = branch(NullStorage(), "offsite")
    source = FakeSource([bytes(CHUNK)] * 12)
    report = run(source, [slow, quick], [FakeTransform()], buffer=CHUNK)
    found = stages(report)
    nas, offsite = report.branches
    assert nas.held_up > PAUSE
    assert offsite.held_up < nas.held_up / 2
    assert found["transform"].waited_for_output == pytest.approx(nas.held_up + offsite.held_up)
    assert found["source"].waited_for_output > PAUSE / 2
    assert found["storage offsite"].waited_for_input > PAUSE / 2


def test_all_wait_for_a_slow_source() -> None:
    def chunks() -> object:
        for _ in range(4):
            time.sleep(PAUSE / 4)
            yield bytes(CHUNK)

    report = run(FakeSource(chunks()), [branch(NullStorage())], [FakeTransform()])  # type: ignore[arg-type]
    found = stages(report)
    assert found["transform"].waited_for_input > PAUSE / 2
    assert found["storage nas"].waited_for_input > PAUSE / 2
    assert report.branches[0].held_up == 0


class TestWhoFailed:
    """Of all the stages that end, the one whose fault it is."""

    def storage(self) -> memory.Memory:
        memory.clear()
        return memory.Memory(MemoryStorage(type="memory", path="figures"))

    def test_a_source(self) -> None:
        report = run(broken_source(), [branch(NullStorage())], [FakeTransform()])
        assert outcomes(report) == [FAILED, STOPPED, STOPPED]

    def test_a_transform(self) -> None:
        bad = [FakeTransform(), FakeTransform(fail_after=1), FakeTransform()]
        report = run(FakeSource([bytes(CHUNK)] * 40), [branch(NullStorage())], bad)
        assert outcomes(report) == [STOPPED, STOPPED, FAILED, STOPPED, STOPPED]

    def test_a_transform_of_a_branch(self) -> None:
        bad = branch(NullStorage(), stages=[FakeTransform(fail_after=1), FakeTransform()])
        report = run(FakeSource([bytes(CHUNK)] * 3), [bad, branch(NullStorage(), "offsite")])
        assert outcomes(report) == [OK, FAILED, STOPPED, STOPPED, OK]
        assert report.branches[0].error == "stage fake: broken on command"

    @pytest.mark.parametrize("step", ["create", "write", "flush", "commit", "manifest commit"])
    def test_a_storage(self, step: str) -> None:
        bad = branch(FaultyStorage(self.storage(), step))
        report = run(FakeSource([bytes(CHUNK)] * 3), [bad, branch(NullStorage(), "offsite")])
        assert outcomes(report) == [OK, FAILED, OK]

    def test_a_storage_that_hangs(self) -> None:
        bad = branch(FaultyStorage(self.storage(), "write", hang=True))
        source = FakeSource([bytes(CHUNK)] * 3)
        made = [bad, branch(NullStorage(), "offsite")]
        assert outcomes(run(source, made, stall_timeout=0.5)) == [OK, FAILED, OK]
