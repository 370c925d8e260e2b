"""`files` on slow sources: reading ahead changes nothing but the time it takes."""

from __future__ import annotations

import errno
import os
import random
import resource
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import Aborted, SourceError
from stages.sources._files import archive
from stages.sources._files.pace import Pace
from stages.sources._files.read import Reader
from stages.sources._files.scan import Scanner
from tests import tree
from tests.archives import BLOCK, WithPlace, exactly, files, save, stream, unprivileged

pytestmark = pytest.mark.integration


class Steady(Pace):
    """Always as many readers."""

    def __init__(self, readers: int, batch: int) -> None:
        super().__init__(256)
        self.readers, self.batch = readers, batch

    def adjust(self) -> None:
        pass


class Erratic(Pace):
    """Changes its mind all the time."""

    def __init__(self, seed: int) -> None:
        super().__init__(256)
        self._random = random.Random(seed)
        self.adjust()

    def adjust(self) -> None:
        self.readers = self._random.choice([0, 0, 2, 3, 17, 64])
        self.batch = self._random.choice([1, 2, 7, 100])


def pace(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Pace]) -> None:
    monkeypatch.setattr(archive, "Pace", lambda _: make())


def delay(monkeypatch: pytest.MonkeyPatch, seconds: float, seed: int = 1) -> None:
    """Let every file and directory take a time of its own."""
    rng = random.Random(seed)
    read, enter = Reader._regular, Scanner.enter

    def slow_read(*arguments: Any) -> Any:
        time.sleep(rng.random() * seconds)
        return read(*arguments)

    def slow_enter(*arguments: Any) -> Any:
        time.sleep(rng.random() * seconds)
        return enter(*arguments)

    monkeypatch.setattr(Reader, "_regular", slow_read)
    monkeypatch.setattr(Scanner, "enter", slow_enter)


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def settled(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within some seconds."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


class TestOrder(WithPlace):
    @pytest.fixture
    def root(self, place: Path) -> Path:
        root = place / "tree"
        tree.build(root)
        for name in ("a/b/c", "a/b/d", "e/f"):
            tree.mixed(root / name, 30)
            for number in range(3):
                (root / name / f"big{number}").write_bytes(BLOCK * (number + 1) + b"x")
        (root / "deep").mkdir()
        deep = root / "deep"
        for _ in range(80):
            deep = deep / "d"
            deep.mkdir()
            (deep / "file").write_bytes(b"deep")
        return root

    def read(self, root: Path) -> tuple[bytes, StageContext]:
        context = StageContext()
        return b"".join(stream(files(root), context)), context

    @pytest.mark.parametrize("readers", [2, 5, 64])
    def test_the_archive_does_not_depend_on_how_many_read(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, readers: int
    ) -> None:
        pace(monkeypatch, lambda: Steady(0, 100))
        alone, first = self.read(root)
        pace(monkeypatch, lambda: Steady(readers, 3))
        delay(monkeypatch, 0.004)
        before = descriptors()
        together, second = self.read(root)
        assert together == alone
        assert second.findings == first.findings
        assert descriptors() == before
        assert not threads() & {"read", "scan"}

    @pytest.mark.parametrize("seed", range(6))
    def test_it_does_not_depend_on_when_that_changes(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, seed: int
    ) -> None:
        pace(monkeypatch, lambda: Steady(0, 100))
        alone, first = self.read(root)
        pace(monkeypatch, lambda: Erratic(seed))
        delay(monkeypatch, 0.001, seed)
        together, second = self.read(root)
        assert together == alone
        assert second.findings == first.findings

    def test_what_is_read_together_comes_back_exactly(
        self, root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pace(monkeypatch, lambda: Steady(16, 4))
        exactly(save(files(root), place / "archive.tar"), place / "back")
        assert tree.differences(root, place / "back/tree") == []

    def test_hard_links_of_one_moment_are_archived_once(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = place / "tree"
        root.mkdir()
        for number in range(40):
            (root / f"a{number:02d}").write_bytes(b"%d" % number)
            for copy in "bcd":
                os.link(root / f"a{number:02d}", root / f"{copy}{number:02d}")
        for readers in (0, 64):
            pace(monkeypatch, lambda readers=readers: Steady(readers, 2))  # type: ignore[misc]
            _, context = self.read(root)
            assert context.findings.counts["files"] == 40
            assert context.findings.counts["hard_links"] == 120


class TestSlowSource(WithPlace):
    def test_a_slow_source_is_read_by_many(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tree.mixed(place / "tree", 400)
        seen: set[int] = set()
        delay(monkeypatch, 0.02)
        slow = Reader._regular

        def watched(*arguments: Any) -> Any:
            seen.add(threading.get_ident())
            return slow(*arguments)

        monkeypatch.setattr(Reader, "_regular", watched)
        list(stream(files(place / "tree")))
        assert len(seen) > 8

    def test_one_reader_reads_alone(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tree.mixed(place / "tree", 100)
        delay(monkeypatch, 0.004)
        started: list[str] = []
        start = threading.Thread.start
        monkeypatch.setattr(
            threading.Thread, "start", lambda self: (started.append(self.name), start(self))
        )
        list(stream(files(place / "tree", readers=1)))
        assert started == []


class TestBounds(WithPlace):
    def test_few_files_are_open_at_once(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = place / "tree"
        for number in range(300):
            (root / f"d{number}").mkdir(parents=True)
            (root / f"d{number}" / "big").write_bytes(BLOCK)
        pace(monkeypatch, lambda: Steady(256, 8))
        before = most = len(descriptors())
        for _ in stream(files(root)):
            most = max(most, len(descriptors()))
        # Of the walk, scanned ahead, of the window, being read, and waiting for the writer.
        assert most - before <= 64 + 128 + 256 + 256 + 64

    def test_too_few_descriptors_only_make_it_slower(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = place / "tree"
        for number in range(150):
            (root / f"d{number}").mkdir(parents=True)
            (root / f"d{number}" / "big").write_bytes(BLOCK)
            (root / f"d{number}" / "small").write_bytes(b"x")
        pace(monkeypatch, lambda: Steady(0, 100))
        alone = b"".join(stream(files(root)))
        delay(monkeypatch, 0.002)

        pace(monkeypatch, lambda: Steady(200, 4))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        context = StageContext()
        chunks = stream(files(root), context)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(descriptors()) + 120, hard))
        try:
            together = b"".join(chunks)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert context.findings.skipped == []
        assert together == alone

    def test_memory_is_bounded_while_many_read(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = place / "tree"
        root.mkdir()
        for number in range(250):
            (root / f"{number}").write_bytes(BLOCK[:900_000])
        pace(monkeypatch, lambda: Steady(256, 8))
        tracemalloc.start()
        try:
            for _ in stream(files(root)):
                time.sleep(0.001)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < files(root).memory

    @pytest.mark.parametrize("readers", [0, 8])
    def test_nothing_is_kept_of_what_was_visited(
        self, place: Path, monkeypatch: pytest.MonkeyPatch, readers: int
    ) -> None:
        for number in range(2000):
            directory = place / f"tree/{number // 100}/{number}"
            directory.mkdir(parents=True)
            (directory / "file").touch()
        pace(monkeypatch, lambda: Steady(readers, 8))
        chunks = stream(files(place / "tree"))
        next(chunks)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            kept = [tracemalloc.get_traced_memory()[0] - before - len(chunk) for chunk in chunks]
        finally:
            tracemalloc.stop()
        # Twenty bytes for each of the 4,000 items would show.
        assert kept[-1] < 80_000


class TestEnds(WithPlace):
    @pytest.fixture
    def root(self, place: Path) -> Path:
        tree.mixed(place / "tree", 600)
        for number in range(70):
            (place / "tree" / f"big{number}").write_bytes(BLOCK * 2)
        return place / "tree"

    def test_a_stopped_reader_leaves_nothing_open(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pace(monkeypatch, lambda: Steady(64, 4))
        before = descriptors()
        for chunks_read in (1, 20, 140):
            chunks = stream(files(root))
            for _ in range(chunks_read):
                next(chunks)
            chunks.close()  # type: ignore[attr-defined]
            assert settled(lambda: descriptors() == before)
            assert not threads() & {"read", "scan"}

    def test_an_error_leaves_nothing_open(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pace(monkeypatch, lambda: Steady(64, 4))
        regular = Reader._regular

        def failing(self: Reader, directory: int, name: bytes, *rest: Any) -> Any:
            if name == b"file000450.dat":
                raise OSError(errno.EIO, "Input/output error")
            return regular(self, directory, name, *rest)

        monkeypatch.setattr(Reader, "_regular", failing)
        before = descriptors()
        with pytest.raises(SourceError, match=r"file000450\.dat\": input/output error"):
            list(stream(files(root, on_unreadable="fail")))
        assert settled(lambda: descriptors() == before)

    @pytest.mark.parametrize("where", ["file", "directory", "piece"])
    def test_a_thread_that_hangs_is_left_behind(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        pace(monkeypatch, lambda: Steady(64, 4))
        hanging, released = threading.Event(), threading.Event()

        def hang() -> None:
            if threading.current_thread().name in ("read", "scan"):
                hanging.set()
                released.wait(60)

        owner, name = {
            "file": (Reader, "_regular"),
            "directory": (Scanner, "enter"),
            "piece": (os, "pread"),
        }[where]
        original = getattr(owner, name)

        def slow(*arguments: Any) -> Any:
            hang()
            return original(*arguments)

        before = descriptors()
        monkeypatch.setattr(owner, name, slow)
        context = StageContext()
        ended: list[BaseException] = []

        def run() -> None:
            try:
                for _ in stream(files(root), context):
                    pass
            except BaseException as error:
                ended.append(error)

        writer = threading.Thread(target=run)
        writer.start()
        assert hanging.wait(20)
        context.teardown.abort()
        writer.join(20)
        assert not writer.is_alive()
        assert [type(error) for error in ended] == [Aborted]
        released.set()
        # What they had open is closed when they come back.
        assert settled(lambda: descriptors() == before)
        assert settled(lambda: not threads() & {"read", "scan"})


class TestAccessTimes(WithPlace):
    def test_a_refusal_is_remembered_for_its_owner(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if os.geteuid():
            pytest.skip("needs files of several owners")
        root = place / "tree"
        root.mkdir()
        for number in range(60):
            (root / f"{number:02d}").write_bytes(b"x")
            os.chown(root / f"{number:02d}", 4242 if number < 30 else 65534, -1)
            (root / f"{number:02d}").chmod(0o644)
            os.utime(root / f"{number:02d}", ns=(5, 10))
        source = files(root)
        opens: list[bytes] = []
        original = os.open

        def counted(path: Any, *arguments: Any, **options: Any) -> int:
            opens.append(path)
            return original(path, *arguments, **options)

        monkeypatch.setattr(os, "open", counted)
        with unprivileged():
            list(stream(source))
        monkeypatch.undo()
        # Twice only where the owner changes; and what is ours keeps its time.
        assert sum(len(path) == 2 for path in opens) == 61
        assert {(root / f"{number:02d}").stat().st_atime_ns for number in range(31, 60)} == {5}
