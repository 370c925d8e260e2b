"""`plan --simulate`: what rotation would do in the future, and when schedules fire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retention import Candidate, decide
from pipeline.schedule import firings, local_zone
from pipeline.simulate import Course, Holding, simulate
from schemas.retention import RetentionPolicy

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=timezone.utc)


def daily(days: int, start: datetime = NOW) -> list[datetime]:
    return [start + timedelta(days=day + 1) for day in range(days)]


def existing(*days: int) -> list[Candidate]:
    """Copies of so many days ago."""
    return [Candidate(f"old {day}", NOW - timedelta(days=day)) for day in days]


def days_of(course: Course) -> list[int]:
    """When what is there at the end was taken, in days from now."""
    return [(kept.candidate.taken_at - NOW).days for kept in course.kept]


def alone(
    policy: RetentionPolicy | None, copies: Sequence[Candidate], moments: Sequence[datetime]
) -> Course:
    return simulate({"nas": Holding(copies, policy)}, moments)["nas"]


class TestCourse:
    def test_what_exists_goes_when_the_policy_lets_go_of_it(self) -> None:
        course = alone(RetentionPolicy(last=3), existing(0, 1, 2), daily(4))
        assert [(each.at, each.copy.id) for each in course.removed[:3]] == [
            (NOW + timedelta(days=1), "old 2"),
            (NOW + timedelta(days=2), "old 1"),
            (NOW + timedelta(days=3), "old 0"),
        ]
        assert len(course.made) == 4
        assert days_of(course) == [4, 3, 2]

    def test_rules_add_up_over_months(self) -> None:
        course = alone(RetentionPolicy(daily=3, monthly=3), [], daily(90))
        assert [f"{kept.candidate.taken_at:%m-%d}" for kept in course.kept] == [
            "02-22",
            "02-21",
            "02-20",
            "01-31",
            "12-31",
        ]
        assert course.kept[0].reasons == ("newest", "daily 2027-02-22", "monthly 2027-02")

    def test_without_a_run_nothing_happens(self) -> None:
        course = alone(RetentionPolicy(last=1), existing(1, 2), [])
        assert course.removed == []
        assert [kept.candidate.id for kept in course.kept] == ["old 1", "old 2"]

    def test_without_a_policy_nothing_is_removed(self) -> None:
        course = alone(None, existing(1), daily(5))
        assert course.removed == []
        assert days_of(course) == [5, 4, 3, 2, 1, -1]
        assert {kept.reasons for kept in course.kept} == {()}

    def test_a_copy_that_is_incomplete_is_not_what_stays_last(self) -> None:
        broken = Candidate("broken", NOW - timedelta(days=1), complete=False)
        course = alone(RetentionPolicy(last=1), [*existing(2), broken], [])
        assert len(course.kept) == 2
        after = alone(RetentionPolicy(last=1), [*existing(2), broken], daily(1))
        assert {each.copy.id for each in after.removed} == {"old 2", "broken"}

    def test_storages_keep_to_their_own_policies(self) -> None:
        holdings = {
            "nas": Holding((), RetentionPolicy(last=2)),
            "tape": Holding((), RetentionPolicy(last=4)),
        }
        courses = simulate(holdings, daily(6))
        assert [len(course.kept) for course in courses.values()] == [2, 4]

    def test_nothing_that_is_handed_in_changes(self) -> None:
        copies = existing(1, 2, 3)
        holding = Holding(tuple(copies), RetentionPolicy(last=1), {copies[0].taken_at: 0})
        simulate({"nas": holding}, daily(3))
        assert holding.copies == tuple(copies)
        assert holding.levels == {copies[0].taken_at: 0}


class TestSeries:
    def test_chains_are_never_broken_and_go_as_a_whole(self) -> None:
        holding = Holding((), RetentionPolicy(daily=10))
        course = simulate({"nas": holding}, daily(60), ("monthly", "weekly"))["nas"]
        full = [made for made in course.made if made.parent is None]
        assert [f"{made.taken_at:%m-%d}" for made in full] == ["11-25", "12-01", "01-01"]
        kept = {each.candidate.id: each.candidate for each in course.kept}
        assert all(each.parent in kept for each in kept.values() if each.parent)
        gone = {removal.copy.taken_at for removal in course.removed}
        assert full[0].taken_at in gone
        assert any("needed by" in reason for each in course.kept for reason in each.reasons)

    def test_a_copy_builds_on_what_every_storage_has(self) -> None:
        (old,) = existing(1)
        with_base = Holding([old], RetentionPolicy(last=9), {old.taken_at: 0})
        empty = Holding((), RetentionPolicy(last=9))
        alone_made = simulate({"nas": with_base}, daily(1), ("never",))["nas"].made
        assert alone_made[0].parent == "old 1"
        both = simulate({"nas": with_base, "tape": empty}, daily(2), ("never",))
        for course in both.values():
            assert course.made[0].parent is None
            assert course.made[1].parent == course.made[0].id

    def test_what_has_lost_its_index_is_not_built_on(self) -> None:
        course = simulate({"nas": Holding(existing(1), None)}, daily(1), ("never",))["nas"]
        assert course.made[0].parent is None


POLICIES = st.builds(
    RetentionPolicy,
    last=st.integers(1, 4),
    daily=st.none() | st.integers(1, 5),
    weekly=st.none() | st.integers(1, 3),
    monthly=st.none() | st.integers(1, 3),
)


@settings(max_examples=50, deadline=None)
@given(policy=POLICIES, ages=st.sets(st.integers(0, 400), max_size=12), runs=st.integers(1, 40))
def test_it_is_what_one_rotation_after_the_other_does(
    policy: RetentionPolicy, ages: set[int], runs: int
) -> None:
    copies = existing(*ages)
    course = alone(policy, copies, daily(runs))
    left = list(copies)
    removed = []
    for moment in daily(runs):
        left.append(Candidate(f"new {moment}", moment))
        decision = decide(left, policy, moment)
        removed += [(moment, each.taken_at) for each in decision.remove]
        left = [each.candidate for each in decision.keep]
    assert [(each.at, each.copy.taken_at) for each in course.removed] == removed
    assert [each.candidate.taken_at for each in course.kept] == [each.taken_at for each in left]
    assert len(course.made) + len(copies) == len(course.kept) + len(course.removed)


class TestSchedule:
    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("15 3 * * *", ["11-25 03:15", "11-26 03:15", "11-27 03:15"]),
            ("0 */6 * * *", ["11-24 18:00", "11-25 00:00", "11-25 06:00"]),
            ("0 0 1 * *", ["12-01 00:00", "01-01 00:00", "02-01 00:00"]),
            ("30 4 * * sun", ["11-29 04:30", "12-06 04:30", "12-13 04:30"]),
            ("0 12 24 11 *", ["11-24 12:00", "11-24 12:00", "11-24 12:00"]),
            # Both days are given: either is enough, as in cron.
            ("0 5 1 * mon", ["11-30 05:00", "12-01 05:00", "12-07 05:00"]),
        ],
    )
    def test_it_fires_as_cron_does(self, expression: str, expected: list[str]) -> None:
        found = list(islice(firings(expression, NOW, timezone.utc), 3))
        assert [f"{moment:%m-%d %H:%M}" for moment in found] == expected
        assert found == sorted(set(found))
        assert found[0] > NOW

    def test_a_time_that_clocks_skip_or_repeat_counts_once(self) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        spring = firings("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=timezone.utc), berlin)
        assert [moment.isoformat() for moment in islice(spring, 2)] == [
            "2026-03-29T03:00:00+02:00",
            "2026-03-30T02:30:00+02:00",
        ]
        autumn = firings("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=timezone.utc), berlin)
        assert [moment.isoformat() for moment in islice(autumn, 2)] == [
            "2026-10-25T02:30:00+02:00",
            "2026-10-26T02:30:00+01:00",
        ]

    @pytest.mark.parametrize("value", ["Europe/Berlin", ":Europe/Berlin"])
    def test_the_zone_is_that_of_the_environment(
        self, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", value)
        zone, name = local_zone()
        assert name == "Europe/Berlin"
        assert NOW.astimezone(zone).hour == 13

    def test_a_zone_that_nobody_knows_is_still_a_zone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", "No/Where")
        zone, name = local_zone()
        assert NOW.astimezone(zone).utcoffset() is not None
        assert name
