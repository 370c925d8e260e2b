"""What every source must do: the suite that each implementation is run through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.context import StageContext
from pipeline.errors import Aborted, SourceError
from pipeline.stage import CHUNK, Artifact, Source
from tests.contracts.transform import leaving_nothing

LARGEST = 4 * CHUNK
Make = Callable[[Path, ExitStack], Source]
"""Makes a source in an empty directory; what has to be undone goes to the stack."""


@dataclass(frozen=True)
class Case:
    """A source in the situations the suite needs."""

    sound: Make
    """Yields 5 MiB or more, the same each time one is made."""
    broken: Make
    """Fails after 1 MiB or more."""
    unusable: Make
    """Can be told by `probe` to be of no use."""
    blocked: Make | None = None
    """Yields 1 MiB or more, then waits for ever; None when it never waits for anybody."""


def start(source: Source, context: StageContext) -> tuple[Artifact, Iterator[bytes]]:
    artifact = source.artifacts()[0]
    return artifact, source.stream(artifact, context)


def close(stream: Iterator[bytes]) -> None:
    stream.close()  # type: ignore[attr-defined]


def assert_well_said(error: SourceError) -> None:
    assert error.message[:1].islower() or error.message[:1] == '"'
    assert not error.message.endswith(".")
    assert "\n" not in str(error)


class SourceContract:
    """Run for each case."""

    @pytest.fixture
    def cleanup(self) -> Iterator[ExitStack]:
        with ExitStack() as stack:
            yield stack

    @pytest.fixture
    def sound(self, case: Case, tmp_path: Path, cleanup: ExitStack) -> Source:
        return case.sound(tmp_path, cleanup)

    def test_the_plan_is_never_empty_and_stays_the_same(self, sound: Source) -> None:
        plan = sound.artifacts()
        assert plan
        assert sound.artifacts() == plan
        assert len({artifact.name for artifact in plan}) == len(plan)
        for artifact in plan:
            assert artifact.name
            assert artifact.suffix == "" or artifact.suffix.startswith(".")

    def test_planning_leaves_nothing(self, sound: Source) -> None:
        with leaving_nothing():
            sound.artifacts()

    def test_chunks_are_bytes_of_a_sensible_size(self, sound: Source) -> None:
        context = StageContext()
        with leaving_nothing():
            _, stream = start(sound, context)
            chunks = list(stream)
        assert context.expected in (None, sum(map(len, chunks)))
        assert {type(chunk) for chunk in chunks} == {bytes}
        assert all(0 < len(chunk) <= LARGEST for chunk in chunks)
        total = sum(map(len, chunks))
        assert total >= 5 * CHUNK
        assert len(chunks) <= 4 + 4 * total // CHUNK

    def test_the_same_content_is_the_same_bytes(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        # The second is made in the same place: a tree must not change by being read.
        first = b"".join(start(case.sound(tmp_path, cleanup), StageContext())[1])
        again = b"".join(start(case.sound(tmp_path, cleanup), StageContext())[1])
        assert first == again

    def test_a_sound_source_skips_nothing(self, sound: Source) -> None:
        context = StageContext()
        list(start(sound, context)[1])
        assert context.findings.skipped_total == 0
        assert context.findings.skipped == context.findings.warnings == []

    def test_nothing_is_read_before_the_first_chunk_is_asked_for(self, sound: Source) -> None:
        with leaving_nothing():
            close(start(sound, StageContext())[1])

    def test_a_failure_half_way_is_never_an_end(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        source = case.broken(tmp_path, cleanup)
        with leaving_nothing():
            _, stream = start(source, StageContext())
            assert next(stream)
            with pytest.raises(SourceError) as raised:
                list(stream)
            close(stream)
        assert_well_said(raised.value)

    def test_closing_early_leaves_nothing(self, sound: Source) -> None:
        with leaving_nothing():
            _, stream = start(sound, StageContext())
            assert next(stream)
            close(stream)

    def test_an_abort_between_two_chunks_ends_it(self, sound: Source) -> None:
        context = StageContext()
        with leaving_nothing():
            _, stream = start(sound, context)
            assert next(stream)
            aborter = threading.Thread(target=context.teardown.abort)
            aborter.start()
            aborter.join()
            with pytest.raises((Aborted, SourceError)):
                list(stream)
            close(stream)

    def test_an_abort_before_the_start_ends_it(self, sound: Source) -> None:
        context = StageContext()
        context.teardown.abort()
        with leaving_nothing():
            _, stream = start(sound, context)
            with pytest.raises((Aborted, SourceError)):
                list(stream)
            close(stream)

    def test_an_abort_ends_a_blocked_stream(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        context = StageContext()
        source = (case.blocked or case.sound)(tmp_path, cleanup)
        with leaving_nothing():
            _, stream = start(source, context)
            assert next(stream)
            aborter = threading.Timer(0.2 if case.blocked else 0, context.teardown.abort)
            aborter.start()
            if not case.blocked:
                aborter.join()
            with pytest.raises((Aborted, SourceError)):
                list(stream)
            aborter.join()
            close(stream)

    def test_an_abort_after_the_end_is_harmless(self, sound: Source) -> None:
        context = StageContext()
        with leaving_nothing():
            list(start(sound, context)[1])
            context.teardown.abort()

    def test_probe_tells_facts(self, sound: Source) -> None:
        with leaving_nothing():
            facts = sound.probe()
        assert facts
        assert all(fact and "\n" not in fact for fact in facts)

    def test_probe_fails_when_a_run_would(
        self, case: Case, tmp_path: Path, cleanup: ExitStack
    ) -> None:
        source = case.unusable(tmp_path, cleanup)
        with leaving_nothing(), pytest.raises(SourceError) as raised:
            source.probe()
        assert_well_said(raised.value)

    def test_what_was_read_can_be_restored(
        self, sound: Source, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        artifact, stream = start(sound, StageContext())
        chunks = list(stream)
        target = tmp_path_factory.mktemp("target") / "new"
        with leaving_nothing():
            sound.restore(iter(chunks), artifact, target, False)
            with pytest.raises(SourceError):
                sound.restore(iter(chunks), artifact, target, False)
            sound.restore(iter(chunks), artifact, target, True)
        assert target.exists()
