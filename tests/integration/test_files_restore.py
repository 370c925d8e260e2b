"""`files` there and back: real trees and real GNU tar."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from schemas.sources import FilesSource
from stages.sources._files.archive import Archive
from tests import tree
from tests.archives import (
    BLOCK,
    EXTRACTORS,
    Extract,
    WithPlace,
    files,
    gnu_tar,
    pieces,
    restore,
    save,
    stream,
    unprivileged,
)

pytestmark = pytest.mark.integration


class TestRoundTrip(WithPlace):
    @pytest.mark.parametrize("extract", EXTRACTORS)
    def test_the_worst_tree_comes_back_exactly(self, place: Path, extract: Extract) -> None:
        tree.build(place / "tree")
        context = StageContext()
        archive = save(files(place / "tree"), place / "archive.tar", context)
        extract(archive, place / "back")
        assert tree.differences(place / "tree", place / "back" / "tree") == []
        assert context.findings.skipped == context.findings.warnings == []

    def test_the_extract_command_of_the_artifact_restores_everything(self, place: Path) -> None:
        tree.build(place / "tree")
        source = files(place / "tree")
        archive = save(source, place / "archive.tar")
        (place / "back").mkdir()
        with open(archive, "rb") as file:
            command = source.artifacts()[0].extract
            subprocess.run(
                command, shell=True, check=True, stdin=file, cwd=place / "back", stderr=-1
            )
        assert tree.differences(place / "tree", place / "back" / "tree") == []

    def test_it_comes_back_for_a_user_without_rights(self, place: Path) -> None:
        (place / "home").mkdir()
        (place / "home").chmod(0o777)
        with unprivileged():
            tree.build(place / "home" / "tree")
            (place / "home/tree/owners/0000").chmod(0o400)
            context = StageContext()
            archive = save(files(place / "home/tree"), place / "home/archive.tar", context)
            assert context.findings.skipped == []
            # What has the set-id bits loses them: the file now belongs to whoever restored it.
            for path in (place / "home/tree/owners").iterdir():
                path.chmod(path.stat().st_mode & 0o1777)
            restore(archive, place / "home/back")
            assert tree.differences(place / "home/tree", place / "home/back/tree") == []

    def test_the_standard_library_lists_the_archive(self, place: Path) -> None:
        tree.build(place / "tree")
        archive = save(files(place / "tree"), place / "archive.tar")
        with tarfile.open(archive) as listed:
            names = {os.fsencode(member.name) for member in listed}
        expected = {b"tree" + name[1:] for name in tree.snapshot(place / "tree")}
        assert names == expected

    def test_what_it_holds_is_counted(self, place: Path) -> None:
        (place / "tree" / "sub").mkdir(parents=True)
        (place / "tree" / "a").write_bytes(b"12345")
        (place / "tree" / "sub" / "big").write_bytes(BLOCK)
        os.link(place / "tree/a", place / "tree/b")
        os.symlink("a", place / "tree/c")
        os.mkfifo(place / "tree/d")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place / "tree/e"))
        context = StageContext()
        list(stream(files(place / "tree"), context))
        assert context.findings.counts == {
            "files": 2,
            "directories": 2,
            "bytes": 5 + CHUNK,
            "hard_links": 1,
            "symlinks": 1,
            "specials": 1,
            "sockets_skipped": 1,
        }

    def test_links_are_forgotten_when_all_have_been_seen(self, place: Path) -> None:
        tree.build(place / "tree")
        (artifact,) = files(place / "tree").artifacts()
        assert isinstance(artifact.target, tuple)
        spec = FilesSource(type="files", paths=[str(place / "tree")])
        archive = Archive(spec, artifact.target, StageContext())
        for _ in archive.chunks():
            pass
        assert len(archive._links) == 0

    def test_two_reads_are_equal(self, place: Path) -> None:
        tree.build(place / "tree")
        assert b"".join(stream(files(place / "tree"))) == b"".join(stream(files(place / "tree")))

    def test_access_times_stay_as_they_are(self, place: Path) -> None:
        (place / "tree").mkdir()
        (place / "tree/file").write_bytes(b"x")
        # Older than the modification: even `relatime` would write it.
        os.utime(place / "tree/file", ns=(5, 10))
        list(stream(files(place / "tree")))
        assert (place / "tree/file").stat().st_atime_ns == 5

    def test_attributes_can_be_left_out(self, place: Path) -> None:
        (place / "tree").mkdir()
        (place / "tree/file").write_bytes(b"x")
        os.setxattr(place / "tree/file", "user.note", b"x")
        archive = save(files(place / "tree", xattrs=False), place / "archive.tar")
        restore(archive, place / "back")
        assert os.listxattr(place / "back/tree/file") == []

    @pytest.mark.parametrize("extract", EXTRACTORS)
    def test_holes_take_no_space(self, place: Path, extract: Extract) -> None:
        (place / "tree").mkdir()
        with open(place / "tree/huge", "wb") as file:
            for at in (1 << 20, 9 << 30):
                file.seek(at)
                file.write(BLOCK[:70_000])
            file.truncate((9 << 30) + (5 << 20))
        archive = save(files(place / "tree"), place / "archive.tar")
        assert archive.stat().st_size < 200_000
        extract(archive, place / "back")
        assert tree.differences(place / "tree", place / "back/tree") == []
        assert (place / "back/tree/huge").stat().st_blocks * 512 < 500_000

    @pytest.mark.parametrize("extract", EXTRACTORS)
    def test_many_single_paths_in_one_archive(self, place: Path, extract: Extract) -> None:
        for name in ("a/x", "b/y"):
            (place / "tree" / name).mkdir(parents=True)
            (place / "tree" / name / "file").write_text(name)
        paths = [place / "tree" / "a", place / "tree" / "b" / "y"]
        source = files(*paths, artifact="single", names="absolute")
        extract(save(source, place / "archive.tar"), place / "back")
        below = place / "back" / str(place)[1:]
        for path in ("a", "b/y"):
            assert tree.differences(place / "tree" / path, below / "tree" / path) == []


def dig(top: Path, depth: int, name: bytes) -> None:
    """Nest directories deeper than a path can name, with a file in each."""
    fd = os.open(top, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        for side in (b"a-side", b"z-side"):
            os.mkdir(side, dir_fd=fd)
        file = os.open(b"file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
        os.write(file, b"%d" % level)
        os.close(file)
    os.close(fd)


def climb(top: Path, name: bytes) -> list[tuple[bytes, list[str]]]:
    """The content of the file and the names in each nested directory."""
    found = []
    fd = os.open(top, os.O_RDONLY)
    while os.fsdecode(name) in os.listdir(fd):
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        file = os.open(b"file", os.O_RDONLY, dir_fd=fd)
        found.append((os.read(file, 100), sorted(os.listdir(fd))))
        os.close(file)
    os.close(fd)
    return found


class TestDeepTrees(WithPlace):
    # GNU tar does not restore names longer than the kernel takes in one call.
    @pytest.mark.parametrize(
        ("extract", "length"),
        [
            pytest.param(restore, 100, id="ours-longer-than-a-path-can-be"),
            pytest.param(gnu_tar, 10, id="gnu-tar"),
        ],
    )
    def test_300_levels_come_back(self, place: Path, extract: Extract, length: int) -> None:
        (place / "tree").mkdir()
        dig(place / "tree", 300, b"d" * length)
        archive = save(files(place / "tree"), place / "archive.tar")
        extract(archive, place / "back")
        there = climb(place / "tree", b"d" * length)
        assert len(there) == 300
        assert climb(place / "back/tree", b"d" * length) == there

    def test_few_directories_are_open_at_once(self, place: Path) -> None:
        (place / "tree").mkdir()
        dig(place / "tree", 400, b"d")
        before = most = len(os.listdir("/proc/self/fd"))
        context = StageContext()
        source = files(place / "tree")
        archive = place / "archive.tar"
        with open(archive, "wb") as file:
            for chunk in source.stream(source.artifacts()[0], context):
                most = max(most, len(os.listdir("/proc/self/fd")))
                file.write(chunk)
        assert most < before + 100

        def watched() -> Iterator[bytes]:
            nonlocal most
            for piece in pieces(archive, 512):
                most = max(most, len(os.listdir("/proc/self/fd")))
                yield piece

        source.restore(watched(), source.artifacts()[0], place / "back", False)
        assert most < before + 100
        assert climb(place / "back/tree", b"d") == climb(place / "tree", b"d")

    def test_what_is_lost_by_a_move_above_is_named(self, place: Path) -> None:
        (place / "tree").mkdir()
        dig(place / "tree", 150, b"d")
        deepest = place / "tree" / "/".join(["d"] * 150)
        (deepest / "big").write_bytes(BLOCK * 3)
        context = StageContext()
        chunks = stream(files(place / "tree"), context)
        next(chunks)
        # The way back up from here leads into another directory.
        (place / "elsewhere").mkdir()
        inside = place / "tree" / "/".join(["d"] * 60)
        inside.rename(place / "elsewhere" / "d")
        list(chunks)
        assert context.findings.skipped_total > 0
        assert all("was moved while it was read" in line for line in context.findings.skipped)

    def test_a_directory_that_is_moved_during_the_restore_ends_it(self, place: Path) -> None:
        (place / "tree").mkdir()
        dig(place / "tree", 150, b"d")
        deepest = place / "tree" / "/".join(["d"] * 150)
        (deepest / "deepest").mkdir()
        archive = save(files(place / "tree"), place / "archive.tar")

        def moving() -> Iterator[bytes]:
            target = place / "back/tree" / "/".join(["d"] * 60)
            (place / "elsewhere").mkdir()
            for piece in pieces(archive, 512):
                yield piece
                if b"/deepest/" in piece:
                    target.rename(place / "elsewhere" / "d")

        source = files(archive)
        with pytest.raises(SourceError, match="was moved while it was restored"):
            source.restore(moving(), source.artifacts()[0], place / "back", False)


class TestProcess(WithPlace):
    def test_a_stopped_reader_does_not_leave_files_open(self, place: Path) -> None:
        (place / "tree").mkdir()
        for number in range(5):
            (place / "tree" / str(number)).write_bytes(BLOCK * 2)
        before = os.listdir("/proc/self/fd")
        chunks = stream(files(place / "tree"))
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        assert os.listdir("/proc/self/fd") == before

    def test_memory_does_not_grow_with_a_file(self, place: Path) -> None:
        """A file much larger than the limit passes through, in both directions."""
        (place / "tree").mkdir()
        with open(place / "tree/big", "wb") as file:
            for _ in range(300):
                file.write(BLOCK)
        script = """
import sys
from pathlib import Path
from pipeline.context import StageContext
from schemas.sources import FilesSource
from stages.sources.files import Files

source = Files(FilesSource(type="files", paths=[sys.argv[1]]))
(artifact,) = source.artifacts()
source.restore(source.stream(artifact, StageContext()), artifact, Path(sys.argv[2]), False)
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
        done = subprocess.run(
            [sys.executable, "-c", script, place / "tree", place / "back"],
            check=True,
            capture_output=True,
            cwd=Path(__file__).parents[2],
        )
        assert int(done.stdout) < 100_000
        back = place / "back" / str(place)[1:] / "tree"
        assert tree.differences(place / "tree", back) == []

    def test_reading_ends_quietly_when_the_reader_is_killed(self, place: Path) -> None:
        """Nothing that reads holds a lock on what it reads: a kill leaves the tree as it was."""
        tree.build(place / "tree")
        before = tree.snapshot(place / "tree")
        script = """
import os, signal, sys
from pipeline.context import StageContext
from schemas.sources import FilesSource
from stages.sources.files import Files

source = Files(FilesSource(type="files", paths=[sys.argv[1]]))
chunks = source.stream(source.artifacts()[0], StageContext())
next(chunks)
os.kill(os.getpid(), signal.SIGKILL)
"""
        done = subprocess.run(
            [sys.executable, "-c", script, place / "tree"],
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == -signal.SIGKILL
        assert tree.snapshot(place / "tree") == before
        assert stat.S_ISFIFO((place / "tree/kinds/fifo").stat().st_mode)
