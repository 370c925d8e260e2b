"""Exclude patterns: which paths they leave out."""

from __future__ import annotations

import pytest

from stages.sources._files.exclude import Excludes

CASES = {
    "name-anywhere": ("cache", ["/cache", "/a/b/cache"], ["/cache2", "/a/xcache", "/cache/x"]),
    "star-in-name": ("*.tmp", ["/a.tmp", "/a/.tmp", "/a/\n.tmp"], ["/a.tmp/x", "/a.tmpx"]),
    "question-mark": ("?.log", ["/a.log"], ["/.log", "/ab.log"]),
    "set": ("[a-c].x", ["/a.x", "/c.x"], ["/d.x", "/-.x"]),
    "negated-set": ("[!a-c].x", ["/d.x"], ["/a.x", "/.x"]),
    "bracket-in-set": ("[]]x", ["/]x"], ["/[x", "/x"]),
    "open-bracket": ("[x", ["/[x"], ["/x"]),
    "special-letters": ("a.b+(c)^$", ["/a.b+(c)^$"], ["/aab+(c)^$"]),
    "whole-path": ("/srv/www", ["/srv/www"], ["/www", "/x/srv/www", "/srv/www/x", "/srv/www2"]),
    "star-keeps-to-its-part": ("/srv/*/x", ["/srv/a/x"], ["/srv/x", "/srv/a/b/x"]),
    "star-and-dot": ("/srv/*", ["/srv/.hidden", "/srv/a"], ["/srv/a/b", "/srv"]),
    "two-stars-inside": ("/srv/**/x", ["/srv/x", "/srv/a/x", "/srv/a/b/x"], ["/srvx", "/srv/ax"]),
    "two-stars-at-end": ("/srv/**", ["/srv/a", "/srv/a/b"], ["/srv", "/srva"]),
    "two-stars-at-start": ("**/x", ["/x", "/a/b/x"], ["/ax"]),
    "two-stars-within": ("/a**z", ["/az", "/ab/cz"], ["/a/b"]),
    "part-of-path": ("www/cache", ["/www/cache", "/srv/www/cache"], ["/srv/xwww/cache", "/cache"]),
    "slash-at-end": ("/srv/www/", ["/srv/www"], ["/srv"]),
    "set-without-slash": ("/srv[!a]x", ["/srvbx"], ["/srv/x", "/srvax"]),
    "not-utf-8": ("\udcff*", ["/\udcffx"], ["/x"]),
    "empty": ("", [], ["/", "/a"]),
}


@pytest.mark.parametrize(("pattern", "out", "kept"), CASES.values(), ids=CASES)
def test_a_pattern(pattern: str, out: list[str], kept: list[str]) -> None:
    excludes = Excludes([pattern])
    for path in out + kept:
        directory, _, name = path.encode("utf-8", "surrogateescape").rpartition(b"/")
        assert excludes.match(directory, name) == (path in out), path


def test_several_patterns_add_up() -> None:
    excludes = Excludes(["*.tmp", "/srv/a|b", "/srv/c", "d"])
    names = [b"a", b"a|b", b"c", b"d", b"x.tmp", b"keep"]
    assert excludes.keep(b"/srv", names) == [b"a", b"keep"]


def test_no_pattern_is_false() -> None:
    assert not Excludes([])
    assert Excludes(["x"])
