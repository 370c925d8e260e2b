"""Logs: which events are in them, and how they read."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from pipeline.events import ArtifactFailed, BackupFinished, Progressed, RunStarted
from pipeline.logs import Record, json_lines, log_subscriber, progress_subscriber, text_lines
from pipeline.progress import Pace
from pipeline.redact import Redactor
from tests.unit.log_records import COMMITTED, ESCAPE, PROGRESS, SKIPPED, record


class TestLines:
    def test_json_has_stable_fields(self) -> None:
        assert json.loads(json_lines(Redactor())(record(COMMITTED))) == {
            "time": "2026-11-23T12:00:00.250Z",
            "level": "info",
            "event": "artifact committed",
            "run": "r1",
            "backup": "db",
            "artifact": "crm",
            "storage": "nas",
            "object": "db/crm/crm_x.sql",
            "size": 3 << 20,
        }

    def test_json_of_progress_has_every_stage(self) -> None:
        found = json.loads(json_lines(Redactor())(record(PROGRESS)))
        assert found["stages"][:2] == [
            {"stage": "redis", "bytes": 400 << 20, "fill": None, "kind": "source"},
            {"stage": "zstd", "bytes": 80 << 20, "fill": 0.5, "kind": "transform"},
        ]
        assert (found["bottleneck"], found["total"]) == ("offsite", 1000 << 20)

    def test_text_is_for_people_and_plain_without_colours(self) -> None:
        line = text_lines(Redactor())(record(COMMITTED))
        assert re.fullmatch(
            r"2026-11-2\d \d\d:\d\d:00 \[info     \] artifact committed   "
            "backup=db artifact=crm storage=nas size='3.0 MiB'",
            line,
        )

    def test_colours_change_nothing_but_colours(self) -> None:
        coloured = text_lines(Redactor(), colors=True)(record(COMMITTED))
        assert "\x1b[" in coloured
        plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
        assert plain.split() == text_lines(Redactor())(record(COMMITTED)).split()

    def test_text_of_progress_is_short(self) -> None:
        line = text_lines(Redactor(), stamped=False)(record(PROGRESS))
        assert line == (
            "progressed backup=db artifact=crm read='400.0 MiB' rate='40.0 MiB/s' elapsed=0:10 "
            "done=40% left=0:15 stored='nas 60.0 MiB, offsite 50.0 MiB' bottleneck=offsite"
        )

    @pytest.mark.parametrize("colors", [False, True])
    def test_no_name_can_move_the_cursor_or_pass_for_another_line(self, colors: bool) -> None:
        line = text_lines(Redactor(), colors)(record(replace(SKIPPED, items=(ESCAPE,))))
        assert re.sub(r"\x1b\[[0-9;]*m", "", line).isprintable()
        assert "owned" in line

    def test_json_is_one_line_of_ascii_whatever_is_in_it(self) -> None:
        line = json_lines(Redactor())(record(replace(SKIPPED, items=(ESCAPE,))))
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line)["items"] == [ESCAPE]

    @pytest.mark.parametrize("render", [json_lines, text_lines])
    def test_a_secret_does_not_reach_a_line_without_a_bus_either(self, render: object) -> None:
        failed = ArtifactFailed("db", "crm", "login with s3cret failed")
        line = {json_lines: json_lines, text_lines: text_lines}[render](Redactor(["s3cret"]))(  # type: ignore[index]
            record(failed)
        )
        assert "s3cret" not in line
        assert "[secret]" in line


class TestChoice:
    def test_below_the_level_nothing_is_written(self) -> None:
        seen: list[Record] = []
        take = log_subscriber(seen.append, "warning")
        for event in (COMMITTED, SKIPPED, BackupFinished("db", "failed", 1.0)):
            take(event)
        assert [found.event.severity for found in seen] == ["warning", "error"]

    def test_each_record_names_the_run_it_belongs_to(self) -> None:
        seen: list[Record] = []
        take = log_subscriber(seen.append, "info")
        take(RunStarted("r7", "shop", "web-1", ("db",)))
        take(COMMITTED)
        assert [found.run for found in seen] == ["r7", "r7"]

    def test_progress_is_told_ever_rarer(self) -> None:
        seen: list[Record] = []
        take = progress_subscriber(seen.append, Pace(15, 60))
        for tick in range(1, 1500):
            take(replace(PROGRESS, seconds=tick / 5))
            take(COMMITTED)
        moments = [found.event.seconds for found in seen if isinstance(found.event, Progressed)]
        assert moments == [15, 30, 60, 120, 180, 240]
        assert len(moments) == len(seen)

    def test_progress_of_one_artifact_does_not_hide_that_of_another(self) -> None:
        pace = Pace(15, 60)
        assert pace.is_due(replace(PROGRESS, seconds=20))
        assert not pace.is_due(replace(PROGRESS, seconds=21))
        assert pace.is_due(replace(PROGRESS, seconds=20, artifact="other"))
