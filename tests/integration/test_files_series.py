"""Increments of `files`: whatever happens to a tree, each copy restores to just what it was."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from stages.sources._files import survey
from stages.sources._files.increment import refuses
from tests import tree
from tests.archives import IS_ROOT, WithPlace, unprivileged
from tests.mutations import Tree
from tests.series import (
    Series,
    apply_with_tar,
    check,
    let_time_pass,
    members,
    pieces,
    quick_clock,  # noqa: F401
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_clock")]

HISTORIES = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SEEDS = st.integers(0, 2**32)


def live(seed: int, steps: list[int], *without: str, **incremental: Any) -> None:
    """A tree from its beginning on, with a copy after each number of changes."""
    source = random.Random(seed)
    place = Path(tempfile.mkdtemp(prefix="nxs-series-"))
    try:
        plant = Tree(place / "tree", iter(lambda: source.randrange(2**40), None), without)
        plant.grow(12)
        series = Series(place / "tree", incremental=incremental)
        for count in (0, *steps):
            plant.change(count)
            let_time_pass()
            check(series, series.copy(), place)
            let_time_pass()
    finally:
        shutil.rmtree(place)


@pytest.mark.timeout(600)
class TestHistories:
    @settings(HISTORIES, max_examples=100)
    @given(SEEDS, st.lists(st.integers(0, 15), min_size=2, max_size=3))
    def test_every_copy_restores_exactly(self, seed: int, steps: list[int]) -> None:
        live(seed, steps)

    @settings(HISTORIES, max_examples=40)
    @given(SEEDS, st.lists(st.integers(0, 15), min_size=2, max_size=2))
    def test_with_renames_of_files(self, seed: int, steps: list[int]) -> None:
        # What these do to a file that was moved cannot be seen: see `renames` in the schema.
        live(seed, steps, "_attribute", "_modify_secretly", renames="all")

    @settings(HISTORIES, max_examples=30)
    @given(SEEDS, st.lists(st.integers(0, 15), min_size=2, max_size=2))
    def test_without_renames(self, seed: int, steps: list[int]) -> None:
        live(seed, steps, renames="none")

    @settings(HISTORIES, max_examples=30)
    @given(SEEDS, st.lists(st.integers(0, 15), min_size=2, max_size=2), st.integers(0, 6000))
    def test_when_too_much_has_changed_to_be_remembered(
        self, monkeypatch: pytest.MonkeyPatch, seed: int, steps: list[int], room: int
    ) -> None:
        monkeypatch.setattr(survey, "MEMORY", room)
        # What was moved is then no link to what was not, and may replace a directory: see the
        # warning.
        live(seed, steps, "_link", "_attribute")


@pytest.fixture
def root(tmp_path: Path, quick_clock: None) -> Path:  # noqa: ARG001, F811
    """A small tree, older than what is racy."""
    path = tmp_path / "tree"
    for name in ("a/x", "a/deep/y", "b/x", "b/deep/z", "logs/log.0", "logs/log.1"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name * 700)
    return path


@pytest.fixture
def series(root: Path) -> Series:
    let_time_pass()
    return Series(root)


def advance(series: Series, place: Path) -> list[str]:
    """Take a copy, check that it restores exactly, return what is in it."""
    let_time_pass()
    copy = series.copy()
    let_time_pass()
    check(series, copy, place)
    return members(copy)


class TestWhatIsInAnIncrement:
    @pytest.fixture(autouse=True)
    def first(self, series: Series, tmp_path: Path) -> None:
        assert len(advance(series, tmp_path)) == 12

    def test_nothing_when_nothing_has_changed(self, series: Series, tmp_path: Path) -> None:
        assert advance(series, tmp_path) == []
        assert series.copies[1].index == series.copies[0].index
        assert series.copies[1].findings.counts["unchanged"] == 6

    def test_a_file_and_its_directory(self, series: Series, root: Path, tmp_path: Path) -> None:
        (root / "a/deep/y").write_text("new")
        assert advance(series, tmp_path) == ["tree/a/deep/", "tree/a/deep/y"]

    def test_a_change_that_hides_behind_the_old_time_and_size(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        before = (root / "a/x").stat()
        (root / "a/x").write_text("X" * before.st_size)
        os.utime(root / "a/x", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert advance(series, tmp_path) == ["tree/a/", "tree/a/x"]

    def test_the_list_alone_of_a_directory_that_lost_something(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        (root / "a/x").unlink()
        assert advance(series, tmp_path) == ["tree/a/"]

    def test_a_directory_whose_mode_has_changed(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        (root / "a/deep").chmod(0o711)
        assert advance(series, tmp_path) == ["tree/a/deep/"]

    def test_no_content_of_what_was_moved(self, series: Series, root: Path, tmp_path: Path) -> None:
        (root / "a").rename(root / "moved")
        assert advance(series, tmp_path) == ["tree/", "tree/", "tree/moved/"]
        assert series.copies[1].findings.counts["renames"] == 1

    @pytest.mark.parametrize("shape", ["taken over", "swapped", "inside out", "into itself", "old"])
    def test_renames_that_break_gnu_tar(
        self, series: Series, root: Path, tmp_path: Path, shape: str
    ) -> None:
        if shape == "taken over":  # rm -rf b; mv a b
            shutil.rmtree(root / "b")
            (root / "a").rename(root / "b")
        elif shape == "swapped":
            (root / "a").rename(root / "c")
            (root / "b").rename(root / "a")
            (root / "c").rename(root / "b")
        elif shape == "inside out":  # mv a/deep deep; mv a deep/a
            (root / "a/deep").rename(root / "deep")
            (root / "a").rename(root / "deep/a")
        elif shape == "into itself":  # mkdir n; mv a n/a
            (root / "n").mkdir()
            (root / "a").rename(root / "n/a")
        else:  # mv a old; mkdir a
            (root / "a").rename(root / "old")
            (root / "a").mkdir()
        found = advance(series, tmp_path)
        assert [name for name in found if not name.endswith("/")] == []
        assert series.copies[1].findings.counts["renames"] >= 1

    def test_a_directory_moved_into_one_of_its_own_that_took_its_name(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        (root / "a").rename(root / "x")
        (root / "x/deep").rename(root / "a")
        (root / "x").rename(root / "a/deep")
        assert [name for name in advance(series, tmp_path) if not name.endswith("/")] == []

    def test_an_inode_that_was_used_again_is_no_rename(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        shutil.rmtree(root / "a")
        for number in range(20):  # One of them most likely has the inode of `a`.
            (root / f"new{number}").mkdir()
            (root / f"new{number}" / "other").write_text("x")
        advance(series, tmp_path)
        assert "renames" not in series.copies[1].findings.counts

    def test_all_names_of_a_file_of_which_one_has_changed_its_place(
        self, root: Path, tmp_path: Path
    ) -> None:
        os.link(root / "a/x", root / "b/again")
        series = Series(root, incremental={"renames": "none"})
        place = tmp_path / "links"
        place.mkdir()
        advance(series, place)
        (root / "b").rename(root / "moved")
        assert "tree/a/x" in advance(series, place)

    def test_a_rotated_log_is_saved_again_unless_files_may_be_renamed(
        self, root: Path, tmp_path: Path
    ) -> None:
        for renames, expected in (("directories", 3), ("all", 1)):
            place = tmp_path / renames
            place.mkdir()
            series = Series(root, incremental={"renames": renames})
            let_time_pass()
            advance(series, place)
            for number in (1, 0):
                (root / f"logs/log.{number}").rename(root / f"logs/log.{number + 1}")
            (root / "logs/log.0").write_text("fresh")
            found = [name for name in advance(series, place) if not name.endswith("/")]
            assert len(found) == expected
            (root / "logs/log.2").unlink()
            advance(series, place)

    def test_a_socket_stays_out_and_takes_the_place_of_what_was_there(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        (root / "a/x").unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(root / "a/x"))
        assert advance(series, tmp_path) == ["tree/a/"]

    def test_what_is_excluded_is_not_removed_on_restore(self, root: Path, tmp_path: Path) -> None:
        series = Series(root, options={"exclude": ["*.cache"]})
        (root / "a/my.cache").write_text("in the source")
        first = series.copy()
        for target in ("t", "o"):
            (tmp_path / target).mkdir()
        assert apply_with_tar(first, tmp_path / "t") == []
        assert series.apply(first, tmp_path / "o") == []
        for target in ("t", "o"):
            (tmp_path / target / "tree/a/my.cache").write_text("in the target")
        (root / "a/x").write_text("changed")
        second = series.copy()
        assert apply_with_tar(second, tmp_path / "t") == []
        assert series.apply(second, tmp_path / "o") == []
        for target in ("t", "o"):
            assert (tmp_path / target / "tree/a/my.cache").read_text() == "in the target"
            assert (tmp_path / target / "tree/a/x").read_text() == "changed"

    def test_an_increment_may_build_on_an_earlier_copy(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        (root / "a/x").write_text("first")
        advance(series, tmp_path)
        (root / "b/x").write_text("second")
        let_time_pass()
        copy = series.copy(on=0)
        assert [name for name in members(copy) if not name.endswith("/")] == [
            "tree/a/x",
            "tree/b/x",
        ]

    def test_a_clock_that_was_set_back_makes_no_difference(
        self, series: Series, root: Path, tmp_path: Path
    ) -> None:
        future = 4_000_000_000 * 10**9
        os.utime(root / "a/x", ns=(future, future))
        assert advance(series, tmp_path) == ["tree/a/", "tree/a/x"]
        assert advance(series, tmp_path) == []
        os.utime(root / "a/x", ns=(5, 5))
        assert advance(series, tmp_path) == ["tree/a/", "tree/a/x"]


class TestSeveralRoots:
    def test_of_one_artifact_have_renames_of_their_own(self, root: Path, tmp_path: Path) -> None:
        paths = [str(root / "a"), str(root / "a-b"), str(root / "b"), str(root / "file")]
        shutil.copytree(root / "b", root / "a-b")
        (root / "file").write_text("a root that is no directory")
        options = {"paths": paths, "names": "absolute", "artifact": "single"}
        series = Series(root, options=options)
        let_time_pass()
        for target in ("tar", "ours"):
            (tmp_path / target).mkdir()
        for step in range(3):
            if step == 1:
                (root / "a/deep").rename(root / "a/moved")
                (root / "b/deep").rename(root / "a/from-b")
            elif step == 2:
                (root / "a-b/x").write_text("new")
                (root / "file").write_text("new")
            let_time_pass()
            copy = series.copy()
            assert apply_with_tar(copy, tmp_path / "tar") == []
            assert series.apply(copy, tmp_path / "ours") == []
            for target in ("tar", "ours"):
                for path in paths:
                    back = tmp_path / target / path.lstrip("/")
                    assert tree.differences(Path(path), back) == []

    def test_may_not_lie_in_each_other(self, root: Path) -> None:
        options = {"paths": [str(root), str(root / "a")], "artifact": "single", "names": "absolute"}
        with pytest.raises(SourceError, match=r"is inside of"):
            Series(root, options=options).source.artifacts()


class TestWhatCannotBeTrusted:
    def test_a_file_that_may_change_again_in_the_same_tick_is_saved_once_more(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        series = Series(root)
        let_time_pass()
        series.copy()
        (root / "a/x").write_text("fresh")
        monkeypatch.setattr("stages.sources._files.listing.RACY_NS", 10**9)
        series.copy()
        monkeypatch.setattr("stages.sources._files.listing.RACY_NS", 0)
        assert "tree/a/x" in members(series.copy())
        assert members(series.copy()) == []

    def test_a_read_error_makes_the_next_increment_try_again(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        series = Series(root)
        let_time_pass()
        advance(series, tmp_path)
        (root / "a/x").write_text("changed")
        let_time_pass()
        whole = os.read

        def broken(fd: int, size: int) -> bytes:
            if size == len("changed") + 1:
                raise OSError(errno.EIO, "Input/output error")
            return whole(fd, size)

        with monkeypatch.context() as patched:
            patched.setattr("os.read", broken)
            assert series.copy().findings.skipped_total == 1
        assert "tree/a/x" in members(series.copy())
        assert members(series.copy()) == []

    def test_a_file_system_that_makes_up_inodes(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(150):
            (root / f"b/{number}").write_text("x")
        series = Series(root)
        let_time_pass()
        advance(series, tmp_path)
        look = survey.Observer.scanned

        def scanned(self: Any, directory: Any) -> None:
            look(self, directory)
            if directory.extra is not None:
                directory.extra = with_other_inodes(directory.extra)

        monkeypatch.setattr(survey.Observer, "scanned", scanned)
        (root / "a/x").write_text("changed")
        found = advance(series, tmp_path)
        assert found == ["tree/a/", "tree/a/x"]
        assert "does not keep inodes" in series.copies[1].findings.warnings[0]

    def test_another_device_number_is_no_change(
        self, series: Series, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        advance(series, tmp_path)
        look = survey.Observer.scanned

        def scanned(self: Any, directory: Any) -> None:
            look(self, directory)
            if directory.extra is not None:
                directory.extra = on_another_device(directory.extra)

        monkeypatch.setattr(survey.Observer, "scanned", scanned)
        assert advance(series, tmp_path) == []
        (root / "a").rename(root / "moved")
        monkeypatch.setattr(survey.Observer, "scanned", look)
        assert [name for name in advance(series, tmp_path) if not name.endswith("/")] == []


@pytest.mark.skipif(not IS_ROOT, reason="gives up rights, and takes them back")
class TestWithoutRights(WithPlace):
    def test_what_could_not_be_read_stays_and_is_saved_next_time(self, place: Path) -> None:
        root = place / "tree"
        for name in ("a/x", "b/deep/z"):
            (root / name).parent.mkdir(parents=True)
            (root / name).write_text(name * 700)
        series = Series(root)
        let_time_pass()
        first = series.copy()
        (root / "a/x").write_text("changed")
        (root / "a/x").chmod(0)
        (root / "b/deep").chmod(0)
        let_time_pass()
        with unprivileged():
            second = series.copy()
        assert second.findings.skipped_total == 2
        for copy in (first, second):
            assert apply_with_tar(copy, place / "tar") == []
            assert series.apply(copy, place / "ours") == []
        for target in ("tar", "ours"):
            assert (place / target / "tree/a/x").read_text() == "a/x" * 700
            assert (place / target / "tree/b/deep/z").read_text() == "b/deep/z" * 700
        let_time_pass()
        third = series.copy()
        assert {"tree/a/x", "tree/b/deep/", "tree/b/deep/z"} <= set(members(third))
        check(series, third, place)


def with_other_inodes(found: Any) -> Any:
    from stages.sources._files.listing import ROW, pack, unpack

    rows = [unpack(found.rows[at : at + ROW]) for at in range(0, len(found.rows), ROW)]
    changed = [row._replace(ino=row.ino + 1_000_000_007) for row in rows]
    return found._replace(rows=b"".join(map(pack, changed)))


def on_another_device(found: Any) -> Any:
    from stages.sources._files.listing import ROW, pack, unpack

    own = unpack(found.rows[:ROW])
    return found._replace(rows=pack(own._replace(size=own.size + 77)) + found.rows[ROW:])


class TestTheIndexRefuses:
    def refusal(self, series: Series, other: Series) -> str | None:
        source = other.source
        (artifact,) = source.artifacts()
        return source.refuses(artifact, pieces(series.copies[0].index))

    def test_nothing_when_all_is_as_it_was(self, series: Series) -> None:
        series.copy()
        assert self.refusal(series, series) is None

    @pytest.mark.parametrize(
        ("options", "key"),
        [
            ({"exclude": ["*.tmp"]}, "exclude"),
            ({"xattrs": False}, "xattrs"),
            ({"names": "absolute"}, "names"),
            ({"one_file_system": True}, "one_file_system"),
        ],
    )
    def test_other_settings(self, series: Series, options: dict[str, Any], key: str) -> None:
        series.copy()
        refusal = self.refusal(series, Series(series.root, options=options))
        assert refusal == f"`{key}` is not what it was when the last copy was made"

    def test_other_paths(self, series: Series, root: Path) -> None:
        series.copy()
        assert "`paths`" in str(self.refusal(series, Series(root / "a")))

    def test_a_root_that_is_of_another_kind(self, series: Series, root: Path) -> None:
        series.copy()
        shutil.rmtree(root)
        root.write_text("a file now")
        assert "`paths`" in str(self.refusal(series, series))

    def test_something_that_is_no_index(self, series: Series) -> None:
        source = series.source
        (artifact,) = source.artifacts()
        with pytest.raises(SourceError, match="damaged"):
            refuses(series.source._spec, artifact.target, iter([b"garbage" * 100]))  # type: ignore[arg-type]


class TestApplyIsSafe(WithPlace):
    """What a forged increment may try."""

    def forge(self, place: Path, body: bytes, name: str = "tree/") -> list[bytes]:
        from stages.sources._files import tar
        from stages.sources._files.names import no_names

        inode = os.stat(place)
        encoder = tar.Encoder(no_names)
        record = tar.record(b"GNU.dumpdir", body)
        member = encoder.member(name.encode(), inode, tar.DIRECTORY, records=record)
        return [member + tar.end(len(member))]

    @pytest.fixture
    def target(self, place: Path) -> Path:
        (place / "target/tree/sub").mkdir(parents=True)
        (place / "target/tree/sub/file").write_text("x")
        (place / "outside").mkdir()
        (place / "outside/precious").write_text("x")
        (place / "target/tree/link").symlink_to(place / "outside")
        return place / "target"

    def apply(self, place: Path, target: Path, body: bytes, name: str = "tree/") -> None:
        from stages.sources._files.apply import apply

        apply(iter(self.forge(place, body, name)), target)

    @pytest.mark.parametrize(
        "pair",
        [
            (b"../outside/precious", b"tree/stolen"),
            (b"tree/sub/file", b"../outside/gift"),
            (b"tree/link/precious", b"tree/stolen"),
            (b"tree/sub/file", b"tree/link/gift"),
            (b"/etc/hostname", b"tree/stolen"),
            (b"tree/sub/file", b"tree/sub/../../../gift"),
            (b"tree/none", b"tree/other"),
            (b"tree/sub", b"tree/link"),
            (b"tree", b"tree/sub/tree"),
        ],
    )
    def test_renames_stay_inside(
        self, place: Path, target: Path, pair: tuple[bytes, bytes]
    ) -> None:
        before = tree.snapshot(place)
        body = b"Dsub\0Nlink\0R%b\0T%b\0\0" % pair
        with pytest.raises(SourceError):
            self.apply(place, target, body)
        assert set(tree.snapshot(place)) == set(before)

    def test_removing_does_not_follow_links(self, place: Path, target: Path) -> None:
        self.apply(place, target, b"\0")
        assert list((target / "tree").iterdir()) == []
        assert (place / "outside/precious").read_text() == "x"

    @pytest.mark.parametrize("name", ["../outside/", "/outside/", "tree/link/"])
    def test_only_directories_inside_are_cleared(
        self, place: Path, target: Path, name: str
    ) -> None:
        with pytest.raises(SourceError):
            self.apply(place, target, b"\0", name)
        assert (place / "outside/precious").read_text() == "x"

    def test_a_deep_tree_is_removed(self, place: Path, target: Path) -> None:
        fd = os.open(target / "tree/sub", os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=fd)
            inner = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(fd)
        self.apply(place, target, b"\0")
        assert list((target / "tree").iterdir()) == []

    @pytest.mark.parametrize(
        "body", [b"", b"Yx", b"Xx\0\0", b"Y\0\0", b"Rx\0\0", b"Tx\0\0", b"Ya/b\0\0", b"Rx\0Yy\0\0"]
    )
    def test_a_list_that_cannot_be_understood(self, place: Path, target: Path, body: bytes) -> None:
        before = tree.snapshot(target)
        with pytest.raises(SourceError, match="damaged"):
            self.apply(place, target, body)
        assert tree.snapshot(target) == before
