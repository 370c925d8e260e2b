"""Retention: properties that always hold, and 800 days of backups with a decision after each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.retention import Candidate, Decision, decide
from schemas.retention import RetentionPolicy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)


def policy(**rules: Any) -> RetentionPolicy:
    return RetentionPolicy.model_validate(rules)


def ids(decision: Decision) -> list[str]:
    return [kept.candidate.id for kept in decision.keep]


COUNTS = st.none() | st.integers(1, 8)
RULES: dict[str, st.SearchStrategy[Any]] = {
    "last": COUNTS,
    "hourly": COUNTS,
    "daily": COUNTS,
    "weekly": COUNTS,
    "monthly": COUNTS,
    "yearly": COUNTS,
    "within": st.sampled_from([None, "1ms", "6h", "3d", "30d", "400d"]),
}


def not_empty(rules: dict[str, Any]) -> bool:
    return any(value is not None for value in rules.values())


POLICIES = st.fixed_dictionaries(RULES).filter(not_empty)


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    """Up to 40 backups around NOW, some at the same moment, some in the future, some in chains."""
    hours = st.integers(-24 * 900, 24 * 20) | st.integers(-24 * 10, 24)
    moments = draw(st.lists(hours, max_size=40))
    names = [f"id{number}" for number in range(len(moments))]
    parents = st.none() | st.sampled_from([*names, "gone"])
    return [
        Candidate(
            name,
            NOW + timedelta(hours=hour),
            parent=draw(parents),
            complete=draw(st.booleans() | st.just(True)),
        )
        for name, hour in zip(names, moments, strict=True)
    ]


@given(histories(), POLICIES)
def test_keep_and_remove_are_the_input_once(taken: list[Candidate], rules: dict[str, Any]) -> None:
    decision = decide(taken, policy(**rules), NOW)
    parts = [kept.candidate for kept in decision.keep] + list(decision.remove)
    assert sorted(parts, key=lambda one: one.id) == sorted(taken, key=lambda one: one.id)
    assert all(kept.reasons for kept in decision.keep)


@given(histories(), POLICIES)
def test_the_newest_complete_one_survives(taken: list[Candidate], rules: dict[str, Any]) -> None:
    kept = {one.candidate for one in decide(taken, policy(**rules), NOW).keep}
    complete = [one for one in taken if one.complete]
    for pool in (complete or taken,):
        if pool:
            assert max(pool, key=lambda one: (one.taken_at, one.id)) in kept


@given(histories(), POLICIES, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter_and_is_left_alone(
    taken: list[Candidate], rules: dict[str, Any], chance: random.Random
) -> None:
    shuffled = list(taken)
    chance.shuffle(shuffled)
    in_this_order = list(shuffled)
    assert decide(shuffled, policy(**rules), NOW) == decide(taken, policy(**rules), NOW)
    assert shuffled == in_this_order


@given(histories(), POLICIES, POLICIES)
def test_another_rule_never_removes_more(
    taken: list[Candidate], rules: dict[str, Any], more: dict[str, Any]
) -> None:
    both = {name: value if value is not None else more[name] for name, value in rules.items()}
    kept_by_fewer = set(ids(decide(taken, policy(**rules), NOW)))
    assert kept_by_fewer <= set(ids(decide(taken, policy(**both), NOW)))


@given(histories(), POLICIES, st.sampled_from(["last", "hourly", "daily", "weekly", "monthly"]))
def test_a_larger_count_never_removes_more(
    taken: list[Candidate], rules: dict[str, Any], rule: str
) -> None:
    larger = {**rules, rule: (rules[rule] or 0) + 1}
    kept_by_smaller = set(ids(decide(taken, policy(**rules), NOW)))
    assert kept_by_smaller <= set(ids(decide(taken, policy(**larger), NOW)))


@given(histories(), POLICIES)
def test_deciding_again_on_what_was_kept_removes_nothing(
    taken: list[Candidate], rules: dict[str, Any]
) -> None:
    kept = [one.candidate for one in decide(taken, policy(**rules), NOW).keep]
    assert decide(kept, policy(**rules), NOW).remove == ()


@given(histories(), POLICIES)
def test_chains_are_never_broken(taken: list[Candidate], rules: dict[str, Any]) -> None:
    decision = decide(taken, policy(**rules), NOW)
    known, kept = {one.id for one in taken}, set(ids(decision))
    for one in decision.keep:
        assert one.candidate.parent not in known - kept


@given(histories(), POLICIES)
def test_removing_one_by_one_never_leaves_an_orphan(
    taken: list[Candidate], rules: dict[str, Any]
) -> None:
    removed = [one.id for one in decide(taken, policy(**rules), NOW).remove]
    parents = {one.id: one.parent for one in taken}
    for position, name in enumerate(removed):
        if not in_ring(name, parents):
            assert parents[name] not in removed[:position]


def in_ring(name: str, parents: dict[str, str | None]) -> bool:
    """Whether a walk up from `name` comes back to some place it has been at: damaged data."""
    seen = set()
    current: str | None = name
    while current is not None and current not in seen:
        seen.add(current)
        current = parents.get(current)
    return current is not None


YEARS = {"daily": 7, "weekly": 5, "monthly": 12, "yearly": 3, "within": "3d"}
FIRST_DAY, LAST_DAY = date(2024, 2, 20), date(2026, 4, 29)  # 800 days, a leap day among them
DAYS_KEPT = [
    *(f"2026-04-{day}" for day in (29, 28, 27, 26, 25, 24, 23)),  # days
    *("2026-04-19", "2026-04-12", "2026-04-05"),  # Sundays; the first two weeks are there as days
    *("2026-03-31", "2026-02-28", "2026-01-31", "2025-12-31", "2025-11-30", "2025-10-31"),
    *("2025-09-30", "2025-08-31", "2025-07-31", "2025-06-30", "2025-05-31"),
    "2024-12-31",
]


def simulate(hours: Sequence[int]) -> list[str]:
    """What is left after 800 days of backups at these hours, with a decision after each."""
    existing: list[Candidate] = []
    for day in range((LAST_DAY - FIRST_DAY).days + 1):
        for hour in hours:
            midnight = datetime(2024, 2, 20, tzinfo=timezone.utc) + timedelta(days=day)
            now = midnight + timedelta(hours=hour)
            existing.append(Candidate(f"{now:%Y-%m-%d %H}", now))
            decision = decide(existing, policy(**YEARS), now)
            assert all(now - one.taken_at >= timedelta(days=3) for one in decision.remove)
            existing = [kept.candidate for kept in decision.keep]
    return [one.id for one in existing]


def test_800_days_of_one_backup_a_day() -> None:
    assert simulate([3]) == [f"{day} 03" for day in DAYS_KEPT]


def test_800_days_of_four_backups_a_day() -> None:
    window, older = DAYS_KEPT[:3], DAYS_KEPT[3:]
    every = [f"{day} {hour}" for day in window for hour in ("18", "12", "06", "00")]
    assert simulate([0, 6, 12, 18]) == every + [f"{day} 18" for day in older]


def test_800_days_of_incrementals_keep_every_chain_restorable() -> None:
    """A full backup each 10th day, the others building on the day before."""
    existing: list[Candidate] = []
    for day in range(800):
        now = datetime(2024, 2, 20, 3, tzinfo=timezone.utc) + timedelta(days=day)
        existing.append(Candidate(str(day), now, parent=str(day - 1) if day % 10 else None))
        decision = decide(existing, policy(**YEARS), now)
        existing = [kept.candidate for kept in decision.keep]
        present = {one.id for one in existing}
        assert all(one.parent is None or one.parent in present for one in existing)
    wanted = [(date.fromisoformat(day) - FIRST_DAY).days for day in DAYS_KEPT]
    needed = {str(day) for end in wanted for day in range(end - end % 10, end + 1)}
    assert {one.id for one in existing} == needed


def test_a_chain_of_many_thousands_is_decided() -> None:
    chain = [Candidate("0", NOW)]
    for number in range(1, 20_000):
        moment = NOW + timedelta(minutes=number)
        chain.append(Candidate(str(number), moment, parent=str(number - 1)))
    assert len(decide(chain, policy(last=1), NOW).keep) == 20_000


def test_an_id_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="share an id"):
        decide([Candidate("one", NOW), Candidate("one", NOW)], policy(last=1), NOW)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match='"one" has no time zone'):
        Candidate("one", datetime(2026, 11, 23))
