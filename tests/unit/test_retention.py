"""Retention, in named cases; properties and long histories are in test_retention_history.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import pytest

from pipeline.retention import Candidate, Decision, decide
from schemas.retention import RetentionPolicy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)  # a Monday, ISO week 48


def policy(**rules: int | str) -> RetentionPolicy:
    return RetentionPolicy.model_validate(rules)


def backup(text: str) -> Candidate:
    """`2026-11-23 03`, its time being its id; then `on PARENT`, `incomplete` or `as ID`."""
    moment, _, rest = text.partition(";")
    candidate = Candidate(moment, moment_of(moment))
    for word in filter(None, (part.strip() for part in rest.split(","))):
        if word == "incomplete":
            candidate = replace(candidate, complete=False)
        elif word.startswith("on "):
            candidate = replace(candidate, parent=word.removeprefix("on "))
        else:
            candidate = replace(candidate, id=word.removeprefix("as "))
    return candidate


def moment_of(text: str) -> datetime:
    day, _, clock = text.partition(" ")
    hour, _, minute = clock.partition(":")
    midnight = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    return midnight + timedelta(hours=int(hour), minutes=int(minute or 0))


def ids(decision: Decision) -> list[str]:
    return [kept.candidate.id for kept in decision.keep]


@dataclass(frozen=True)
class Case:
    policy: dict[str, int | str]
    taken: Sequence[str]
    kept: Sequence[str]
    """Newest first."""
    now: datetime = NOW


CASES = {
    "no-backups-no-decision": Case(policy={"daily": 1}, taken=[], kept=[]),
    "a-single-old-backup-stays": Case(
        policy={"within": "1d"}, taken=["1999-01-01 00"], kept=["1999-01-01 00"]
    ),
    "last-keeps-the-newest-so-many": Case(
        policy={"last": 2},
        taken=["2026-11-20 03", "2026-11-23 03", "2026-11-22 03", "2026-11-21 03"],
        kept=["2026-11-23 03", "2026-11-22 03"],
    ),
    "last-above-the-number-of-backups-keeps-all": Case(
        policy={"last": 100},
        taken=["2026-11-21 03", "2026-11-22 03"],
        kept=["2026-11-22 03", "2026-11-21 03"],
    ),
    "hourly-keeps-the-newest-of-each-hour": Case(
        policy={"hourly": 2},
        taken=["2026-11-23 09:59", "2026-11-23 10:00", "2026-11-23 10:59", "2026-11-23 11:01"],
        kept=["2026-11-23 11:01", "2026-11-23 10:59"],
    ),
    "the-same-hour-of-two-days-is-two-hours": Case(
        policy={"hourly": 2},
        taken=["2026-11-22 03", "2026-11-23 03"],
        kept=["2026-11-23 03", "2026-11-22 03"],
    ),
    "daily-keeps-the-newest-of-each-day": Case(
        policy={"daily": 2},
        taken=["2026-11-21 01", "2026-11-22 01", "2026-11-22 23", "2026-11-23 02"],
        kept=["2026-11-23 02", "2026-11-22 23"],
    ),
    "midnight-belongs-to-the-day-it-begins": Case(
        policy={"daily": 1},
        taken=["2026-11-22 23:59", "2026-11-23 00:00"],
        kept=["2026-11-23 00:00"],
    ),
    "days-without-a-backup-are-not-counted": Case(
        policy={"daily": 3},
        taken=["2026-05-01 03", "2026-05-02 03", "2026-09-01 03", "2026-11-23 03"],
        kept=["2026-11-23 03", "2026-09-01 03", "2026-05-02 03"],
    ),
    "weekly-keeps-the-newest-of-each-week-from-monday-to-sunday": Case(
        policy={"weekly": 3},
        taken=["2026-11-15 03", "2026-11-16 03", "2026-11-21 03", "2026-11-22 03", "2026-11-23 03"],
        kept=["2026-11-23 03", "2026-11-22 03", "2026-11-15 03"],
    ),
    "a-week-that-spans-new-year-is-one-week": Case(
        policy={"weekly": 2},
        taken=["2026-12-26 03", "2026-12-31 03", "2027-01-01 03", "2027-01-03 03"],
        kept=["2027-01-03 03", "2026-12-26 03"],
        now=datetime(2027, 1, 3, 12, tzinfo=timezone.utc),
    ),
    "the-last-days-of-a-year-may-lie-in-week-one-of-the-next": Case(
        policy={"weekly": 2},
        taken=["2024-01-01 03", "2024-12-29 03", "2024-12-30 03", "2025-01-02 03"],
        kept=["2025-01-02 03", "2024-12-29 03"],
        now=datetime(2025, 1, 2, 12, tzinfo=timezone.utc),
    ),
    "week-one-of-two-years-is-two-weeks": Case(
        policy={"weekly": 2},
        taken=["2025-01-02 03", "2026-01-01 03"],
        kept=["2026-01-01 03", "2025-01-02 03"],
    ),
    "monthly-keeps-the-newest-of-each-month-whatever-its-length": Case(
        policy={"monthly": 4},
        taken=[
            "2026-01-31 03",
            "2026-02-01 03",
            "2026-02-28 03",
            "2026-03-01 03",
            "2026-03-31 03",
            "2026-04-01 03",
        ],
        kept=["2026-04-01 03", "2026-03-31 03", "2026-02-28 03", "2026-01-31 03"],
    ),
    "the-leap-day-ends-its-month": Case(
        policy={"monthly": 2},
        taken=["2028-02-28 03", "2028-02-29 23", "2028-03-01 00"],
        kept=["2028-03-01 00", "2028-02-29 23"],
        now=datetime(2028, 3, 1, 12, tzinfo=timezone.utc),
    ),
    "the-same-month-of-two-years-is-two-months": Case(
        policy={"monthly": 2},
        taken=["2024-11-30 03", "2025-11-30 03", "2026-11-20 03"],
        kept=["2026-11-20 03", "2025-11-30 03"],
    ),
    "yearly-keeps-the-newest-of-each-year": Case(
        policy={"yearly": 2},
        taken=["2024-12-31 23:59", "2025-01-01 00:00", "2025-12-31 23:59", "2026-01-01 00:00"],
        kept=["2026-01-01 00:00", "2025-12-31 23:59"],
    ),
    "yearly-counts-calendar-years-not-iso-years": Case(
        policy={"yearly": 2},
        taken=["2024-12-30 03", "2025-01-02 03"],  # both in ISO year 2025
        kept=["2025-01-02 03", "2024-12-30 03"],
    ),
    "within-keeps-what-is-younger": Case(
        policy={"within": "2d"},
        taken=["2026-11-21 11:59", "2026-11-21 12:01", "2026-11-23 11"],
        kept=["2026-11-23 11", "2026-11-21 12:01"],
    ),
    "exactly-as-old-as-within-is-no-longer-younger": Case(
        policy={"within": "2d"},
        taken=["2026-11-21 12:00", "2026-11-23 11"],
        kept=["2026-11-23 11"],
    ),
    "within-is-measured-from-now-and-not-from-the-newest": Case(
        policy={"within": "30d"},
        taken=["2026-08-01 03", "2026-08-02 03"],
        kept=["2026-08-02 03"],
    ),
    "within-of-many-centuries-keeps-all": Case(
        policy={"within": "999999999999w"},
        taken=["0001-01-01 00", "2026-11-23 03"],
        kept=["2026-11-23 03", "0001-01-01 00"],
    ),
    "a-future-time-is-within-any-age": Case(
        policy={"within": "1h"},
        taken=["2026-11-23 03", "2031-01-01 00", "2032-01-01 00"],
        kept=["2032-01-01 00", "2031-01-01 00"],
    ),
    "a-future-time-counts-as-newest": Case(
        policy={"last": 1},
        taken=["2026-11-23 03", "2031-01-01 00"],
        kept=["2031-01-01 00"],
    ),
    "rules-add-up": Case(
        policy={"last": 1, "daily": 2, "monthly": 2},
        taken=["2026-09-30 03", "2026-10-31 03", "2026-11-21 03", "2026-11-22 03", "2026-11-23 03"],
        kept=["2026-11-23 03", "2026-11-22 03", "2026-10-31 03"],
    ),
    "of-two-with-the-same-time-the-greater-id-is-newer": Case(
        policy={"last": 1},
        taken=["2026-11-23 03; as b", "2026-11-23 03; as c", "2026-11-23 03; as a"],
        kept=["c"],
    ),
    "the-newest-complete-one-outlives-newer-incomplete-ones": Case(
        policy={"last": 2},
        taken=[
            "2026-11-19 03",
            "2026-11-20 03",
            "2026-11-21 03; incomplete",
            "2026-11-22 03; incomplete",
            "2026-11-23 03; incomplete",
        ],
        kept=["2026-11-23 03", "2026-11-22 03", "2026-11-20 03"],
    ),
    "an-incomplete-one-does-not-push-out-the-complete-one-of-its-day": Case(
        policy={"daily": 2},
        taken=[
            "2026-11-21 03",
            "2026-11-22 02",
            "2026-11-22 03",
            "2026-11-22 15; incomplete",
            "2026-11-22 23; incomplete",
            "2026-11-23 03",
        ],
        kept=["2026-11-23 03", "2026-11-22 23", "2026-11-22 03"],
    ),
    "an-earlier-incomplete-one-of-a-day-goes": Case(
        policy={"daily": 1},
        taken=["2026-11-23 03; incomplete", "2026-11-23 04"],
        kept=["2026-11-23 04"],
    ),
    "without-a-complete-one-the-newest-stays": Case(
        policy={"within": "1h"},
        taken=["2026-11-21 03; incomplete", "2026-11-22 03; incomplete"],
        kept=["2026-11-22 03"],
    ),
    "what-an-incremental-builds-on-stays": Case(
        policy={"last": 1},
        taken=["2026-11-01 03", "2026-11-02 03", "2026-11-23 03; on 2026-11-01 03"],
        kept=["2026-11-23 03", "2026-11-01 03"],
    ),
    "a-chain-stays-whole-down-to-its-full-backup": Case(
        policy={"last": 1},
        taken=[
            "2026-11-01 03",
            "2026-11-02 03; on 2026-11-01 03",
            "2026-11-03 03; on 2026-11-02 03",
            "2026-11-04 03; on 2026-11-03 03",
        ],
        kept=["2026-11-04 03", "2026-11-03 03", "2026-11-02 03", "2026-11-01 03"],
    ),
    "a-branch-of-a-chain-that-nobody-needs-goes": Case(
        policy={"last": 1},
        taken=[
            "2026-11-01 03",
            "2026-11-02 03; on 2026-11-01 03",
            "2026-11-03 03; on 2026-11-01 03",
        ],
        kept=["2026-11-03 03", "2026-11-01 03"],
    ),
    "a-chain-that-nobody-wants-goes-as-a-whole": Case(
        policy={"last": 1},
        taken=["2026-11-01 03", "2026-11-02 03; on 2026-11-01 03", "2026-11-23 03"],
        kept=["2026-11-23 03"],
    ),
    "a-missing-parent-changes-nothing": Case(
        policy={"last": 1},
        taken=["2026-11-22 03", "2026-11-23 03; on nowhere"],
        kept=["2026-11-23 03"],
    ),
    "a-parent-from-the-future-stays": Case(
        policy={"monthly": 1},
        taken=["2031-01-01 00; incomplete", "2031-02-01 00", "2026-11-23 03; on 2031-01-01 00"],
        kept=["2031-02-01 00"],
    ),
    "a-ring-of-parents-stays-together": Case(
        policy={"last": 1},
        taken=["2026-11-22 03; on 2026-11-23 03", "2026-11-23 03; on 2026-11-22 03"],
        kept=["2026-11-23 03", "2026-11-22 03"],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_keeps(case: Case) -> None:
    decision = decide([backup(text) for text in case.taken], policy(**case.policy), case.now)
    assert ids(decision) == list(case.kept)


def test_periods_are_utc_whatever_zone_the_time_came_in() -> None:
    berlin_summer, berlin_winter = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))
    night_of_the_change = [
        Candidate("first 02:30", datetime(2026, 10, 25, 2, 30, tzinfo=berlin_summer)),
        Candidate("second 02:30", datetime(2026, 10, 25, 2, 30, tzinfo=berlin_winter)),
    ]
    assert ids(decide(night_of_the_change, policy(hourly=2), NOW)) == [
        "second 02:30",
        "first 02:30",
    ]


def test_a_day_ends_at_midnight_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    one_day_there = [
        Candidate("morning", datetime(2026, 11, 23, 8, 0, tzinfo=tokyo)),
        Candidate("evening", datetime(2026, 11, 23, 20, 0, tzinfo=tokyo)),
    ]
    assert ids(decide(one_day_there, policy(daily=2), NOW)) == ["evening", "morning"]


def test_every_rule_that_wants_a_backup_is_a_reason() -> None:
    rules = policy(last=2, hourly=1, daily=1, weekly=1, monthly=1, yearly=1, within="30d")
    newest, older = decide([backup("2026-11-23 03"), backup("2026-11-22 03")], rules, NOW).keep
    assert newest.reasons == (
        "newest",
        "last 1 of 2",
        "hourly 2026-11-23T03",
        "daily 2026-11-23",
        "weekly 2026-W48",
        "monthly 2026-11",
        "yearly 2026",
        "within 30d",
    )
    assert older.reasons == ("last 2 of 2", "within 30d")


def test_the_reason_of_an_ancestor_names_who_needs_it() -> None:
    chain = [
        backup("2026-11-01 03; as full"),
        backup("2026-11-02 03; on full, as monday"),
        backup("2026-11-03 03; on monday, as tuesday"),
    ]
    kept = decide(chain, policy(last=1), NOW).keep
    assert {one.candidate.id: one.reasons for one in kept} == {
        "tuesday": ("newest", "last 1 of 1"),
        "monday": ("needed by tuesday",),
        "full": ("needed by monday",),
    }


def test_a_complete_one_kept_beside_a_newer_incomplete_one_says_so() -> None:
    taken = [backup("2026-11-22 03"), backup("2026-11-22 23; incomplete"), backup("2026-11-23 03")]
    reasons = {one.candidate.id: one.reasons for one in decide(taken, policy(daily=2), NOW).keep}
    assert reasons["2026-11-22 23"] == ("daily 2026-11-22",)
    assert reasons["2026-11-22 03"] == ("daily 2026-11-22 complete",)


@pytest.mark.parametrize(
    ("written", "read"),
    [("30d", "30d"), ("26h", "26h"), ("2w", "14d"), ("90m", "90m"), ("1.5s", "1.5s")],
)
def test_within_is_named_with_its_unit(written: str, read: str) -> None:
    (kept,) = decide([Candidate("one", NOW)], policy(within=written), NOW).keep
    assert kept.reasons == ("newest", f"within {read}")


def test_what_goes_is_listed_oldest_first() -> None:
    taken = [backup("2026-11-21 03"), backup("2026-11-20 03"), backup("2026-11-23 03")]
    removed = decide(taken, policy(last=1), NOW).remove
    assert [one.id for one in removed] == ["2026-11-20 03", "2026-11-21 03"]
