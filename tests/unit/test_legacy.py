"""Old copies of nxs-backup v3: recognised by their names, aged out, never left without a base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.legacy import OldCopy, Tree, base_of, find, plan_rotation, tree_for
from pipeline.stage import ObjectInfo
from schemas.mongodb import MongodbSource
from schemas.mysql import MysqlSource
from schemas.retention import RetentionPolicy
from schemas.sources import CommandSource, FilesSource
from schemas.storages import MemoryStorage
from stages import rotate
from stages.storages import memory
from tests.contracts.storage_subject import put
from tests.unit.test_rotation import NOW, OWNER, store
from tests.v3_trees import Increments, Placed, days, discrete, moment

MYSQL = tree_for(MysqlSource(type="mysql"), "db", "prod")
FILES = tree_for(FilesSource(type="files", paths=["/srv/www/*/data", "/etc"]), "www", "site")
SERVER = Tree("cache", False, "rdb", lambda _: None)
PROGRAM = tree_for(CommandSource(type="command", command=["x"]), "ldap", None)
WEEK = RetentionPolicy(daily=7)


def listing(copies: Iterable[Placed], links: bool = False) -> list[ObjectInfo]:
    """As a storage lists them: links are not listed, copies are."""
    return [
        ObjectInfo(path, 3) for copy in copies for path in (copy.paths if links else copy.paths[:1])
    ]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("prod/shop/daily/shop_2026-11-23_03-15.sql", MYSQL),
        ("prod/shop/weekly/shop_2026-11-22_03-15.sql.gz", MYSQL),
        ("site/a___b/monthly/a___b_2026-11-01_03-15.tar.gz", FILES),
        ("site/a/2026/year/a_2026-01-01_03-15.tar", FILES),
        ("site/a/2026/month_11/monthly/a_2026-11-01_03-15.tar.gz", FILES),
        ("site/a/2026/month_11/day_21/a_2026-11-23_03-15.tar.gz", FILES),
        ("cache/daily/cache_2026-11-23_03-15.rdb.gz", SERVER),
        ("ldap/daily/dump-2026-11-23_03-15.ldif.gz", PROGRAM),
        ("ldap/daily/2026-11-23_03-15", PROGRAM),
    ],
)
def test_what_v3_wrote_is_found(path: str, tree: Tree) -> None:
    (found,) = find([ObjectInfo(path, 5)], tree)
    assert found.path == path
    assert (found.size, f"{found.taken_at:%m}") in [(5, "11"), (5, "01")]


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("prod/shop/shop_2026-11-23T03-15-00Z.sql.gz", MYSQL),  # ours
        ("prod/shop/daily/shop_2026-11-23_03-15.sql.gz.manifest.json", MYSQL),
        ("prod/shop/daily/crm_2026-11-23_03-15.sql.gz", MYSQL),  # of another target
        ("prod/shop/daily/shop_2026-11-23_03-15.tar.gz", MYSQL),  # of another type of job
        ("prod/shop/daily/shop_2026-13-23_03-15.sql", MYSQL),  # no date
        ("prod/shop/hourly/shop_2026-11-23_03-15.sql", MYSQL),
        ("prod/shop/daily/deep/shop_2026-11-23_03-15.sql", MYSQL),
        ("prod/daily/prod_2026-11-23_03-15.sql", MYSQL),  # without the level of the target
        ("production/shop/daily/shop_2026-11-23_03-15.sql", MYSQL),  # only begins like it
        ("prod/shop/2026/year/shop_2026-01-01_03-15.sql", MYSQL),  # no increments there
        ("prod", MYSQL),
        ("site/a/2026/inc_meta_info/year.inc", FILES),
        ("site/a/2026/month_13/monthly/a_2026-11-01_03-15.tar", FILES),
        ("site/a/2026/month_11/day_12/a_2026-11-12_03-15.tar", FILES),
        ("site/a/26/year/a_2026-01-01_03-15.tar", FILES),
        ("cache/x/daily/x_2026-11-23_03-15.rdb", SERVER),
        ("cache/daily/other_2026-11-23_03-15.rdb", SERVER),
        ("ldap/daily/dump.ldif.gz", PROGRAM),  # no time in its name
        ("ldap/daily/12026-11-23_03-155", PROGRAM),
        ("ldap/2026-11-23_03-15", PROGRAM),
    ],
)
def test_anything_else_is_not_touched(path: str, tree: Tree) -> None:
    assert find([ObjectInfo(path, 5)], tree) == []


@pytest.mark.parametrize("links", [False, True])
def test_a_copy_in_several_periods_is_one(links: bool) -> None:
    sunday_the_first = moment("2026-11-01 03:15")
    placed = list(discrete("prod/shop", "shop", [sunday_the_first], ".sql.gz"))
    assert len(placed[0].paths) == 3
    (found,) = find(listing(placed, links), MYSQL)
    assert found.path == placed[0].paths[0]
    assert sorted(found.names) == sorted(placed[0].paths)
    assert found.names[-1] == found.path  # what links lead to goes last


def test_others_may_share_the_directory() -> None:
    source = MysqlSource(type="mysql", databases=["shop", "crm_*"], exclude=["crm_old"])
    tree = tree_for(source, "db", "prod")
    names = ["shop", "crm_new", "crm_old", "other"]
    runs = [moment("2026-11-23 03:15")]
    placed = [copy for name in names for copy in discrete(f"prod/{name}", name, runs, ".sql")]
    assert [copy.target for copy in find(listing(placed), tree)] == ["crm_new", "shop"]


@pytest.mark.parametrize(
    ("target", "artifacts"),
    [
        ("shop.example", ["srv-www-shop.example-data"]),
        ("etc", ["etc", "srv-www-etc-data"]),
        ("a___b", []),
    ],
)
def test_a_path_is_known_by_the_name_that_v3_gave_it(target: str, artifacts: list[str]) -> None:
    assert FILES.counterparts(target) == frozenset(artifacts)


def test_single_artifacts_take_the_place_of_all() -> None:
    source = MongodbSource(type="mongodb", artifact="single")
    assert tree_for(source, "b", None).counterparts("shop") is None


# -- decisions -------------------------------------------------------------------------------------


def kept(
    copies: Sequence[OldCopy],
    policy: RetentionPolicy,
    now: str,
    own: Sequence[tuple[str, datetime]] = (),
    tree: Tree = MYSQL,
) -> list[str]:
    rotation = plan_rotation(copies, own, tree, policy, moment(now))
    assert len(rotation.keep) + len(rotation.remove) == len(copies)
    return [f"{copy.taken_at:%m-%d}" for copy, _ in rotation.keep]


def test_old_copies_age_out_as_new_ones_come() -> None:
    placed = discrete("prod/shop", "shop", days("2026-11-01 03:15", "2026-11-10 03:15"), ".sql")
    copies = find(listing(placed), MYSQL)
    assert kept(copies, WEEK, "2026-11-10 12:00")[-1] == "11-04"
    for number in range(1, 9):
        own = [("shop", moment(f"2026-11-{10 + n} 03:15")) for n in range(1, number + 1)]
        left = kept(copies, WEEK, f"2026-11-{10 + number} 12:00", own)
        assert len(left) == max(0, 7 - number)


def test_without_a_new_copy_of_the_same_thing_the_newest_stays() -> None:
    placed = [
        *discrete("prod/shop", "shop", days("2025-01-01 03:15", "2025-01-05 03:15"), ".sql"),
        *discrete("prod/gone", "gone", days("2025-01-01 03:15", "2025-01-03 03:15"), ".sql"),
    ]
    copies = find(listing(placed), MYSQL)
    own = [("shop", moment("2026-11-10 03:15"))]
    within = RetentionPolicy.model_validate({"within": "7d"})
    rotation = plan_rotation(copies, own, MYSQL, within, moment("2026-11-10 12:00"))
    assert [(copy.target, reasons) for copy, reasons in rotation.keep] == [("gone", ("newest",))]


def test_an_empty_file_is_not_the_newest_copy() -> None:
    objects = [
        ObjectInfo("prod/shop/daily/shop_2025-01-01_03-15.sql", 9),
        ObjectInfo("prod/shop/daily/shop_2025-01-02_03-15.sql", 0),
    ]
    within = RetentionPolicy.model_validate({"within": "1d"})
    assert kept(find(objects, MYSQL), within, "2026-01-01 00:00") == ["01-01"]


def test_ours_are_decided_on_alone() -> None:
    """Copies of v3 that are newer than ours, because it still runs, push none of ours out."""
    memory.clear()
    storage = memory.Memory(MemoryStorage(type="memory", path="nas"))
    ours = [store(storage, day, backup="prod", artifact="shop").path for day in (0, 1)]
    for day in range(10, 20):
        put(storage, f"prod/shop/daily/shop_2026-12-{day}_03-15.sql", [b"old"])
    two = RetentionPolicy(last=2)
    removed: list[str] = []
    rotate.rotate(storage, "nas", "prod", two, OWNER, NOW, removed.append)
    where = (storage, "nas", "prod", MYSQL, two, OWNER, NOW)
    assert len(rotate.plan_legacy(*where).remove) == 8
    rotate.rotate_legacy(*where, removed.append)
    assert len(removed) == 8
    assert set(ours) <= {info.name for info in storage.list("")}
    assert not set(ours) & set(removed)
    memory.clear()


# -- increments ------------------------------------------------------------------------------------


def year_of_increments(runs: Iterable[datetime], over_sftp: bool = False) -> list[Placed]:
    job = Increments("site/a", "a", over_sftp=over_sftp)
    return [placed for run in runs if (placed := job.run(run)) is not None]


@pytest.mark.parametrize("over_sftp", [False, True])
@pytest.mark.parametrize("links", [False, True])
def test_what_an_increment_needs_has_what_v3_took_in_it(links: bool, over_sftp: bool) -> None:
    placed = year_of_increments(days("2026-03-15 03:15", "2026-12-31 03:15"), over_sftp)
    copies = find(listing(placed, links), FILES)
    assert len(copies) == len(placed) == 292
    by_path = {copy.path: copy for copy in copies}
    for copy in placed:
        base = base_of(by_path[copy.paths[0]], copies)
        needed = []
        while base is not None:
            needed.append(base.path)
            base = base_of(base, copies)
        assert copy.base in [*needed, None]
        assert len(needed) <= 1 + 3 * 10  # the full copy, and three a month
    assert [copy.level for copy in copies[:8]] == [0, 3, 3, 3, 3, 3, 2, 3]


def test_a_month_builds_on_the_month_before() -> None:
    placed = year_of_increments(days("2026-01-01 03:15", "2026-04-05 03:15"))
    copies = find(listing(placed), FILES)
    left = kept(copies, RetentionPolicy(last=1), "2026-04-05 12:00", tree=FILES)
    months = [f"{month:02}-{day:02}" for month in (3, 2, 1) for day in (21, 11, 1)]
    assert left == ["04-05", "04-01", *months]


def test_all_names_of_an_increment_go_and_its_indexes_with_the_last_of_a_year() -> None:
    placed = year_of_increments([moment("2026-01-01 03:15"), moment("2026-01-02 03:15")])
    copies = find(listing(placed), FILES)
    own = [("srv-www-a-data", moment("2026-05-01 03:15"))]
    rotation = plan_rotation(
        copies, own, FILES, RetentionPolicy(last=1), moment("2026-05-02 00:00")
    )
    assert [copy.path for copy in rotation.remove] == [placed[1].paths[0], placed[0].paths[0]]
    links, file, indexes = rotation.steps(copies[0])
    assert file == [placed[0].paths[0]]
    assert set(placed[0].paths[1:]) <= set(links)
    assert indexes == [f"site/a/2026/inc_meta_info/{n}.inc" for n in ("year", "month", "day")]
    assert len(rotation.steps(copies[1])) == 2


@st.composite
def histories(draw: st.DrawFn) -> list[Placed]:
    """Runs of v3 with gaps, several a day, and some that are delivered after midnight."""
    job = Increments("site/a", "a", over_sftp=draw(st.booleans()))
    now = moment("2026-01-01 00:00") + timedelta(days=draw(st.integers(0, 500)))
    placed: dict[str, Placed] = {}
    for _ in range(draw(st.integers(1, 60))):
        now += timedelta(hours=draw(st.sampled_from([3, 22, 24, 24, 24, 24, 24, 49, 24 * 12])))
        takes = timedelta(hours=draw(st.sampled_from([0, 0, 0, 0, 6])))
        copy = job.run(now, takes)
        if copy is not None:
            placed[copy.paths[0]] = copy
        now += takes
    return list(placed.values())


policies = st.builds(
    RetentionPolicy,
    last=st.integers(1, 9),
    daily=st.none() | st.integers(1, 20),
    weekly=st.none() | st.integers(1, 9),
    monthly=st.none() | st.integers(1, 9),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories(), policies, st.booleans(), st.data())
def test_nothing_that_can_be_restored_loses_what_it_builds_on(
    history: list[Placed], policy: RetentionPolicy, links: bool, data: st.DataObject
) -> None:
    copies = find(listing(history, links), FILES)
    assert len(copies) == len(history)
    number = data.draw(st.integers(0, 10))
    end = history[-1].started
    own = [("srv-www-a-data", end + timedelta(days=n + 1)) for n in range(number)]
    rotation = plan_rotation(copies, own, FILES, policy, end + timedelta(days=number + 1))
    stays = {copy.path for copy, _ in rotation.keep}
    truth = {copy.paths[0]: copy.base for copy in history}
    existing = set(truth)
    for path in stays:
        chain = list(_chain(path, truth))
        if set(chain) <= existing and _in_one_tree(chain):
            assert set(chain) <= stays
    # In the order of removal, nothing goes before what builds on it.
    gone: set[str] = set()
    for copy in rotation.remove:
        base = base_of(copy, copies)
        assert base is None or base.path not in gone
        gone.add(copy.path)


def _chain(path: str, truth: dict[str, str | None]) -> Iterator[str]:
    """What a copy is restored from, by what v3 really did."""
    current: str | None = path
    while current is not None:
        yield current
        current = truth.get(current)


def _in_one_tree(chain: Sequence[str]) -> bool:
    """v3 removes the tree of a year as a whole: what reaches into another cannot be restored."""
    return len({path.split("/")[2] for path in chain}) == 1
