"""The live view, as it looks on terminals of several sizes."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial

import pytest

from pipeline.cli.console import progress_for
from pipeline.cli.live import Live, columns_of
from pipeline.cli.screen import Screen, terminal_size
from pipeline.events import (
    ArtifactCommitted,
    ArtifactFailed,
    ArtifactStarted,
    BackupFinished,
    BranchFailed,
    Event,
    Progressed,
    StageProgress,
)
from pipeline.outlet import Outlet
from pipeline.progress import Rate, clock
from tests.display import Display

MIB = 1 << 20


def started(backup: str = "crm-db", artifact: str = "shop") -> ArtifactStarted:
    return ArtifactStarted(backup, artifact, ("nas", "offsite"))


def progressed(
    seconds: float,
    read: int,
    backup: str = "crm-db",
    artifact: str = "shop",
    bottleneck: str = "offsite",
    total: int | None = 1000 * MIB,
) -> Progressed:
    stages = (
        StageProgress("mysql", read, kind="source"),
        StageProgress("zstd", read // 4, 0.5),
        StageProgress("age", read // 4),
        StageProgress("nas", read // 4, 0.0, "storage"),
        StageProgress("offsite", read // 5, 1.0, "storage"),
    )
    return Progressed(backup, artifact, seconds, stages, bottleneck, total)


def shown(*events: Event, width: int = 80, height: int = 23) -> list[str]:
    live = Live()
    for event in events:
        live.take(event)
    return live.lines(width, height)


class TestLines:
    def test_one_for_the_artifact_and_one_for_each_storage(self) -> None:
        assert shown(started(), progressed(10, 400 * MIB)) == [
            "crm-db/shop   400.0 MiB    40.0 MiB/s  [####....]   0:10  40%  0:15 left",
            "  nas         100.0 MiB    10.0 MiB/s  [........]",
            "  offsite      80.0 MiB     8.0 MiB/s  [########]  <- bottleneck",
        ]

    def test_a_bottleneck_before_the_fan_out_is_named(self) -> None:
        head, *_ = shown(started(), progressed(10, 400 * MIB, bottleneck="zstd+age"), width=100)
        assert head.endswith("0:15 left  <- zstd+age")

    def test_nothing_is_estimated_where_the_source_does_not_know(self) -> None:
        head, *_ = shown(started(), progressed(10, 400 * MIB, total=None))
        assert head.endswith("[####....]   0:10")

    def test_the_rate_is_that_of_the_last_seconds(self) -> None:
        events = [progressed(second, min(second, 10) * 40 * MIB) for second in range(1, 21)]
        head, *_ = shown(started(), *events)
        assert "400.0 MiB         0 B/s" in head
        assert "left" not in head

    @pytest.mark.parametrize("width", [1, 2, 3, *range(5, 121, 5)])
    @pytest.mark.parametrize("artifact", ["shop", "データベース" * 5, "a\x1b[2J\nb"])
    def test_no_line_is_wider_than_the_terminal(self, width: int, artifact: str) -> None:
        events = (started(artifact=artifact), progressed(7300, 400 * MIB, artifact=artifact))
        lines = shown(*events, width=width)
        assert len(lines) == 3
        assert all(columns_of(line) <= width for line in lines), lines
        assert "".join(lines).isprintable()

    @pytest.mark.parametrize(
        ("width", "kept"),
        [
            (79, "0:10  40%  0:15 left"),
            (60, "0:10  40%  0:15 left"),
            (53, "40%  0:15 left"),
            (45, "/s"),
        ],
    )
    def test_the_least_important_goes_first(self, width: int, kept: str) -> None:
        head, *_ = shown(started(), progressed(10, 400 * MIB), width=width)
        assert head.endswith(kept)
        assert "400.0 MiB" in head

    def test_several_at_once_stand_in_columns(self) -> None:
        lines = shown(
            started(),
            started("sites", "var-www-html"),
            progressed(10, 400 * MIB),
            progressed(3, 30 * MIB, "sites", "var-www-html"),
        )
        assert len(lines) == 6
        assert {line.index("MiB ") for line in lines} == {lines[0].index("MiB ")}

    def test_more_than_fits_is_counted(self) -> None:
        events: list[Event] = []
        for number in range(10):
            events += [started(artifact=f"a{number}"), progressed(1, MIB, artifact=f"a{number}")]
        lines = shown(*events, height=8)
        assert len(lines) == 8
        assert lines[-1] == "... 23 more lines"

    def test_a_line_stays_until_every_storage_has_ended(self) -> None:
        begun = [started(), progressed(10, 400 * MIB)]
        first = ArtifactCommitted("crm-db", "shop", "nas", "crm-db/shop/x", 1)
        lines = shown(*begun, first)
        assert lines[1].endswith("stored")
        failed = BranchFailed("crm-db", "shop", "offsite", True, "gone")
        assert shown(*begun, failed)[2].endswith("failed")
        for last in (failed, replace(first, storage="offsite")):
            assert shown(*begun, first, last) == []

    @pytest.mark.parametrize(
        "end", [ArtifactFailed("crm-db", "shop", "x"), BackupFinished("crm-db", "interrupted", 1.0)]
    )
    def test_what_has_ended_is_gone(self, end: Event) -> None:
        other = [started("sites"), progressed(1, MIB, "sites")]
        lines = shown(started(), progressed(10, 400 * MIB), *other, end)
        assert [line.split()[0] for line in lines] == ["sites/shop", "nas", "offsite"]


def test_a_rate_follows_a_change_within_seconds() -> None:
    rate = Rate()
    for tick in range(1, 101):
        rate.add(tick / 5, tick * 10)
    assert rate.now == pytest.approx(50)
    for tick in range(101, 126):
        rate.add(tick / 5, 1000)
    assert rate.now == 0


def test_times_read_like_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 7325)] == [
        "0:00",
        "1:00",
        "59:59",
        "2:02:05",
    ]


@pytest.mark.parametrize(
    ("choice", "is_terminal", "log_format", "is_quiet", "expected"),
    [
        ("auto", True, "text", False, "bar"),
        ("auto", True, "json", False, "lines"),
        ("auto", False, "text", False, "lines"),
        ("auto", True, "text", True, "off"),
        ("bar", False, "text", True, "bar"),
        ("json", True, "json", False, "json"),
    ],
)
def test_how_progress_is_shown(
    choice: str, is_terminal: bool, log_format: str, is_quiet: bool, expected: str
) -> None:
    assert progress_for(choice, is_terminal, log_format, is_quiet) == expected


class Window:
    """A screen in a terminal whose size can change."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.terminal = Display(columns, lines)
        self.is_behind = False
        size = lambda: (self.terminal.columns, lines)  # noqa: E731
        self.screen = Screen(self.terminal.feed, lambda: self.is_behind, size, period=0.0)

    def show(self, *events: Event) -> None:
        for event in events:
            self.screen.show(event)


class TestScreen:
    def test_log_lines_stay_above_the_live_part(self) -> None:
        window = Window()
        window.show(started(), progressed(1, MIB))
        window.screen.write_line("first")
        window.show(progressed(2, 2 * MIB))
        window.screen.write_line("second, " + "long " * 30)
        window.show(progressed(3, 3 * MIB))
        seen = window.terminal.screen
        assert seen[0] == "first"
        assert "".join(seen[1:3]).startswith("second, long long")
        assert [line.split()[0] for line in seen[3:]] == ["crm-db/shop", "nas", "offsite"]
        assert "3.0 MiB" in seen[3]

    def test_at_the_end_only_the_log_is_left(self) -> None:
        window = Window()
        window.show(started(), progressed(1, MIB))
        window.screen.write_line("first")
        window.show(progressed(2, 2 * MIB))
        window.screen.close()
        window.screen.write_line("after")
        assert window.terminal.screen == ["first", "after"]

    def test_a_full_screen_scrolls(self) -> None:
        window = Window(lines=6)
        window.show(started(), progressed(1, MIB))
        for number in range(30):
            window.screen.write_line(f"line {number}")
            window.show(progressed(2 + number, MIB * number))
        log = window.terminal.text.split("\n")[:-3]
        assert log == [f"line {number}" for number in range(30)]

    def test_more_backups_than_rows_leave_no_remains(self) -> None:
        window = Window(lines=8)
        for number in range(10):
            name = f"a{number}"
            window.show(started(artifact=name), progressed(1, MIB, artifact=name))
        window.screen.write_line("log")
        for number in range(10):
            window.show(ArtifactFailed("crm-db", f"a{number}", "x"))
        window.screen.close()
        assert window.terminal.text == "log"

    def test_a_narrower_window_is_cleared_as_it_wraps(self) -> None:
        window = Window(columns=80)
        window.show(started(), progressed(10, 400 * MIB))
        wrapped = Display(30, 24)
        wrapped.feed("\n".join([*window.terminal.screen, ""]))
        window.terminal = wrapped
        window.screen._write = wrapped.feed
        window.show(progressed(11, 410 * MIB))
        assert [line.split()[0][:8] for line in wrapped.screen] == ["crm-db/~", "nas", "offsi~"]

    def test_nothing_is_drawn_for_a_terminal_that_does_not_keep_up(self) -> None:
        window = Window()
        window.is_behind = True
        window.show(started(), progressed(1, MIB))
        assert window.terminal.screen == []
        window.screen.write_line("a line of the log is")
        assert window.terminal.screen[0] == "a line of the log is"


def test_the_size_is_that_of_the_stream_that_is_drawn_on() -> None:
    read, write = os.pipe()
    assert terminal_size(write) == (80, 24)
    os.close(read)
    os.close(write)


class TestOutlet:
    def test_a_stream_that_takes_nothing_holds_up_nobody(self) -> None:
        held, free = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            free.wait(30)

        done: list[int] = []
        outlet = Outlet("test", lambda _: None)
        outlet.put(hold)
        assert held.wait(30)
        assert not outlet.is_behind
        for number in range(20_000):
            outlet.put(partial(done.append, number))
        assert outlet.is_behind
        lost = outlet.lost
        free.set()
        outlet.close(lambda: done.append(-1))
        assert done == [*range(20_000 - lost), -1]
        assert lost >= 10_000

    def test_what_is_not_done_in_time_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pipeline.outlet._PATIENCE", 0.1)
        free = threading.Event()
        outlet = Outlet("test", lambda _: None)
        for _ in range(4):
            outlet.put(lambda: bool(free.wait(30)))  # type: ignore[arg-type]
        outlet.close()
        assert outlet.is_alive
        assert outlet.lost == 4
        free.set()

    def test_what_fails_is_told_and_the_rest_goes_on(self) -> None:
        failures: list[OSError] = []
        done: list[int] = []
        outlet = Outlet("test", failures.append)

        def fail() -> None:
            raise BrokenPipeError

        outlet.put(fail)
        outlet.put(lambda: done.append(1))
        outlet.close()
        assert [type(error) for error in failures] == [BrokenPipeError]
        assert done == [1]
        assert outlet.lost == 1
