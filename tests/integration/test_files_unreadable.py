"""`files` on trees that cannot be read in full: rights, changes, broken disks, excludes."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from stages.sources._files.exclude import Excludes
from stages.sources._files.scan import Scanner
from stages.sources._files.walk import Walk
from tests.archives import (
    BLOCK,
    WithPlace,
    files,
    restore,
    stream,
    unprivileged,
)

pytestmark = pytest.mark.integration


class TestExcludes(WithPlace):
    def test_an_excluded_directory_is_not_entered(self, place: Path) -> None:
        (place / "tree/cache/deep").mkdir(parents=True)
        (place / "tree/keep").mkdir()
        (place / "tree/keep/cache.txt").write_text("x")
        context = StageContext()
        (place / "tree/cache").chmod(0)
        with unprivileged():
            data = b"".join(stream(files(place / "tree", exclude=["cache"]), context))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert archive.getnames() == ["tree", "tree/keep", "tree/keep/cache.txt"]
        assert context.findings.skipped == []

    def test_patterns_see_whole_paths_and_every_kind(self, place: Path) -> None:
        (place / "tree/a").mkdir(parents=True)
        (place / "tree/b").mkdir()
        for name in ("a/x.log", "b/x.log", "a/y", "b/y"):
            (place / "tree" / name).write_text("x")
        (place / "tree/b/link.log").symlink_to("y")
        source = files(place / "tree", exclude=[f"{place}/tree/b/*.log", "*/y"])
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream(source)))) as archive:
            assert archive.getnames() == ["tree", "tree/a", "tree/a/x.log", "tree/b"]

    def test_everything_may_be_excluded(self, place: Path) -> None:
        (place / "tree/a").mkdir(parents=True)
        data = b"".join(stream(files(place / "tree", exclude=["*"])))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert archive.getnames() == ["tree"]


class TestUnreadable(WithPlace):
    @pytest.fixture
    def forbidden(self, place: Path) -> Path:
        """A tree in which some things cannot be read without rights."""
        root = place / "tree"
        (root / "closed").mkdir(parents=True)
        (root / "closed/inside").write_text("x")
        (root / "open").write_text("x")
        (root / "secret\n").write_text("x")
        (root / "secret\n").chmod(0)
        (root / "closed").chmod(0)
        return root

    def test_warn_names_each_and_goes_on(self, forbidden: Path) -> None:
        context = StageContext()
        with unprivileged():
            data = b"".join(stream(files(forbidden), context))
        assert context.findings.skipped == [
            f"{forbidden}/secret\\n: permission denied",
            f"{forbidden}/closed: permission denied",
        ]
        assert context.findings.skipped_total == 2
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert archive.getnames() == ["tree", "tree/open", "tree/closed"]

    def test_fail_ends_at_the_first(self, forbidden: Path) -> None:
        with unprivileged(), pytest.raises(SourceError) as raised:
            list(stream(files(forbidden, on_unreadable="fail")))
        assert str(raised.value) == f'cannot read "{forbidden}/secret\\n": permission denied'

    def test_ignore_only_counts(self, forbidden: Path) -> None:
        context = StageContext()
        with unprivileged():
            list(stream(files(forbidden, on_unreadable="ignore"), context))
        assert context.findings.skipped == context.findings.warnings == []
        assert context.findings.skipped_total == 0
        assert context.findings.counts["unreadable"] == 2

    @pytest.mark.parametrize("mode", ["fail", "warn", "ignore"])
    @pytest.mark.parametrize("name", ["closed", "secret\n"])
    def test_a_root_must_be_readable(self, forbidden: Path, mode: str, name: str) -> None:
        with unprivileged(), pytest.raises(SourceError, match="permission denied"):
            list(stream(files(forbidden / name, on_unreadable=mode)))
        with unprivileged(), pytest.raises(SourceError, match="permission denied"):
            files(forbidden / name).probe()

    def test_a_root_that_vanished_after_the_plan_is_an_error(self, place: Path) -> None:
        (place / "tree").mkdir()
        source = files(place / "tree")
        (artifact,) = source.artifacts()
        (place / "tree").rmdir()
        with pytest.raises(SourceError, match="vanished"):
            list(source.stream(artifact, StageContext()))

    def test_a_socket_is_no_root(self, place: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place / "socket"))
        with pytest.raises(SourceError, match="socket"):
            list(stream(files(place / "socket")))

    def test_foreign_files_are_read_without_the_right_to_keep_access_times(
        self, place: Path
    ) -> None:
        (place / "tree").mkdir()
        (place / "tree/file").write_text("x")
        context = StageContext()
        with unprivileged():
            data = b"".join(stream(files(place / "tree"), context))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert archive.getnames() == ["tree", "tree/file"]
        assert context.findings.skipped == []


class TestChangesWhileReading(WithPlace):
    """The first file is big: whatever follows it is changed after the first chunk."""

    @pytest.fixture
    def root(self, place: Path) -> Path:
        root = place / "tree"
        (root / "sub").mkdir(parents=True)
        (root / "a-big").write_bytes(BLOCK * 8)
        (root / "b").write_text("b")
        (root / "sub/c").write_text("c")
        return root

    def read(
        self, root: Path, change: Callable[[], object], **spec: Any
    ) -> tuple[StageContext, dict[str, tarfile.TarInfo], bytes]:
        context = StageContext()
        chunks = stream(files(root, **spec), context)
        first = next(chunks)
        change()
        data = first + b"".join(chunks)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return context, {member.name: member for member in archive}, data

    def content(self, data: bytes, name: str) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

    def test_a_vanished_file_is_named(self, root: Path) -> None:
        context, members, _ = self.read(root, (root / "b").unlink)
        assert context.findings.skipped == [f"{root}/b: vanished before it was read"]
        assert list(members) == ["tree", "tree/a-big", "tree/sub", "tree/sub/c"]

    def test_a_vanished_file_fails_when_told_to(self, root: Path) -> None:
        with pytest.raises(SourceError, match="vanished"):
            self.read(root, (root / "b").unlink, on_unreadable="fail")

    def test_a_vanished_directory_is_named(self, root: Path) -> None:
        context, members, _ = self.read(root, lambda: shutil.rmtree(root / "sub"))
        assert context.findings.skipped == [f"{root}/sub: vanished before it was read"]
        assert list(members) == ["tree", "tree/a-big", "tree/b"]

    def test_a_file_that_shrinks_is_padded_and_named(self, root: Path) -> None:
        change = lambda: os.truncate(root / "a-big", 3 * CHUNK + 5)  # noqa: E731
        context, members, data = self.read(root, change)
        (line,) = context.findings.skipped
        assert line.startswith(f"{root}/a-big: shrank while it was read")
        assert members["tree/a-big"].size == 8 * CHUNK
        expected = (BLOCK * 8)[: 3 * CHUNK + 5].ljust(8 * CHUNK, b"\0")
        assert self.content(data, "tree/a-big") == expected
        assert self.content(data, "tree/sub/c") == b"c"

    def test_a_file_that_grows_is_cut_and_pointed_out(self, root: Path) -> None:
        def change() -> None:
            with open(root / "a-big", "ab") as file:
                file.write(b"more")

        context, _, data = self.read(root, change)
        (line,) = context.findings.warnings
        assert line.startswith(f"{root}/a-big: grew while it was read")
        assert context.findings.skipped == []
        assert self.content(data, "tree/a-big") == BLOCK * 8

    def test_a_file_that_is_written_to_is_pointed_out(self, root: Path) -> None:
        def change() -> None:
            with open(root / "a-big", "r+b") as file:
                file.write(b"changed")

        context, _, _ = self.read(root, change)
        assert context.findings.warnings == [f"{root}/a-big: changed while it was read"]

    def test_a_symbolic_link_that_takes_the_place_of_a_file_is_not_followed(
        self, root: Path
    ) -> None:
        def change() -> None:
            (root / "b").unlink()
            (root / "b").symlink_to("/etc/passwd")

        context, members, _ = self.read(root, change)
        assert members["tree/b"].issym()
        assert context.findings.skipped == []

    def test_a_symbolic_link_that_takes_the_place_of_a_directory_is_not_followed(
        self, root: Path
    ) -> None:
        def change() -> None:
            shutil.rmtree(root / "sub")
            (root / "sub").symlink_to("/etc")

        context, members, _ = self.read(root, change)
        assert not [name for name in members if name.startswith("tree/sub/")]
        assert context.findings.skipped_total == 1

    def test_a_fifo_that_takes_the_place_of_a_file_does_not_block(self, root: Path) -> None:
        def change() -> None:
            (root / "b").unlink()
            os.mkfifo(root / "b")

        _, members, _ = self.read(root, change)
        assert members["tree/b"].isfifo()

    def test_a_sparse_file_that_shrinks_keeps_the_archive_whole(self, root: Path) -> None:
        with open(root / "a-big", "r+b") as file:
            file.truncate(0)
            file.truncate(64 * CHUNK)
            file.seek(60 * CHUNK)
            file.write(BLOCK * 4)
        context, members, data = self.read(root, lambda: os.truncate(root / "a-big", 61 * CHUNK))
        assert context.findings.skipped_total == 1
        assert members["tree/a-big"].size == 64 * CHUNK
        assert self.content(data, "tree/sub/c") == b"c"


class TestReadErrors(WithPlace):
    """Errors of the disk, put in by strace."""

    SCRIPT = """
import sys, json
from pipeline.context import StageContext
from schemas.sources import FilesSource
from stages.sources.files import Files

source = Files(FilesSource(type="files", paths=[sys.argv[1]], names="relative"))
context = StageContext()
with open(sys.argv[2], "wb") as file:
    for chunk in source.stream(source.artifacts()[0], context):
        file.write(chunk)
print(json.dumps(context.findings.skipped))
"""

    def read(self, root: Path, inject: str) -> tuple[str, Path]:
        archive, trace = root.parent / "archive.tar", root.parent / "trace"
        watched = [word for path in (root, *sorted(root.iterdir())) for word in ("-P", str(path))]
        done = subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", str(trace), *watched, "-e", f"inject={inject}"),
                *(sys.executable, "-c", self.SCRIPT, str(root), str(archive)),
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert "(INJECTED)" in trace.read_text()
        return done.stdout, archive

    def test_an_error_inside_of_a_big_file_is_padded_and_named(self, place: Path) -> None:
        (place / "tree").mkdir()
        (place / "tree/big").write_bytes(BLOCK * 5)
        said, archive = self.read(place / "tree", "pread64:error=EIO:when=3")
        assert "input/output error after" in said
        restore(archive, place / "back")
        content = (place / "back/tree/big").read_bytes()
        kept = len(content.rstrip(b"\0"))
        assert CHUNK <= kept <= 3 * CHUNK
        assert len(content) == 5 * CHUNK
        assert (BLOCK * 5).startswith(content[:kept])

    def test_a_small_file_that_cannot_be_read_is_named(self, place: Path) -> None:
        (place / "tree").mkdir()
        for name in ("a", "b"):
            (place / "tree" / name).write_text(name)
        said, archive = self.read(place / "tree", "read:error=EIO:when=2")
        assert "tree/b: input/output error" in said
        restore(archive, place / "back")
        assert os.listdir(place / "back/tree") == ["a"]

    def test_a_small_file_with_holes_that_cannot_be_read_is_named(self, place: Path) -> None:
        (place / "tree").mkdir()
        for name in ("a", "b", "c"):
            with open(place / "tree" / name, "wb") as file:
                file.truncate(1 << 19)
                file.seek(1 << 18)
                file.write(name.encode() * 4096)
        said, archive = self.read(place / "tree", "pread64:error=EIO:when=2")
        assert "tree/b: input/output error" in said
        restore(archive, place / "back")
        assert sorted(os.listdir(place / "back/tree")) == ["a", "c"]
        for name in ("a", "c"):
            there = (place / "tree" / name).read_bytes()
            assert (place / "back/tree" / name).read_bytes() == there

    def test_a_stale_handle_is_tried_once_more(self, place: Path) -> None:
        (place / "tree").mkdir()
        (place / "tree/a").write_text("a")
        said, archive = self.read(place / "tree", "openat:error=ESTALE:when=1")
        assert said == "[]\n"
        restore(archive, place / "back")
        assert (place / "back/tree/a").read_text() == "a"

    def test_a_short_read_is_continued(self, place: Path) -> None:
        (place / "tree").mkdir()
        (place / "tree/a").write_bytes(BLOCK[:5000])
        said, archive = self.read(place / "tree", "read:retval=1:when=1")
        assert said == "[]\n"
        restore(archive, place / "back")
        assert (place / "back/tree/a").read_bytes() == BLOCK[:5000]


class TestOneFileSystem(WithPlace):
    # It has a mount point in it on every machine.
    DEV = Path("/dev")

    def test_a_mount_point_is_kept_and_not_entered(self) -> None:
        source = files(self.DEV, exclude=["/dev/mqueue"], one_file_system=True)
        with tempfile.NamedTemporaryFile(dir=self.DEV / "shm", prefix="nxs-"):
            data = b"".join(stream(source))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            names = archive.getnames()
        assert "dev/null" in names
        assert [name for name in names if name.startswith("dev/shm")] == ["dev/shm"]

    def test_without_it_mount_points_are_entered(self) -> None:
        top = os.open("/", os.O_RDONLY)
        walk = Walk(top, b"dev", b"/dev", Scanner(Excludes([]), False))
        with tempfile.NamedTemporaryFile(dir=self.DEV / "shm", prefix="nxs-") as file:
            visited = {}
            while (directory := walk.advance()) is not None:
                visited[directory.path] = directory.files
            assert os.fsencode(os.path.basename(file.name)) in visited[b"/dev/shm"]
        os.close(top)
