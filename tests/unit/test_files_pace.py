"""How many readers there are: by what the time is spent on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stages.sources._files import pace
from stages.sources._files.pace import Pace


class Clock:
    """Stands in for `time`: of one thread, in seconds."""

    def __init__(self) -> None:
        self.wall = self.cpu = self.delay = 0.0

    def perf_counter(self) -> float:
        return self.wall

    def thread_time(self) -> float:
        return self.cpu

    def spend(self, wall: float, cpu: float = 0.0, delay: float = 0.0) -> None:
        self.wall += wall
        self.cpu += cpu
        self.delay += delay


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(pace, "_run_delay", lambda: clock.delay)
    return clock  # type: ignore[return-value]


def run(pace: Pace, clock: Clock, periods: int, busy: float, others: float = 0.0) -> list[int]:
    """The number of readers after each period of 0.11 s, of which `busy` is the writer's share."""
    found = []
    for _ in range(periods):
        clock.spend(0.11, 0.11 * busy)
        pace.spent(0.11 * others)
        pace.adjust()
        found.append(pace.readers)
    return found


def test_a_source_in_memory_is_read_by_the_writer_alone(clock: Clock) -> None:
    assert set(run(Pace(64), clock, 50, busy=0.98)) == {0}


def test_a_source_with_latency_is_read_by_all_soon(clock: Clock) -> None:
    found = run(Pace(64), clock, 4, busy=0.05)
    assert found == sorted(found)
    assert found[-1] == 64


def test_only_as_many_are_added_as_help(clock: Clock) -> None:
    assert run(Pace(64), clock, 1, busy=0.3) == [2]


def test_waiting_for_a_processor_is_no_latency(clock: Clock) -> None:
    watched = Pace(64)
    for _ in range(10):
        clock.spend(0.2, 0.08, delay=0.1)
        watched.adjust()
    assert watched.readers == 0


def test_readers_that_fight_for_the_processor_become_fewer(clock: Clock) -> None:
    watched = Pace(64)
    run(watched, clock, 4, busy=0.05)
    found = run(watched, clock, 20, busy=0.2, others=1.1)
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0


def test_in_between_the_number_stays(clock: Clock) -> None:
    watched = Pace(64)
    run(watched, clock, 1, busy=0.1)
    assert len(set(run(watched, clock, 10, busy=0.1, others=0.7))) == 1


def test_what_the_taker_does_does_not_count(clock: Clock) -> None:
    watched = Pace(64)
    for _ in range(20):
        clock.spend(0.06, 0.058)
        watched.pause()
        clock.spend(0.1, 0.0)
        watched.resume()
        watched.adjust()
    assert watched.readers == 0


def test_a_slow_taker_needs_fewer_readers(clock: Clock) -> None:
    watched = Pace(64)
    run(watched, clock, 4, busy=0.05)
    for _ in range(20):
        clock.spend(0.05)
        watched.pause()
        clock.spend(2.0)
        watched.resume()
        watched.adjust()
    assert watched.readers == 0


def test_one_reader_is_the_writer(clock: Clock) -> None:
    assert set(run(Pace(1), clock, 20, busy=0.01)) == {0}


def test_a_lack_of_descriptors_is_remembered(clock: Clock) -> None:
    watched = Pace(64)
    run(watched, clock, 4, busy=0.05)
    watched.limit()
    assert watched.readers == 32
    assert run(watched, clock, 5, busy=0.05)[-1] == 32


def test_batches_are_small_while_answers_are_slow(clock: Clock) -> None:
    watched = Pace(64)
    first = watched.batch
    run(watched, clock, 3, busy=0.98)
    alone = watched.batch
    run(watched, clock, 4, busy=0.02)
    assert first == watched.batch == 8
    assert alone > 100
