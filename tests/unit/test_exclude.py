"""Patterns and marks: what they leave out, and what they bring in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import SourceError
from schemas.sources import FilesSource
from stages.sources._files.exclude import Excludes
from tests.unit.test_files_plan import build, names_in, read

ROOT = b"/srv"
CASES = {
    "name-anywhere": ("cache", ["/srv/cache", "/a/b/cache"], ["/cache2", "/a/xcache", "/cache/x"]),
    "star-in-name": ("*.tmp", ["/a.tmp", "/a/.tmp", "/a/\n.tmp"], ["/a.tmp/x", "/a.tmpx"]),
    "question-mark": ("?.log", ["/a.log"], ["/.log", "/ab.log"]),
    "set": ("[a-c].x", ["/a.x", "/c.x"], ["/d.x", "/-.x"]),
    "negated-set": ("[!a-c].x", ["/d.x"], ["/a.x", "/.x"]),
    "set-negated-as-in-git": ("[^a-c].x", ["/d.x"], ["/a.x", "/.x"]),
    "bracket-in-set": ("[]]x", ["/]x"], ["/[x", "/x"]),
    "open-bracket": ("[x", ["/[x"], ["/x"]),
    "escaped-star": (r"\*.x", ["/*.x"], ["/a.x"]),
    "escaped-backslash": (r"a\\b", ["/a\\b"], ["/ab"]),
    "escaped-exclamation-mark": (r"\!a", ["/!a"], ["/a"]),
    "special-letters": ("a.b+(c)^$", ["/a.b+(c)^$"], ["/aab+(c)^$"]),
    "whole-path": ("/srv/www", ["/srv/www"], ["/www", "/x/srv/www", "/srv/www/x", "/srv/www2"]),
    "star-keeps-to-its-part": ("/srv/*/x", ["/srv/a/x"], ["/srv/x", "/srv/a/b/x"]),
    "star-and-dot": ("/srv/*", ["/srv/.hidden", "/srv/a"], ["/srv/a/b", "/srv"]),
    "two-stars-inside": ("/srv/**/x", ["/srv/x", "/srv/a/x", "/srv/a/b/x"], ["/srvx", "/srv/ax"]),
    "two-stars-at-end": ("/srv/**", ["/srv/a", "/srv/a/b"], ["/srv", "/srva"]),
    "two-stars-at-start": ("**/x", ["/srv/x", "/srv/a/b/x"], ["/srv/ax", "/x"]),
    "two-stars-within": ("/a**z", ["/az", "/ab/cz"], ["/a/b"]),
    "below-the-root": ("www/cache", ["/srv/www/cache"], ["/www/cache", "/srv/x/www/cache"]),
    "at-the-root": ("./tmp", ["/srv/tmp"], ["/tmp", "/srv/a/tmp"]),
    "set-without-slash": ("/srv[!a]x", ["/srvbx"], ["/srv/x", "/srvax"]),
    "not-utf-8": ("\udcff*", ["/\udcffx"], ["/x"]),
}


def matches(excludes: Excludes, path: str, is_directory: bool = False) -> bool:
    directory, _, name = path.encode("utf-8", "surrogateescape").rpartition(b"/")
    return excludes.match(directory, name, is_directory)


@pytest.mark.parametrize(("pattern", "out", "kept"), CASES.values(), ids=CASES)
def test_a_pattern(pattern: str, out: list[str], kept: list[str]) -> None:
    excludes = Excludes([pattern], root=ROOT)
    for path in out + kept:
        assert matches(excludes, path) == (path in out), path


@pytest.mark.parametrize("pattern", ["cache/", "/srv/cache/", "./cache/"])
def test_a_slash_at_the_end_means_directories_only(pattern: str) -> None:
    excludes = Excludes([pattern], root=ROOT)
    assert matches(excludes, "/srv/cache", is_directory=True)
    assert not matches(excludes, "/srv/cache", is_directory=False)


def test_the_last_pattern_that_matches_counts() -> None:
    excludes = Excludes(["*.tmp", "!keep*", "/srv/a/keep.tmp"], root=ROOT)
    assert matches(excludes, "/srv/x.tmp")
    assert not matches(excludes, "/srv/keep.tmp")
    assert matches(excludes, "/srv/a/keep.tmp")
    assert not matches(excludes, "/srv/a/other")


def test_several_patterns_add_up() -> None:
    excludes = Excludes(["*.tmp", "/srv/a|b", "/srv/c", "d"])
    names = [b"a", b"a|b", b"c", b"d", b"x.tmp", b"keep"]
    assert excludes.keep(b"/srv", names) == [b"a", b"keep"]


def test_patterns_below_the_root_need_one() -> None:
    excludes = Excludes(["www/cache", "name"])
    assert not matches(excludes, "/www/cache")
    assert matches(excludes, "/any/name")
    assert matches(excludes.below(b"/srv"), "/srv/www/cache")


def test_the_root_of_the_file_system_is_a_root() -> None:
    excludes = Excludes(["var/tmp"], root=b"")
    assert matches(excludes, "/var/tmp")
    assert not matches(excludes, "/srv/var/tmp")


def test_no_pattern_is_false() -> None:
    assert not Excludes([])
    assert Excludes(["x"])
    assert Excludes([], ["x"])


class TestTrees:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "root"
        for path in (
            "etc/app.conf",
            "etc/app.bak",
            "etc/sub/deep.conf",
            "etc/sub/deep.txt",
            "var/cache/a",
            "var/log/today.log",
            "var/log/keep/old.log",
            "readme",
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        (root / "link.conf").symlink_to("etc/app.conf")
        return root

    def saved(self, root: Path, **spec: object) -> list[str]:
        names = names_in(read(build(root, names="relative", **spec)))
        return [name.removeprefix("root").lstrip("/") for name in names][1:]

    def test_a_directory_that_is_left_out_is_not_entered(self, root: Path) -> None:
        assert self.saved(root, exclude=["log/", "!old.log", "*.bak", "*.conf", "sub"]) == [
            "readme",
            "etc",
            "var",
            "var/cache",
            "var/cache/a",
        ]

    def test_what_is_in_a_directory_can_be_brought_back(self, root: Path) -> None:
        assert self.saved(root, exclude=["*", "!var/", "!log/", "!*.log"]) == [
            "var",
            "var/log",
            "var/log/today.log",
        ]

    def test_include_saves_what_matches_and_the_way_to_it(self, root: Path) -> None:
        assert self.saved(root, include=["*.conf"]) == [
            "link.conf",
            "etc",
            "etc/app.conf",
            "etc/sub",
            "etc/sub/deep.conf",
        ]

    @pytest.mark.parametrize("pattern", ["var/log/", "log", "./var/log", "{root}/var/log"])
    def test_an_included_directory_is_saved_whole(self, root: Path, pattern: str) -> None:
        assert self.saved(root, include=[pattern.format(root=root)]) == [
            "var",
            "var/log",
            "var/log/today.log",
            "var/log/keep",
            "var/log/keep/old.log",
        ]

    def test_exclude_wins_over_include(self, root: Path) -> None:
        assert self.saved(root, include=["etc/"], exclude=["*.conf", "!app.conf"]) == [
            "etc",
            "etc/app.bak",
            "etc/app.conf",
            "etc/sub",
            "etc/sub/deep.txt",
        ]

    def test_an_include_can_be_taken_back(self, root: Path) -> None:
        assert self.saved(root, include=["etc/", "!sub/"]) == ["etc", "etc/app.bak", "etc/app.conf"]

    def test_an_empty_directory_can_be_included(self, root: Path) -> None:
        (root / "spool/empty").mkdir(parents=True)
        assert self.saved(root, include=["empty/"]) == ["spool", "spool/empty"]

    def test_an_include_that_finds_nothing_is_an_error(self, root: Path) -> None:
        with pytest.raises(SourceError, match="nothing that is included was found"):
            self.saved(root, include=["sub/etc/*.conf"])

    def test_a_mark_leaves_out_what_is_beside_it(self, root: Path) -> None:
        (root / "var/.nobackup").touch()
        (root / ".nobackup").touch()  # What is asked for by name is saved.
        assert self.saved(root, include=["var"], exclude_if_present=[".nobackup"]) == [
            "var",
            "var/.nobackup",
        ]

    def test_no_mark_counts_unless_it_is_asked_for(self, root: Path) -> None:
        (root / "var/.nobackup").touch()
        assert "var/cache/a" in self.saved(root)

    def test_a_cache_tag_needs_its_signature(self, root: Path) -> None:
        tag = root / "var/cache/CACHEDIR.TAG"
        tag.write_text("x")
        assert "var/cache/a" in self.saved(root, exclude_if_present=["CACHEDIR.TAG"])
        tag.write_text("Signature: 8a477f597d28d172789f06886806bc55\n# a cache\n")
        saved = self.saved(root, exclude_if_present=["CACHEDIR.TAG"])
        assert [name for name in saved if name.startswith("var/cache")] == [
            "var/cache",
            "var/cache/CACHEDIR.TAG",
        ]

    def test_an_excluded_mark_still_counts(self, root: Path) -> None:
        (root / "var/.nobackup").touch()
        saved = self.saved(root, exclude=[".nobackup"], exclude_if_present=[".nobackup"])
        assert [name for name in saved if name.startswith("var")] == ["var"]

    def test_a_name_of_any_bytes_can_be_a_mark(self, root: Path) -> None:
        (root / os.fsdecode(b"var/\xff")).touch()
        assert "var/cache" not in self.saved(root, exclude_if_present=[os.fsdecode(b"\xff")])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("exclude", ""),
        ("exclude", "!"),
        ("exclude", "/"),
        ("exclude", "./"),
        ("include", "a\0b"),
        ("exclude_if_present", ""),
        ("exclude_if_present", "a/b"),
        ("exclude_if_present", ".."),
        ("readers", 0),
        ("readers", 257),
    ],
)
def test_what_cannot_be_meant_is_refused(key: str, value: object) -> None:
    wrong = {key: value if key == "readers" else [value]}
    with pytest.raises(ValidationError):
        FilesSource.model_validate({"type": "files", "paths": ["/srv"], **wrong})
