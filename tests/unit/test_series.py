"""Series of increments: which copy builds on which, their indexes on the storages, their end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline import catalog, manifest, registry
from pipeline.cli.restore import Found
from pipeline.context import StageContext
from pipeline.engine import ArtifactRun, RunIdentity
from pipeline.errors import StorageUnavailable
from pipeline.events import EventBus
from pipeline.graph import BranchPlan, Plan
from pipeline.naming import part_name, run_token
from pipeline.report import ArtifactReport, Outcome
from pipeline.series import Copy, Placement, bases, chain, decide, place
from pipeline.stage import CHUNK, Artifact, ObjectInfo, Storage
from schemas.age_keys import IDENTITY, encode_bech32
from schemas.retention import RetentionPolicy
from schemas.storages import MemoryStorage
from stages import rotate
from stages.storages import memory
from tests.contracts.storage import put, read
from tests.fakes import ARTIFACT, TAKEN_AT, FakeSource, FaultyStorage, branch, plan

OWNER = ("project", "host")
DAY = timedelta(days=1)
V3 = ("yearly", "monthly", "ten_days", "daily")


def on(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def levels(days: Iterable[str], periods: tuple[str, ...]) -> list[tuple[int, str]]:
    """Level of the copy of each day, and the day of the one it builds on."""
    copies: list[Copy] = []
    found = []
    for day in days:
        level, base = decide(copies, periods, on(day))
        copies.append(Copy(on(day), level))
        found.append((level, f"{base.taken_at:%m-%d}" if base else ""))
    return found


class TestDecide:
    def test_a_full_copy_each_month_and_every_other_one_on_the_one_before(self) -> None:
        days = ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03"]
        assert levels(days, ("monthly",)) == [
            (0, ""),
            (1, "01-30"),
            (0, ""),
            (1, "02-01"),
            (2, "02-02"),
        ]

    def test_the_year_month_decade_day_scheme_of_v3(self) -> None:
        days = ["2026-01-05", "2026-01-06", "2026-01-07", "2026-01-11", "2026-01-12", "2026-02-01"]
        days += ["2026-02-02", "2026-02-21", "2026-02-22", "2027-01-01"]
        assert levels(days, V3) == [
            (0, ""),
            (3, "01-05"),
            (3, "01-05"),
            (2, "01-05"),
            (3, "01-11"),
            (1, "01-05"),
            (3, "02-01"),
            (2, "02-01"),
            (3, "02-21"),
            (0, ""),
        ]

    def test_two_on_one_day_build_on_each_other(self) -> None:
        days = ["2026-01-05T01:00", "2026-01-05T02:00", "2026-01-05T03:00"]
        assert levels(days, ("weekly", "daily")) == [(0, ""), (2, "01-05"), (3, "01-05")]

    @pytest.mark.parametrize(
        ("period", "same", "next_one"),
        [
            ("hourly", "2026-05-06T07:59:59", "2026-05-06T08:00:00"),
            ("daily", "2026-05-06T23:59:59", "2026-05-07"),
            ("weekly", "2026-05-10T23:59:59", "2026-05-11"),
            ("ten_days", "2026-05-10T23:59:59", "2026-05-11"),
            ("monthly", "2026-05-31T23:59:59", "2026-06-01"),
            ("yearly", "2026-12-31T23:59:59", "2027-01-01"),
        ],
    )
    def test_a_level_is_due_in_a_new_period(self, period: str, same: str, next_one: str) -> None:
        first = Copy(on("2026-05-06T07:00:00"), 0)
        assert decide([first], (period,), on(same)) == (1, first)
        assert decide([first], (period,), on(next_one)) == (0, None)

    def test_the_last_days_of_a_month_are_one_period(self) -> None:
        first = Copy(on("2026-05-21"), 0)
        assert decide([first], ("ten_days",), on("2026-05-31")) == (1, first)

    def test_never_means_one_full_copy_for_ever(self) -> None:
        first = Copy(on("2016-01-01"), 0)
        assert decide([first], ("never",), on("2026-05-06")) == (1, first)

    def test_a_clock_that_was_set_back_makes_no_full_copies(self) -> None:
        later = Copy(on("2027-03-01"), 0)
        assert decide([later], ("daily",), on("2026-05-06")) == (1, later)


# -- on storages -----------------------------------------------------------------------------------


class SeriesSource(FakeSource):
    """Counts its copies in the index; the data of a copy is its number."""

    periods = ("monthly",)

    def __init__(self, refusal: str | None = None, index_size: int = 10) -> None:
        super().__init__()
        self.refusal, self.index_size = refusal, index_size

    def refuses(self, artifact: Artifact, index: Iterator[bytes]) -> str | None:
        assert artifact == ARTIFACT
        assert b"".join(index)
        return self.refusal

    def stream(self, artifact: Artifact, context: StageContext) -> Iterator[bytes]:
        assert artifact == ARTIFACT
        increment = context.increment
        assert increment
        number = 0
        if increment.base:
            number = int(b"".join(increment.base()).split()[0]) + 1
        whole = b"%d " % number + b"." * self.index_size
        for at in range(0, len(whole), CHUNK):
            increment.keep(whole[at : at + CHUNK])
            yield b"%d;" % number


@pytest.fixture
def nas() -> Iterator[memory.Memory]:
    memory.clear()
    yield memory.Memory(MemoryStorage(type="memory", path="nas"))
    memory.clear()


@pytest.fixture
def offsite(nas: memory.Memory) -> memory.Memory:  # noqa: ARG001
    return memory.Memory(MemoryStorage(type="memory", path="offsite"))


def series_plan(source: SeriesSource, *branches: BranchPlan) -> Plan:
    return plan(source, branches)


async def run(made: Plan, day: int) -> ArtifactReport:
    """One copy on some day, as the runner makes it."""
    taken_at = TAKEN_AT + day * DAY
    token = run_token("01234567", taken_at, "abcdef")
    identity = RunIdentity(f"run{day}", *OWNER, taken_at, token)
    placement = place(made, ARTIFACT, OWNER, taken_at)
    artifact_run = ArtifactRun(made, ARTIFACT, identity, EventBus(), placement)
    await artifact_run.run()
    return artifact_run.report()


def _identity(start: int) -> str:
    """A private key of age."""
    return encode_bech32(IDENTITY, bytes(range(start, start + 32))).upper()


def entries(storage: Storage) -> list[catalog.Entry]:
    return catalog.read(storage, "nas", "shop")


def index_names(storage: Storage) -> list[str]:
    return [info.name for info in storage.list("") if ".snapshot." in info.name]


@pytest.mark.anyio
class TestOnStorages:
    async def test_each_copy_is_given_the_index_of_the_one_before(
        self, nas: memory.Memory, offsite: memory.Memory
    ) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"), branch(offsite, "offsite"))
        for day in range(3):
            report = await run(made, day)
            assert report.outcome is Outcome.OK, report
            assert report.warnings == []
        for storage in (nas, offsite):
            found = entries(storage)
            assert [entry.manifest.level for entry in found] == [0, 1, 2]
            assert [entry.manifest.parent for entry in found] == [
                None,
                *(entry.manifest.object for entry in found[:2]),
            ]
            assert [read(storage, entry.path) for entry in found] == [b"0;", b"1;", b"2;"]
            assert all(entry.has_index for entry in found)
            assert chain(found[2], found) == found
        assert found[2].manifest.restore.count(" && ") == 2

    async def test_a_large_index_is_not_held_in_memory(self, nas: memory.Memory) -> None:
        source = SeriesSource(index_size=40 * CHUNK)
        assert (await run(series_plan(source, branch(nas, "nas")), 0)).outcome is Outcome.OK
        (entry,) = entries(nas)
        assert entry.index_size == 40 * CHUNK + 2
        ceiling = dict(series_plan(source, branch(nas, "nas")).memory())
        assert any("index" in part for part in ceiling)

    async def test_an_encrypted_index_is_read_with_its_own_key(
        self, nas: memory.Memory, tmp_path: Path
    ) -> None:
        key = tmp_path / "key"
        key.write_text(_identity(0))
        made = replace(
            series_plan(SeriesSource(), branch(nas, "nas")),
            index_key=registry.make_index_key(str(key)),
        )
        for day in range(2):
            assert (await run(made, day)).outcome is Outcome.OK
        assert [name.endswith(".snapshot.zst.age") for name in index_names(nas)] == [True, True]
        assert read(nas, index_names(nas)[0]).startswith(b"age-encryption.org/v1")
        assert entries(nas)[1].manifest.level == 1
        key.write_text(_identity(1))
        report = await run(made, 2)
        assert entries(nas)[2].manifest.level == 0
        assert "no index can be read" in report.warnings[-1]

    async def test_a_copy_that_one_storage_lacks_is_not_built_on(
        self, nas: memory.Memory, offsite: memory.Memory
    ) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"), branch(offsite, "offsite"))
        for day in range(2):
            await run(made, day)
        second = entries(offsite)[1]
        offsite.delete([second.path, second.manifest_path])
        await run(made, 2)
        newest = entries(nas)[-1].manifest
        assert (newest.level, newest.parent) == (1, entries(nas)[0].manifest.object)
        offsite.delete([info.name for info in offsite.list("")])
        report = await run(made, 3)
        assert entries(nas)[-1].manifest.level == 0
        assert report.warnings == ["a full copy: no earlier one is on every storage"]
        assert report.outcome is Outcome.OK

    async def test_a_damaged_index_is_read_from_another_storage(
        self, nas: memory.Memory, offsite: memory.Memory
    ) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"), branch(offsite, "offsite"))
        await run(made, 0)
        (name,) = index_names(nas)
        spoiled = bytes(len(read(nas, name)))
        nas.delete([name])
        put(nas, name, [spoiled])
        report = await run(made, 1)
        assert "the index on nas cannot be used" in report.warnings[0]
        assert [entry.manifest.level for entry in entries(nas)] == [0, 1]
        offsite.delete([name, index_names(offsite)[1]])
        put(offsite, name, [spoiled])
        report = await run(made, 2)
        assert report.outcome is Outcome.OK
        assert [entry.manifest.level for entry in entries(nas)] == [0, 1, 0]
        assert len(entries(nas)) == 3, "the old chain stays"

    async def test_an_index_that_the_source_refuses_leads_to_a_full_copy(
        self, nas: memory.Memory
    ) -> None:
        await run(series_plan(SeriesSource(), branch(nas, "nas")), 0)
        report = await run(series_plan(SeriesSource("other paths"), branch(nas, "nas")), 1)
        assert report.warnings == ["a full copy: other paths"]
        assert entries(nas)[1].manifest.level == 0

    async def test_copies_of_another_host_are_not_built_on(self, nas: memory.Memory) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"))
        await run(made, 0)
        assert place(made, ARTIFACT, ("project", "other"), TAKEN_AT + DAY) == Placement()

    @pytest.mark.parametrize("step", ["write", "flush", "commit", "manifest commit"])
    async def test_an_index_that_cannot_be_stored_costs_only_that_storage(
        self, nas: memory.Memory, offsite: memory.Memory, step: str
    ) -> None:
        class Faulty(FaultyStorage):
            """Fails for the index only."""

            def create(self, name: str, token: str) -> object:  # type: ignore[override]
                wanted = ".snapshot." in name or step.startswith("manifest")
                return super().create(name, token) if wanted else self.inner.create(name, token)

        faulty = branch(Faulty(nas, step), "nas", required=False)
        report = await run(series_plan(SeriesSource(), faulty, branch(offsite, "offsite")), 0)
        assert report.outcome is Outcome.PARTIAL
        assert "broken on command" in str(report.branches[0].error)
        assert [info.name for info in nas.list("")] == []
        assert list(nas.unfinished("")) == []
        assert [entry.manifest.level for entry in entries(offsite)] == [0]

    async def test_rotation_keeps_what_a_kept_copy_builds_on_and_removes_indexes(
        self, nas: memory.Memory
    ) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"))
        for day in (0, 1, 8, 9):  # A new month began in between.
            await run(made, day)
        removed: list[str] = []
        policy = RetentionPolicy(last=1)
        now = TAKEN_AT + 40 * DAY
        rotate.rotate(nas, "nas", "shop", policy, OWNER, now, removed.append)
        left = entries(nas)
        assert [entry.manifest.level for entry in left] == [0, 1]
        assert len(removed) == 2
        assert sorted(index_names(nas)) == sorted(str(entry.index_path) for entry in left)
        assert len(nas.list("")) == 6

    async def test_what_a_killed_run_left_goes_with_its_index(self, nas: memory.Memory) -> None:
        await run(series_plan(SeriesSource(), branch(nas, "nas")), 0)
        (entry,) = entries(nas)
        nas.delete([entry.manifest_path])
        unfinished = nas.create(entry.manifest_path, run_token("01234567", TAKEN_AT, "abcdef"))
        unfinished.write(manifest.dump(entry.manifest))
        unfinished.flush()
        assert index_names(nas) != []
        cleared = rotate.clear_leftovers(nas, "shop", "01234567", TAKEN_AT + DAY)
        part = part_name(entry.manifest_path, run_token("01234567", TAKEN_AT, "abcdef"))
        assert cleared == [*sorted([entry.path, str(entry.index_path)]), part]
        assert nas.list("") == []

    async def test_an_increment_whose_base_is_gone_is_damaged(self, nas: memory.Memory) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"))
        for day in range(3):
            await run(made, day)
        first, second, third = entries(nas)
        assert Found(nas, third, chain(third, [first, second, third])).damage is None
        left = [first, third]
        assert chain(third, left) is None
        assert "builds on" in str(Found(nas, third, chain(third, left)).damage)
        # And it is not built on: the next one goes back to what is whole.
        nas.delete([second.path])
        await run(made, 3)
        assert json.loads(read(nas, entries(nas)[-1].manifest_path))["parent"] == (
            first.manifest.object
        )

    async def test_a_storage_that_did_not_tell_what_it_has_gets_no_increment(
        self, nas: memory.Memory, offsite: memory.Memory
    ) -> None:
        """Without a parent in its manifest, it would pass for a full copy there."""

        class Silent(FaultyStorage):
            """Does not answer when it is asked what it has."""

            def list(self, prefix: str) -> Sequence[ObjectInfo]:
                raise StorageUnavailable("no answer")

        both = (branch(nas, "nas"), branch(offsite, "offsite"))
        await run(series_plan(SeriesSource(), *both), 0)
        silent = branch(Silent(nas, ""), "nas", required=False)
        report = await run(series_plan(SeriesSource(), silent, both[1]), 1)
        assert report.outcome is Outcome.PARTIAL
        assert "what it has" in str(report.branches[0].error)
        assert [entry.manifest.level for entry in entries(nas)] == [0]
        assert list(nas.unfinished("")) == []
        assert [entry.manifest.level for entry in entries(offsite)] == [0, 1]
        report = await run(series_plan(SeriesSource(), *both), 2)
        assert report.outcome is Outcome.OK
        assert entries(nas)[-1].manifest.parent == entries(nas)[0].manifest.object

    async def test_a_storage_that_did_not_tell_what_it_has_gets_a_full_copy(
        self, nas: memory.Memory, offsite: memory.Memory
    ) -> None:
        silent = branch(FaultyStorage(nas, "list"), "nas")
        report = await run(series_plan(SeriesSource(), silent, branch(offsite, "offsite")), 0)
        assert report.outcome is Outcome.OK
        assert [entry.manifest.level for entry in entries(nas)] == [0]

    async def test_rotation_keeps_what_can_still_be_restored_when_a_base_is_lost(
        self, nas: memory.Memory
    ) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"))
        for day in (0, 8, 9):  # A new month began in between.
            await run(made, day)
        first, lost, _ = entries(nas)
        nas.delete([lost.path])
        policy, now = RetentionPolicy(last=1), TAKEN_AT + 40 * DAY
        rotate.rotate(nas, "nas", "shop", policy, OWNER, now, lambda _: None)
        assert first.path in [entry.path for entry in entries(nas)]

    async def test_what_can_be_built_on_is_found_in_one_pass(self, nas: memory.Memory) -> None:
        made = series_plan(SeriesSource(), branch(nas, "nas"))
        await run(made, 0)
        (full,) = entries(nas)
        long = [full]
        for day in range(1, 3000):
            changes = {
                "taken_at": TAKEN_AT + day * DAY,
                "object": f"{day}",
                "parent": long[-1].manifest.object,
            }
            long.append(replace(full, manifest=full.manifest.model_copy(update=changes)))
        steps = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal steps
            steps += event == "call"

        sys.setprofile(count)
        try:
            found = bases(long)
        finally:
            sys.setprofile(None)
        assert len(found) == len(long)
        assert steps < 30 * len(long)
