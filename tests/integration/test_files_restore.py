"""`files` there and back: real trees, real GNU tar, hostile archives, and trees that change."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from schemas.sources import FilesSource
from stages.sources._exclude import Excludes
from stages.sources._walk import walk
from stages.sources.files import Files
from tests import tree

pytestmark = pytest.mark.integration

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
BLOCK = bytes(range(256)) * 4096


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="nxs-files-"))
    path.chmod(0o755)
    yield path
    # The trees are deeper than shutil goes, and hold directories without permissions.
    subprocess.run(["chmod", "-R", "u+rwX", path], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", path], check=True)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Lose root's rights for a while."""
    if not IS_ROOT:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def files(*paths: Path, **spec: Any) -> Files:
    spec = {"names": "relative", **spec}
    model: Any = {"type": "files", "paths": [str(path) for path in paths], **spec}
    return Files(FilesSource.model_validate(model), "backup")


def stream(source: Files, context: StageContext | None = None) -> Iterator[bytes]:
    return source.stream(source.artifacts()[0], context or StageContext())


def save(source: Files, to: Path, context: StageContext | None = None) -> Path:
    with open(to, "wb") as file:
        for chunk in stream(source, context):
            file.write(chunk)
    return to


def pieces(archive: Path, size: int = CHUNK) -> Iterator[bytes]:
    with open(archive, "rb") as file:
        while piece := file.read(size):
            yield piece


def restore(archive: Path, target: Path, overwrite: bool = False) -> None:
    source = files(archive)
    source.restore(pieces(archive), source.artifacts()[0], target, overwrite)


def gnu_tar(archive: Path, target: Path) -> None:
    target.mkdir()
    command = [
        "tar",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "-xp",
        "-C",
        target,
        "-f",
        archive,
    ]
    subprocess.run(command, check=True, capture_output=True)


EXTRACTORS: list[Any] = [pytest.param(restore, id="ours"), pytest.param(gnu_tar, id="gnu-tar")]
Extract = Callable[[Path, Path], None]


class TestRoundTrip:
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


class TestDeepTrees:
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


class TestExcludes:
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
        source = files(place / "tree", exclude=[f"{place}/tree/b/*.log", "tree/*/y"])
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream(source)))) as archive:
            assert archive.getnames() == ["tree", "tree/a", "tree/a/x.log", "tree/b"]

    def test_everything_may_be_excluded(self, place: Path) -> None:
        (place / "tree/a").mkdir(parents=True)
        data = b"".join(stream(files(place / "tree", exclude=["*"])))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert archive.getnames() == ["tree"]


@pytest.fixture
def forbidden(place: Path) -> Path:
    """A tree in which some things cannot be read without rights."""
    root = place / "tree"
    (root / "closed").mkdir(parents=True)
    (root / "closed/inside").write_text("x")
    (root / "open").write_text("x")
    (root / "secret\n").write_text("x")
    (root / "secret\n").chmod(0)
    (root / "closed").chmod(0)
    return root


class TestUnreadable:
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


class TestChangesWhileReading:
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


class TestReadErrors:
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
        archive = root.parent / "archive.tar"
        watched = [word for path in sorted(root.iterdir()) for word in ("-P", str(path))]
        done = subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", os.devnull, *watched, "-e", f"inject={inject}"),
                *(sys.executable, "-c", self.SCRIPT, root, archive),
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
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

    def test_a_stale_handle_is_tried_once_more(self, place: Path) -> None:
        (place / "tree").mkdir()
        (place / "tree/a").write_text("a")
        said, archive = self.read(place / "tree", "openat:error=ESTALE:when=1")
        assert said == "[]\n"
        restore(archive, place / "back")
        assert (place / "back/tree/a").read_text() == "a"


def forged(place: Path, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> Path:
    """An archive that our source would never make."""
    with tarfile.open(place / "forged.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info, data = member if isinstance(member, tuple) else (member, b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return place / "forged.tar"


def item(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return item(name, kind, linkname=to)


HOSTILE: dict[str, list[Any]] = {
    "absolute-name": [(item("/tmp/nxs-escaped"), b"x")],
    "absolute-directory": [item("/tmp/nxs-escaped", tarfile.DIRTYPE)],
    "parent-name": [(item("../escaped"), b"x")],
    "parent-inside": [(item("a/b/../../../escaped"), b"x")],
    "parent-directory": [item("..", tarfile.DIRTYPE)],
    "parent-symlink": [link("../escaped", "x")],
    "parent-fifo": [item("../escaped", tarfile.FIFOTYPE)],
    "through-symlink": [link("a", "../outside"), (item("a/escaped"), b"x")],
    "through-absolute-symlink": [link("a", "/"), (item("a/tmp/nxs-escaped"), b"x")],
    "through-two-symlinks": [
        item("d", tarfile.DIRTYPE),
        link("d/up", ".."),
        link("a", "d/up/.."),
        (item("a/outside/escaped"), b"x"),
    ],
    "directory-through-symlink": [
        link("a", "../outside"),
        item("a", tarfile.DIRTYPE, mode=0o777),
        (item("a/escaped"), b"x"),
    ],
    "mkdir-through-symlink": [link("a", "../outside"), item("a/escaped", tarfile.DIRTYPE)],
    "symlink-through-symlink": [link("a", "../outside"), link("a/escaped", "x")],
    "hard-link-outside": [link("a", "../outside/file", tarfile.LNKTYPE)],
    "hard-link-absolute": [link("a", "/etc/passwd", tarfile.LNKTYPE)],
    "hard-link-through-symlink": [
        link("a", "../outside"),
        link("b", "a/file", tarfile.LNKTYPE),
        (item("b"), b"overwritten"),
    ],
    "no-name": [(item("."), b"x")],
    "unknown-kind": [item("a", b"V")],
    "file-as-directory": [(item("a"), b"x"), (item("a/b"), b"x")],
    "directory-then-file": [item("a/b", tarfile.DIRTYPE), (item("a"), b"x")],
}


class TestHostileArchives:
    @pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
    def test_a_member_that_leaves_the_target_is_refused(
        self, place: Path, members: list[Any]
    ) -> None:
        (place / "outside").mkdir()
        (place / "outside/file").write_text("precious")
        before = tree.snapshot(place / "outside")
        archive = forged(place, *members)
        with pytest.raises(SourceError) as raised:
            restore(archive, place / "target")
        assert '"' in raised.value.message
        assert tree.snapshot(place / "outside") == before
        assert not os.path.lexists(place / "escaped")
        assert not os.path.lexists("/tmp/nxs-escaped")

    def test_a_file_that_takes_the_place_of_a_link_does_not_write_through_it(
        self, place: Path
    ) -> None:
        (place / "outside").write_text("precious")
        archive = forged(place, link("a", "../outside"), (item("a"), b"mine"))
        restore(archive, place / "target")
        assert (place / "outside").read_text() == "precious"
        assert (place / "target/a").read_bytes() == b"mine"
        assert not (place / "target/a").is_symlink()

    def test_a_hard_link_to_a_symbolic_link_is_a_link_to_the_link(self, place: Path) -> None:
        (place / "outside").write_text("precious")
        archive = forged(
            place,
            link("a", "../outside"),
            link("b", "a", tarfile.LNKTYPE),
            (item("b"), b"mine"),
        )
        restore(archive, place / "target")
        assert (place / "outside").read_text() == "precious"
        assert (place / "outside").stat().st_nlink == 1

    def test_a_hard_link_to_itself_keeps_the_file(self, place: Path) -> None:
        archive = forged(place, (item("a"), b"mine"), link("a", "./a", tarfile.LNKTYPE))
        restore(archive, place / "target")
        assert (place / "target/a").read_bytes() == b"mine"

    def test_a_hard_link_to_what_is_missing_is_told_at_the_end(self, place: Path) -> None:
        archive = forged(place, link("a", "gone", tarfile.LNKTYPE), (item("b"), b"b"))
        with pytest.raises(SourceError, match='"a": it is a link to "gone", which is missing'):
            restore(archive, place / "target")
        assert (place / "target/b").read_bytes() == b"b"

    def test_a_symbolic_link_in_the_target_is_not_followed(self, place: Path) -> None:
        (place / "outside").mkdir()
        (place / "target").mkdir()
        (place / "target/a").symlink_to("../outside")
        archive = forged(place, (item("a/b"), b"x"))
        with pytest.raises(SourceError, match=r'through "a"'):
            restore(archive, place / "target", overwrite=True)
        assert list((place / "outside").iterdir()) == []

    def test_numbers_out_of_range_are_an_error(self, place: Path) -> None:
        archive = forged(place, item("a", mtime=0, pax_headers={"mtime": "9" * 19}))
        with pytest.raises(SourceError, match='"a"'):
            restore(archive, place / "target")

    def test_garbage_is_an_error(self, place: Path) -> None:
        (place / "garbage").write_bytes(BLOCK)
        with pytest.raises(SourceError, match="damaged"):
            restore(place / "garbage", place / "target")

    def test_a_cut_archive_is_an_error(self, place: Path) -> None:
        (place / "tree").mkdir()
        (place / "tree/big").write_bytes(BLOCK * 3)
        archive = save(files(place / "tree"), place / "archive.tar")
        os.truncate(archive, 2 * CHUNK)
        with pytest.raises(SourceError, match="incomplete"):
            restore(archive, place / "target")


class TestTarget:
    @pytest.fixture
    def archive(self, place: Path) -> Path:
        (place / "tree").mkdir()
        (place / "tree/file").write_text("new")
        (place / "tree/link").symlink_to("file")
        return save(files(place / "tree"), place / "archive.tar")

    def test_it_must_be_empty(self, place: Path, archive: Path) -> None:
        (place / "target").mkdir()
        (place / "target/other").write_text("x")
        with pytest.raises(SourceError, match="is not empty"):
            restore(archive, place / "target")
        assert os.listdir(place / "target") == ["other"]

    def test_it_must_be_a_directory(self, place: Path, archive: Path) -> None:
        (place / "target").write_text("x")
        with pytest.raises(SourceError, match="cannot restore into"):
            restore(archive, place / "target", overwrite=True)

    def test_it_is_made_with_its_parents(self, place: Path, archive: Path) -> None:
        restore(archive, place / "a/b/c")
        assert tree.differences(place / "tree", place / "a/b/c/tree") == []

    def test_overwriting_replaces_files_and_keeps_others(self, place: Path, archive: Path) -> None:
        (place / "target/tree").mkdir(parents=True)
        (place / "target/tree/file").write_text("old")
        os.link(place / "target/tree/file", place / "target/tree/other")
        (place / "target/tree/link").write_text("old")
        restore(archive, place / "target", overwrite=True)
        assert (place / "target/tree/file").read_text() == "new"
        # Replaced, not written into: whoever has the old file keeps it.
        assert (place / "target/tree/other").read_text() == "old"
        assert os.readlink(place / "target/tree/link") == "file"

    def test_a_directory_is_not_replaced_by_a_file(self, place: Path, archive: Path) -> None:
        (place / "target/tree/file").mkdir(parents=True)
        with pytest.raises(SourceError, match='cannot restore "tree/file": is a directory'):
            restore(archive, place / "target", overwrite=True)

    def test_its_default_acl_is_not_passed_on(self, place: Path, archive: Path) -> None:
        (place / "tree/sub").mkdir()
        (place / "tree/sub/file").write_text("x")
        archive = save(files(place / "tree"), place / "archive.tar")
        (place / "target").mkdir()
        os.setxattr(place / "target", "system.posix_acl_default", tree.acl((2, 7)))
        restore(archive, place / "target")
        assert tree.differences(place / "tree", place / "target/tree") == []

    def test_devices_are_left_to_root(self, place: Path) -> None:
        archive = forged(
            place, item("null", tarfile.CHRTYPE, devmajor=1, devminor=3), (item("b"), b"b")
        )
        (place / "home").mkdir()
        (place / "home").chmod(0o777)
        with unprivileged(), pytest.raises(SourceError, match="only root can make device nodes"):
            restore(archive, place / "home/target")
        assert os.listdir(place / "home/target") == ["b"]

    def test_names_of_owners_come_before_their_numbers(self, place: Path) -> None:
        archive = forged(place, (item("a", uname="root", gname="root", uid=4242, gid=4242), b""))
        restore(archive, place / "target")
        here = (place / "target/a").stat()
        assert (here.st_uid, here.st_gid) == (os.geteuid(), os.getegid())


class TestOneFileSystem:
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
        with tempfile.NamedTemporaryFile(dir=self.DEV / "shm", prefix="nxs-") as file:
            visited = {each.path: each.files for each in walk(top, b"dev", b"/dev", Excludes([]))}
            assert os.fsencode(os.path.basename(file.name)) in visited[b"/dev/shm"]
        os.close(top)


def test_a_stopped_reader_does_not_leave_files_open(place: Path) -> None:
    (place / "tree").mkdir()
    for number in range(5):
        (place / "tree" / str(number)).write_bytes(BLOCK * 2)
    before = os.listdir("/proc/self/fd")
    chunks = stream(files(place / "tree"))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert os.listdir("/proc/self/fd") == before


def test_memory_does_not_grow_with_a_file(place: Path) -> None:
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


def test_reading_ends_quietly_when_the_reader_is_killed(place: Path) -> None:
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
