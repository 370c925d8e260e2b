"""Archives that want out of the target, and targets that are in use."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from tests import tree
from tests.archives import (
    BLOCK,
    WithPlace,
    files,
    forged,
    item,
    link,
    restore,
    save,
    unprivileged,
)

pytestmark = pytest.mark.integration


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


class TestHostileArchives(WithPlace):
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
        problems = restore(archive, place / "target")
        assert [problem for problem in problems if '"gone", which is missing' in problem]
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


class TestTarget(WithPlace):
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

    def test_it_can_be_the_first_directory_of_the_archive(self, place: Path) -> None:
        archive = forged(place, item("./", tarfile.DIRTYPE, mode=0o711, mtime=5), (item("a"), b""))
        restore(archive, place / "target")
        here = (place / "target").stat()
        assert (stat.S_IMODE(here.st_mode), here.st_mtime) == (0o711, 5)

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
        with unprivileged():
            problems = restore(archive, place / "home/target")
        assert [problem for problem in problems if "only root can make device nodes" in problem]
        assert os.listdir(place / "home/target") == ["b"]

    def test_names_of_owners_come_before_their_numbers(self, place: Path) -> None:
        archive = forged(place, (item("a", uname="root", gname="root", uid=4242, gid=4242), b""))
        restore(archive, place / "target")
        here = (place / "target/a").stat()
        assert (here.st_uid, here.st_gid) == (os.geteuid(), os.getegid())
