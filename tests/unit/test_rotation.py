"""Rotation on a storage: only ours, only complete decisions, and safe to stop half-way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pipeline import catalog, manifest, shards
from pipeline.cli.restore import Found, by_artifact
from pipeline.errors import StorageError
from pipeline.naming import ObjectName, quote_name
from pipeline.stage import Storage
from schemas.manifest import Manifest, ManifestShard, ManifestSource
from schemas.retention import RetentionPolicy
from schemas.storages import MemoryStorage
from stages import rotate
from stages.storages import memory
from tests.contracts.storage import put
from tests.fakes import TAKEN_AT, FakeSource, FaultyStorage

OWNER = ("project", "host")
LAST_2 = RetentionPolicy(last=2)
NOW = TAKEN_AT + timedelta(days=30)


@pytest.fixture
def storage() -> Iterator[memory.Memory]:
    memory.clear()
    yield memory.Memory(MemoryStorage(type="memory", path="nas"))
    memory.clear()


def store(
    storage: Storage, day: int, backup: str = "db", artifact: str = "crm", **changes: Any
) -> ObjectName:
    """Put a backup there, as a run would have done on that day."""
    name = ObjectName(backup, artifact, TAKEN_AT + timedelta(days=day), ".sql")
    document = Manifest(
        program_version="4",
        run=f"run{day}",
        project=OWNER[0],
        host=OWNER[1],
        backup=backup,
        artifact=artifact,
        taken_at=name.taken_at,
        object=name.path.rpartition("/")[2],
        source=ManifestSource(type="fake"),
        stored_size=4,
        stored_sha256="0" * 64,
        plain_size=4,
        restore="cat x",
    ).model_copy(update=changes)
    put(storage, name.path, [b"data"])
    put(storage, name.manifest, [manifest.dump(document)])
    return name


def rotated(storage: Storage, prefix: str = "db", policy: RetentionPolicy = LAST_2) -> list[str]:
    removed: list[str] = []
    rotate.rotate(storage, "nas", prefix, policy, OWNER, NOW, removed.append)
    return removed


def objects(storage: Storage) -> set[str]:
    return {info.name for info in storage.list("") if not info.name.endswith(".json")}


def test_it_removes_object_and_manifest_of_what_the_policy_does_not_keep(
    storage: memory.Memory,
) -> None:
    names = [store(storage, day) for day in range(4)]
    assert rotated(storage) == [names[0].path, names[1].path]
    left = {name for kept in names[2:] for name in (kept.path, kept.manifest)}
    assert {info.name for info in storage.list("")} == left


def test_each_artifact_is_judged_on_its_own(storage: memory.Memory) -> None:
    for artifact in ("crm", "crm2", "c/r m"):
        for day in range(3):
            store(storage, day, artifact=artifact)
    assert len(rotated(storage)) == 3
    assert len(objects(storage)) == 6


def test_rotating_one_artifact_leaves_the_others(storage: memory.Memory) -> None:
    for artifact in ("crm", "crm2"):
        for day in range(3):
            store(storage, day, artifact=artifact)
    assert len(rotated(storage, "db/" + quote_name("crm"))) == 1
    assert sum("/crm2/" in name for name in objects(storage)) == 3


@pytest.mark.parametrize("other", ["db2", "db-daily", "d", "db.old", "weekly"])
def test_another_backup_is_never_touched_whatever_its_name(
    storage: memory.Memory, other: str
) -> None:
    for day in range(5):
        store(storage, day, backup=other)
        store(storage, day)
    rotated(storage)
    assert sum(name.startswith(other + "/") for name in objects(storage)) == 5


@pytest.mark.parametrize("changes", [{"project": "other"}, {"host": "other"}])
def test_what_another_project_or_host_wrote_is_never_touched(
    storage: memory.Memory, changes: dict[str, str]
) -> None:
    theirs = [store(storage, day, **changes) for day in range(3)]
    ours = [store(storage, day) for day in range(10, 13)]
    assert rotated(storage) == [ours[0].path]
    assert {name.path for name in theirs} <= objects(storage)


def test_files_that_only_look_like_ours_are_never_touched(storage: memory.Memory) -> None:
    strangers = {
        "db/crm/crm_2020-01-01T00-00-00Z.sql": b"no manifest",
        "db/crm/readme.txt": b"a note",
        "db/crm/x.manifest.json": b"{}",
        "db/crm/crm_2020-01-02T00-00-00Z.sql.manifest.json": b"not json",
    }
    for name, content in strangers.items():
        put(storage, name, [content])
    for day in range(4):
        store(storage, day)
    # A manifest that was copied to another name describes something else.
    real = store(storage, 5)
    copied = real.directory + "/crm_2020-01-03T00-00-00Z.sql.manifest.json"
    put(storage, copied, [b"".join(storage.open(real.manifest))])
    rotated(storage)
    assert {*strangers, copied} <= {info.name for info in storage.list("")}


def test_a_damaged_newest_does_not_push_out_the_last_good_one(storage: memory.Memory) -> None:
    good = store(storage, 0)
    for day in (1, 2):
        storage.delete([store(storage, day).path])
    rotated(storage, policy=RetentionPolicy(last=1))
    assert good.path in objects(storage)


def test_a_partial_newest_does_not_push_out_the_last_complete_one(storage: memory.Memory) -> None:
    complete = store(storage, 0)
    partial = [store(storage, day, skipped_total=1) for day in (1, 2)]
    rotated(storage, policy=RetentionPolicy(last=1))
    assert objects(storage) == {complete.path, partial[1].path}


def test_a_rotation_that_stops_half_way_is_finished_by_the_next(storage: memory.Memory) -> None:
    names = [store(storage, day) for day in range(4)]

    class Dies(FaultyStorage):
        def delete(self, names: Sequence[str]) -> None:
            if names[0].endswith(".json"):
                raise StorageError("gone")
            super().delete(names)

    with pytest.raises(StorageError):
        rotated(Dies(storage, ""))
    assert names[0].path not in objects(storage)
    assert len(catalog.read(storage, "nas", "db")) == 4
    rotated(storage)
    assert [entry.path for entry in catalog.read(storage, "nas", "db")] == [
        names[2].path,
        names[3].path,
    ]


def test_reasons_are_told(storage: memory.Memory) -> None:
    store(storage, 0)
    entries = catalog.read(storage, "nas", "db")
    planned = rotate.plan_rotation(entries, RetentionPolicy(daily=3), OWNER, NOW)
    assert [reasons for _, reasons in planned.keep] == [("newest", "daily 2026-11-23")]


def test_leftovers_of_others_are_left_for_a_week(storage: memory.Memory) -> None:
    theirs = "ffffffff-20261123T031500Z-abcdef"
    writer = storage.create("db/crm/crm_2026-11-23T03-15-00Z.sql", theirs)
    writer.write(b"x")
    six, eight = TAKEN_AT + timedelta(days=6), TAKEN_AT + timedelta(days=8)
    assert rotate.leftovers(storage, "db", "01234567", six) == []
    assert len(rotate.leftovers(storage, "db", "01234567", eight)) == 1
    assert len(rotate.leftovers(storage, "db", "ffffffff", six)) == 1


def test_listing_tells_what_is_damaged(storage: memory.Memory) -> None:
    whole, missing, cut = (store(storage, day) for day in range(3))
    storage.delete([missing.path, cut.path])
    put(storage, cut.path, [b"d"])
    damage = {entry.path: entry.damage for entry in catalog.read(storage, "nas", "db")}
    assert damage == {
        whole.path: None,
        missing.path: "the object is missing",
        cut.path: "the object has 1 bytes instead of 4",
    }


def test_at_takes_the_newest_up_to_a_time(storage: memory.Memory) -> None:
    names = [store(storage, day) for day in range(3)]
    store(storage, 0, artifact="other")
    entries = catalog.read(storage, "nas", "db")

    def chosen(when: str) -> set[str]:
        return {entry.path for entry in catalog.at(entries, when)}

    assert len(chosen("all")) == 4
    assert names[2].path in chosen("latest")
    assert len(chosen("latest")) == 2
    noon = (TAKEN_AT + timedelta(days=1, hours=9)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert names[1].path in chosen(noon)
    assert chosen("2020-01-01T00:00:00Z") == set()


def test_a_manifest_of_a_newer_program_is_still_read(storage: memory.Memory) -> None:
    name = store(storage, 0)
    text = b"".join(storage.open(name.manifest)).decode()
    storage.delete([name.manifest])
    newer = text.replace('"format_version": 1', '"format_version": 2, "unheard_of": {"x": []}')
    put(storage, name.manifest, [newer.encode()])
    assert [entry.damage for entry in catalog.read(storage, "nas", "db")] == [None]


def test_800_days_on_a_storage_keep_what_the_policy_says(storage: memory.Memory) -> None:
    policy = RetentionPolicy(daily=7, weekly=5, monthly=12)
    for day in range(800):
        now = datetime(2026, 1, 1, 3, 15, tzinfo=timezone.utc) + timedelta(days=day)
        store(storage, (now - TAKEN_AT).days)
        rotate.rotate(storage, "nas", "db/crm", policy, OWNER, now, lambda _: None)
    kept = [entry.manifest.taken_at for entry in catalog.read(storage, "nas", "db")]
    newest_of = {when.strftime("%Y-%m"): when for when in sorted(kept)}
    assert len(newest_of) == 12
    # 7 days; 4 more Sundays, of which some are among them or end a month; 11 more month ends.
    assert 7 + 4 + 11 - 3 <= len(kept) <= 7 + 4 + 11


def store_shards(storage: Storage, day: int, count: int, without: int = 0) -> list[ObjectName]:
    """Put all shards of one day there, but one."""
    return [
        store(
            storage,
            day,
            artifact=f"srv.shard-{number}",
            shard=ManifestShard(of="srv", number=number, count=count),
        )
        for number in range(1, count + 1)
        if number != without
    ]


def test_shards_of_one_time_stay_and_go_together(storage: memory.Memory) -> None:
    days = [store_shards(storage, day, 3) for day in range(3)]
    assert rotated(storage) == [name.path for name in days[0]]
    assert objects(storage) == {name.path for names in days[1:] for name in names}


def test_a_set_without_one_of_its_shards_pushes_out_no_whole_one(storage: memory.Memory) -> None:
    whole = store_shards(storage, 0, 3)
    store_shards(storage, 1, 3, without=2)
    assert rotated(storage, policy=RetentionPolicy(last=1)) == []
    assert {name.path for name in whole} <= objects(storage)


def test_sets_of_different_numbers_of_shards_are_told_apart(storage: memory.Memory) -> None:
    many, few = store_shards(storage, 0, 4), store_shards(storage, 1, 2)
    assert rotated(storage, policy=RetentionPolicy(last=1)) == [name.path for name in many]
    assert objects(storage) == {name.path for name in few}


def test_rotating_one_set_of_shards_leaves_others(storage: memory.Memory) -> None:
    for day in range(3):
        store_shards(storage, day, 2)
        store(storage, day, artifact="crm")
    removed: list[str] = []
    policy = RetentionPolicy(last=1)
    rotate.rotate(storage, "nas", "db", policy, OWNER, NOW, removed.append, "srv")
    assert len(removed) == 4
    assert all("/srv.shard-" in path for path in removed)


def test_a_set_with_a_missing_or_damaged_shard_is_incomplete(storage: memory.Memory) -> None:
    store_shards(storage, 0, 2)
    store_shards(storage, 1, 2, without=1)
    damaged = store_shards(storage, 2, 2)[1]
    storage.delete([damaged.path])
    entries = catalog.read(storage, "nas", "db")
    found = shards.incomplete(entries)
    assert [moment for _, moment in found] == [TAKEN_AT + timedelta(days=day) for day in (1, 2)]


def test_what_one_storage_lacks_of_a_set_may_be_on_another(storage: memory.Memory) -> None:
    other = memory.Memory(MemoryStorage(type="memory", path="offsite"))
    store_shards(storage, 0, 2, without=1)
    store_shards(other, 0, 2, without=2)
    both = catalog.read(storage, "nas", "db") + catalog.read(other, "offsite", "db")
    assert shards.incomplete(both) == []


def test_of_sets_of_different_numbers_of_shards_only_the_newest_is_restored(
    storage: memory.Memory,
) -> None:
    store_shards(storage, 0, 4)
    few = store_shards(storage, 1, 2)
    crm = store(storage, 0, artifact="crm")
    entries = catalog.at(catalog.read(storage, "nas", "db"), "latest")
    assert len(entries) == 5
    assert {entry.path for entry in shards.newest(entries)} == {
        *(name.path for name in few),
        crm.path,
    }


def test_shards_of_earlier_times_are_not_restored_over_a_copy_without_shards(
    storage: memory.Memory,
) -> None:
    store_shards(storage, 0, 2)
    whole = store(storage, 1, artifact="srv")
    entries = catalog.at(catalog.read(storage, "nas", "db"), "latest")
    assert [entry.path for entry in shards.newest(entries)] == [whole.path]


@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        ((), (), ["app", "roles", "web"]),
        (("roles",), (), ["roles", "app", "web"]),
        ((), ("roles",), ["app", "web", "roles"]),
    ],
)
def test_artifacts_are_restored_in_the_order_that_their_source_wants(
    storage: memory.Memory, first: tuple[str, ...], last: tuple[str, ...], wanted: list[str]
) -> None:
    for artifact in ("app", "roles", "web"):
        store(storage, 0, artifact=artifact)
    source = FakeSource()
    source.first, source.last = first, last
    found = [Found(storage, entry, [entry]) for entry in catalog.read(storage, "nas", "db")]
    assert list(by_artifact(found, source)) == wanted
