"""What counts as a change of a file, and of its directory."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from stages.sources._files.compare import ENOUGH, Comparison
from stages.sources._files.listing import Listing, Row, pack

ALL = ("mode", "owner", "inode", "size", "mtime", "ctime")
FILE = Row(stat.S_IFREG | 0o644, 1, 2, 1, 100, 1000, 5_000, 6_000)
OWN = Row(stat.S_IFDIR | 0o755, 1, 2, 2, 99, 2049, 7_000, 8_000)


def listing(own: Row = OWN, **files: Row) -> Listing:
    names = [name.encode() for name in sorted(files)]
    rows = [own, *(files[name] for name in sorted(files))]
    return Listing(b"/d", (len(files), 0, 0), b"\0".join(names), b"".join(map(pack, rows)))


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("mode", {"mode": stat.S_IFREG | 0o600}),
        ("owner", {"uid": 9}),
        ("owner", {"gid": 9}),
        ("size", {"size": 1001}),
        ("mtime", {"mtime_ns": 4_999}),
        ("ctime", {"ctime_ns": 6_001}),
        ("inode", {"ino": 101}),
    ],
)
def test_each_key_counts_unless_it_is_left_out(key: str, change: dict[str, Any]) -> None:
    old, new = listing(a=FILE, b=FILE), listing(a=FILE, b=FILE._replace(**change))
    for counted, expected in ((ALL, {b"b"}), (tuple({*ALL} - {key}), set())):
        comparison = Comparison(counted)
        assert not comparison.same(old, new)
        assert comparison.settle(comparison.compare(old, new)) == expected


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO])
def test_the_type_always_counts(kind: int) -> None:
    comparison = Comparison(["mtime"])
    changes = comparison.compare(listing(a=FILE), listing(a=FILE._replace(mode=kind | 0o644)))
    assert changes.names == {b"a"}


def test_the_number_of_a_device_always_counts() -> None:
    device = FILE._replace(mode=stat.S_IFBLK | 0o600)
    other = device._replace(size=device.size + 1)
    assert Comparison(["mtime"]).compare(listing(a=device), listing(a=other)).names == {b"a"}


def test_a_row_that_is_in_doubt_has_changed() -> None:
    doubtful = listing(a=FILE._replace(mode=0))
    assert Comparison(["mtime"]).compare(doubtful, listing(a=FILE)).names == {b"a"}
    assert Comparison(ALL).compare(listing(a=FILE), listing(a=FILE), {b"a"}).names == {b"a"}


def test_the_number_of_names_alone_is_no_change() -> None:
    changes = Comparison(ALL).compare(listing(a=FILE), listing(a=FILE._replace(nlink=2)))
    assert not changes.own
    assert changes.names == set()


@pytest.mark.parametrize(
    ("own", "changed"),
    [
        (OWN._replace(mtime_ns=1), True),
        (OWN._replace(mode=stat.S_IFDIR | 0o700), True),
        (OWN._replace(ino=5, nlink=7, size=2050), False),
    ],
)
def test_a_directory_itself(own: Row, changed: bool) -> None:
    assert Comparison(ALL).compare(listing(a=FILE), listing(own, a=FILE)).own is changed


def test_what_was_removed_or_added_changes_the_list() -> None:
    fewer = Comparison(ALL).compare(listing(a=FILE, b=FILE), listing(a=FILE))
    assert (fewer.own, fewer.names) == (True, set())
    more = Comparison(ALL).compare(listing(a=FILE), listing(a=FILE, b=FILE))
    assert (more.own, more.names) == (True, {b"b"})


def test_another_device_matters_only_when_it_is_asked_for() -> None:
    old, new = listing(a=FILE), listing(OWN._replace(size=2050), a=FILE)
    assert Comparison(ALL).compare(old, new).names == set()
    assert Comparison((*ALL, "device")).compare(old, new).names == {b"a"}


def many(offset: int, count: int = ENOUGH) -> Listing:
    files = {f"f{number:04}": FILE._replace(ino=offset + number) for number in range(count)}
    return listing(**files)


def test_inodes_that_all_change_are_made_up() -> None:
    comparison = Comparison(ALL)
    changes = comparison.compare(many(1000), many(9000))
    assert comparison.inodes_are_made_up
    assert comparison.settle(changes) == set()


def test_a_few_files_do_not_prove_it() -> None:
    comparison = Comparison(ALL)
    changes = comparison.compare(many(1000, 20), many(9000, 20))
    assert not comparison.inodes_are_made_up
    assert len(comparison.settle(changes)) == 20


def test_where_files_keep_their_inodes_another_one_is_another_file() -> None:
    comparison = Comparison(ALL)
    comparison.compare(many(1000), many(1000))
    changes = comparison.compare(many(1000), many(9000))
    assert not comparison.inodes_are_made_up
    assert len(comparison.settle(changes)) == ENOUGH
