"""Small things of the command line that need no archive to be tried."""

from __future__ import annotations

import json
import os
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from pipeline.catalog import at, parse_time
from pipeline.cli.main import main
from pipeline.cli.screen import Lines, Outlet, Screen, progress_lines
from pipeline.errors import NxsError
from pipeline.events import (
    ArtifactCommitted,
    ArtifactFailed,
    BackupFinished,
    Event,
    EventBus,
    Progressed,
    StageProgress,
)
from pipeline.logs import log_subscriber
from pipeline.redact import Redactor
from pipeline.report import format_seconds, format_size

COMMITTED = ArtifactCommitted("db", "crm", "nas", "db/crm/crm_x.sql", 3 << 20)


class Collected:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def test_json_logs_have_stable_fields() -> None:
    sink = Collected()
    log_subscriber(sink, "json", "info", False, Redactor())(COMMITTED)
    found = json.loads(sink.lines[0])
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "event": "artifact committed",
        "backup": "db",
        "artifact": "crm",
        "storage": "nas",
        "object": "db/crm/crm_x.sql",
        "size": 3 << 20,
    }


def test_text_logs_are_for_people_and_plain_without_colours() -> None:
    sink = Collected()
    log_subscriber(sink, "text", "info", False, Redactor())(COMMITTED)
    assert sink.lines[0].split("] ", 1)[1].split() == [
        "artifact",
        "committed",
        "backup=db",
        "artifact=crm",
        "storage=nas",
        "size='3.0",
        "MiB'",
    ]
    assert "\x1b" not in sink.lines[0]


@pytest.mark.parametrize(
    ("outcome", "level"), [("ok", "info"), ("partial", "warning"), ("failed", "error")]
)
def test_how_it_ended_decides_the_level(outcome: str, level: str) -> None:
    sink = Collected()
    log_subscriber(sink, "json", "info", False, Redactor())(BackupFinished("db", outcome, 1.0))
    assert json.loads(sink.lines[0])["level"] == level


def test_below_the_level_nothing_is_written() -> None:
    sink = Collected()
    log_subscriber(sink, "text", "warning", False, Redactor())(COMMITTED)
    assert sink.lines == []


def test_the_bus_cuts_out_secrets_in_every_form() -> None:
    seen = []
    bus = EventBus(seen.append, redactor=Redactor(["s3/cr+et"]))
    bus.emit(ArtifactFailed("s3/cr+et", "crm", "at s3/cr+et and s3%2Fcr%2Bet"))
    assert seen[0].error == "at [secret] and [secret]"
    assert seen[0].backup == "s3/cr+et", "a name stays a name, or nobody would know what failed"


PROGRESS = Progressed(
    "db",
    "crm",
    2.0,
    (StageProgress("mysql", 4 << 20), StageProgress("nas", 2 << 20, 0.5)),
    "nas",
)


def test_progress_shows_rate_fill_and_bottleneck() -> None:
    head, source, branch = progress_lines(PROGRESS)
    assert head == "db/crm  2.0 s  waiting for: nas"
    assert source.split() == ["mysql", "4.0", "MiB", "2.0", "MiB/s"]
    assert branch.endswith("[######......]")


def test_the_screen_keeps_log_lines_above_the_live_part() -> None:
    read, write = os.pipe()
    outlet = Outlet(write)
    screen = Screen(outlet)
    screen.show(PROGRESS)
    screen.write_line("a log line")
    screen.show(COMMITTED)
    screen.close()
    outlet.close()
    os.close(write)
    with open(read) as output:
        text = output.read()
    before, after = text.split("a log line\n")
    assert before.endswith("\x1b[3A\x1b[J")
    assert after.endswith("\x1b[3A\x1b[J")


def test_times_that_at_understands() -> None:
    noon = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
    for text in (
        "2026-11-23T12:00:00Z",
        "2026-11-23T12-00-00Z",
        "2026-11-23 12:00",
        "2026-11-23T13:00:00+01:00",
    ):
        assert parse_time(text) == noon
    with pytest.raises(NxsError, match="is not a time"):
        parse_time("yesterday")
    assert at([], "latest") == []


def test_sizes_and_times_read_well() -> None:
    assert [format_size(n) for n in (0, 1023, 1536, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 TiB",
    ]
    assert [format_seconds(n) for n in (0.44, 61, 7500)] == ["0.4 s", "1 m 1 s", "2 h 5 m"]


def test_keygen_never_replaces_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "key.txt"
    assert main(["keygen", str(path)]) == 0
    public = capsys.readouterr().out.strip()
    assert public.startswith("age1")
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    assert f"# public key: {public}\n" in before
    assert main(["keygen", str(path)]) == 1
    assert "never replaced" in capsys.readouterr().err
    assert path.read_text() == before


def test_an_env_file_gives_variables_that_are_not_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").write_text("# comment\nexport ROOT='/from file'\nNAME=\"shop\"\n\n")
    config = tmp_path / "pipeline.yaml"
    config.write_text(
        "name: ${NAME}\n"
        "storages: {here: {type: local, path: '${ROOT}'}}\n"
        "backups: {a: {source: {type: stdin}, fan_out: [{storage: here}]}}\n"
    )
    config.chmod(0o600)
    monkeypatch.setenv("NAME", "not a plain name!")
    assert main(["check", str(config), "--env-file", str(tmp_path / "env")]) == 78
    assert "plain name" in capsys.readouterr().err
    monkeypatch.delenv("NAME")
    assert main(["check", str(config), "--env-file", str(tmp_path / "env")]) == 0
    (tmp_path / "env").write_text("what is this\n")
    assert main(["check", str(config), "--env-file", str(tmp_path / "env")]) == 78
    assert "line 1: is not NAME=VALUE" in capsys.readouterr().err


def test_a_stream_that_takes_nothing_holds_up_nobody() -> None:
    read, write = os.pipe()
    with open(write, "w"), open(read, "rb") as reader:
        outlet = Outlet(write)
        lines = Lines(outlet)
        for number in range(20_000):
            lines.write_line(f"line {number} " + "x" * 100)
        text = b""
        while b"line 100 " not in text:
            text += os.read(reader.fileno(), 4096)
        closing = threading.Thread(target=outlet.close)
        closing.start()
        while b"lines could not be written in time" not in text:
            text += os.read(reader.fileno(), 65536)
        closing.join()
    assert b"line 0 " in text


def test_a_subscriber_that_fails_does_not_keep_others_from_hearing() -> None:
    seen: list[Event] = []

    def broken(_: Event) -> None:
        raise BrokenPipeError

    bus = EventBus(broken, seen.append)
    bus.emit(COMMITTED)
    bus.emit(COMMITTED)
    assert len(seen) == 2
