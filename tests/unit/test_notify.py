"""Notifiers beside a run: they tell, and can neither fail, block nor slow it. Both event loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest

from pipeline import notify, registry
from pipeline.backlog import TOLD
from pipeline.errors import NotifierError
from pipeline.events import (
    BackupFailed,
    BackupFinished,
    BackupStarted,
    Event,
    EventBus,
    EventsOmitted,
    RunStarted,
    SourceWarned,
)
from pipeline.report import BackupReport, Outcome, RunReport
from pipeline.runner import Runner
from pipeline.stage import Notifier
from schemas.load import load
from schemas.notifiers import TeamsNotifier
from schemas.telling import EventName

pytestmark = pytest.mark.anyio

CONFIGURATION = """\
name: shop
host: web
storages:
  nas: {{type: memory, path: notify-test}}
notifiers:
  ops:
    type: webhook
    url: "http://127.0.0.1:9/"
    level: {level}
    send: {send}
    timeout: {timeout}
backups:
  db:
    source: {{type: command, command: [{program}]}}
    fan_out: [{{storage: nas}}]
    notify: [ops]
  quiet:
    source: {{type: command, command: [echo, x]}}
    fan_out: [{{storage: nas}}]
"""


class Recorder(Notifier):
    """Keeps what it is told; may fail or hang."""

    def __init__(
        self, fail: Exception | None = None, hang: bool = False, gone: bool = False
    ) -> None:
        self.fail, self.hang, self.gone = fail, hang, gone
        self.reports: list[RunReport] = []
        self.events: list[str] = []
        self.batches: list[list[Event]] = []

    async def reach(self) -> None:
        if self.gone:
            raise NotifierError("nobody there")

    async def send(self, report: RunReport) -> None:
        await self._misbehave()
        self.reports.append(report)

    async def send_events(self, events: Sequence[Event]) -> None:
        await self._misbehave()
        self.batches.append(list(events))
        self.events += [event.name for event in events]

    async def _misbehave(self) -> None:
        if self.hang:
            await anyio.sleep_forever()
        if self.fail:
            raise self.fail


async def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorder: Recorder,
    make: Callable[[object], Notifier] | None = None,
    **values: str,
) -> RunReport:
    usual = {"level": "info", "send": "summary", "program": "echo, hi", "timeout": "300ms"}
    values = {**usual, **values}
    path = tmp_path / "pipeline.yaml"
    path.write_text(CONFIGURATION.format(**values))
    monkeypatch.setattr(registry, "make_notifier", make or (lambda _: recorder))
    with anyio.fail_after(20):
        return await Runner(load(path, {}).pipeline, EventBus()).run()


async def test_a_summary_is_told_once_and_only_of_backups_that_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    report = await run(tmp_path, monkeypatch, recorder)
    assert report.outcome is Outcome.OK
    assert [[b.name for b in told.backups] for told in recorder.reports] == [["db"]]
    assert recorder.events == []


async def test_a_success_is_below_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    await run(tmp_path, monkeypatch, recorder, level="warning")
    assert recorder.reports == []
    await run(tmp_path, monkeypatch, recorder, level="warning", program="'false'")
    assert [told.outcome for told in recorder.reports] == [Outcome.FAILED]


async def test_events_are_streamed_in_batches_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(notify, "BATCH_SECONDS", 0.05)
    await run(tmp_path, monkeypatch, recorder, send="events")
    wanted = ["artifact started", "artifact committed", "backup finished", "run finished"]
    assert [name for name in recorder.events if name in wanted] == wanted
    assert recorder.reports == []


@pytest.mark.parametrize(
    "recorder",
    [
        Recorder(fail=NotifierError('"ops.example" answered 404')),
        Recorder(fail=ZeroDivisionError("oops")),
        Recorder(hang=True),
    ],
    ids=["refuses", "is broken", "hangs"],
)
@pytest.mark.parametrize("send", ["summary", "events"])
async def test_a_notifier_that_misbehaves_changes_nothing_but_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, send: str
) -> None:
    started = time.monotonic()
    report = await run(tmp_path, monkeypatch, recorder, send=send)
    assert report.outcome is Outcome.OK
    assert report.notifications
    assert all(line.startswith("ops: ") for line in report.notifications)
    assert time.monotonic() - started < 15


def spec_of(**fields: Any) -> TeamsNotifier:
    values = {"type": "teams", "url": "http://h/", "timeout": "1s", **fields}
    return TeamsNotifier.model_validate(values)


def feed_of(recorder: Notifier, **fields: Any) -> notify.Feed:
    feed = notify.Feed("ops", spec_of(**fields), ["db"])
    feed._notifier = recorder
    return feed


def finished() -> RunReport:
    return RunReport("1", "shop", "web", datetime.now(timezone.utc))


async def test_ten_thousand_warnings_are_one_message_and_none_is_lost() -> None:
    recorder = Recorder()
    feed = feed_of(recorder, send="events")
    feed.take(BackupFailed("db", "first of all"))
    for number in range(9_998):
        feed.take(SourceWarned("db", "crm", f"row {number}"))
    feed.take(BackupFailed("db", "last of all"))
    assert await feed.finish(finished()) == []
    (batch,) = recorder.batches
    told = [event for event in batch if not isinstance(event, EventsOmitted)]
    omitted = [event for event in batch if isinstance(event, EventsOmitted)]
    assert len(told) == TOLD
    assert [event for event in told if isinstance(event, BackupFailed)] == [told[0], told[-1]]
    assert len(told) + sum(event.number for event in omitted) == 10_000
    assert [(one.event, one.reason, one.severity) for one in omitted] == [
        ("source warned", "too many", "warning")
    ]


async def test_an_event_that_is_repeated_is_told_once() -> None:
    recorder = Recorder()
    feed = feed_of(recorder, send="events")
    for _ in range(5):
        feed.take(SourceWarned("db", "crm", "again"))
    await feed.finish(finished())
    first, rest = recorder.batches[0]
    assert first == SourceWarned("db", "crm", "again")
    assert rest == EventsOmitted("source warned", 4, "repeated", "warning", "db")


async def test_events_that_are_not_told_are_counted() -> None:
    feed = feed_of(Recorder(fail=NotifierError("no")), send="events")
    for _ in range(7):
        feed.take(SourceWarned("db", "crm", "again"))
    assert await feed.finish(finished()) == ["ops: no", "ops: 7 events not told"]


async def test_one_that_cannot_be_made_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> Notifier:
        raise NotifierError("no such library")

    report = await run(tmp_path, monkeypatch, Recorder(), make=refuse)
    assert report.notifications == ["ops: no such library"]


async def test_only_events_that_were_asked_for_are_told() -> None:
    recorder = Recorder()
    feed = feed_of(recorder, send="events", events=["backup failed", "backup finished"])
    feed.take(SourceWarned("db", "crm", "no"))
    feed.take(BackupStarted("db"))
    feed.take(BackupFailed("db", "yes"))
    feed.take(BackupFailed("other", "no"))
    feed.take(BackupFinished("db", "failed", 1.0))
    await feed.finish(finished())
    assert recorder.events == ["backup failed", "backup finished"]


async def test_events_with_an_outcome_are_told_when_that_was_asked_for() -> None:
    recorder = Recorder()
    feed = feed_of(recorder, send="events", on=["failure"])
    for outcome in ("ok", "partial", "locked", "failed", "interrupted"):
        feed.take(BackupFinished("db", outcome, 1.0))
    await feed.finish(finished())
    told = [event.outcome for event in recorder.batches[0] if isinstance(event, BackupFinished)]
    assert told == ["failed", "interrupted"]


async def test_events_say_of_which_run_they_are() -> None:
    recorder = Recorder()
    feed = feed_of(recorder, send="events", level="warning")
    feed.take(RunStarted("1", "shop", "web", ("db", "other")))
    feed.take(BackupFailed("db", "no"))
    await feed.finish(finished())
    assert recorder.about == RunStarted("1", "shop", "web", ("db",))


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (["*"], ["crm-db", "crm-files", "etc"]),
        (["crm-*"], ["crm-db", "crm-files"]),
        (["etc", "crm-d?"], ["crm-db", "etc"]),
        (["CRM-DB"], []),
    ],
)
async def test_only_backups_that_match_are_told(patterns: list[str], told: list[str]) -> None:
    specs = {"ops": spec_of(backups=patterns)}
    feeds = notify.make_feeds(specs, [(name, ["ops"]) for name in ("crm-db", "crm-files", "etc")])
    assert sorted(name for feed in feeds for name in feed._backups) == told


async def test_a_recovery_is_a_result_of_its_own() -> None:
    report = finished()
    report.backups = [BackupReport("db", Outcome.OK, recovered=datetime.now(timezone.utc))]
    assert report.summary().startswith("[recovered] ")
    for on, told in (("recovered", 1), ("success", 1), ("failure", 0)):
        recorder = Recorder()
        await feed_of(recorder, on=[on]).finish(report)
        assert len(recorder.reports) == told
    report.backups[0].recovered = None
    recorder = Recorder()
    await feed_of(recorder, on=["recovered"]).finish(report)
    assert recorder.reports == []


def test_every_event_of_a_run_can_be_asked_for() -> None:
    # The others are never told to a notifier: those about notifiers, and what stands for many.
    others = {"notification failed", "notification tested", "events omitted", "export failed"}
    assert set(get_args(EventName)) == {one.name for one in Event.__subclasses__()} - others


@pytest.mark.parametrize(("on", "told"), [("success", 0), ("failure", 1)])
async def test_only_results_that_were_asked_for_are_told(on: str, told: int) -> None:
    recorder = Recorder()
    report = finished()
    report.backups.append(BackupReport("db", Outcome.INTERRUPTED))
    assert await feed_of(recorder, on=[on]).finish(report) == []
    assert len(recorder.reports) == told


class Editor(Recorder):
    """Shows how a run stands."""

    edits = True

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    async def show(self, text: str) -> None:
        self.shown.append(text)


async def test_a_long_run_is_shown_and_ends_as_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = Editor()
    monkeypatch.setattr(notify, "BATCH_SECONDS", 0.05)
    await run(tmp_path, monkeypatch, editor, program="sleep, '1.5'")
    assert editor.shown[0].splitlines()[0] == "[running] shop on web: 0 of 1 backups ended"
    assert editor.shown[0].splitlines()[1].startswith("db: ")
    assert len(editor.reports) == 1


async def test_nothing_is_shown_of_a_run_that_may_not_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = Editor()
    monkeypatch.setattr(notify, "BATCH_SECONDS", 0.05)
    await run(tmp_path, monkeypatch, editor, program="sleep, '0.5'", level="warning")
    assert editor.shown == []
