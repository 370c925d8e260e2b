"""Notifiers beside a run: they tell, and can neither fail, block nor slow it. Both event loops."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import notify, registry
from pipeline.errors import NotifierError
from pipeline.events import Event, EventBus
from pipeline.report import Outcome, RunReport
from pipeline.runner import Runner
from pipeline.stage import Notifier
from schemas.load import load

pytestmark = pytest.mark.anyio

CONFIGURATION = """\
name: shop
host: web
storages:
  nas: {{type: memory, path: notify-test}}
notifiers:
  ops: {{type: webhook, url: "http://127.0.0.1:9/", level: {level}, send: {send}, timeout: 300ms}}
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

    def __init__(self, fail: Exception | None = None, hang: bool = False) -> None:
        self.fail, self.hang = fail, hang
        self.reports: list[RunReport] = []
        self.events: list[str] = []

    async def send(self, report: RunReport) -> None:
        await self._misbehave()
        self.reports.append(report)

    async def send_events(self, events: Sequence[Event]) -> None:
        await self._misbehave()
        self.events += [event.name for event in events]

    async def _misbehave(self) -> None:
        if self.hang:
            await anyio.sleep_forever()
        if self.fail:
            raise self.fail


async def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, **values: str
) -> RunReport:
    values = {"level": "info", "send": "summary", "program": "echo, hi", **values}
    path = tmp_path / "pipeline.yaml"
    path.write_text(CONFIGURATION.format(**values))
    monkeypatch.setattr(registry, "make_notifier", lambda _: recorder)
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


async def test_more_events_than_the_queue_holds_are_counted() -> None:
    class Spec:
        send, level, timeout = "events", "debug", 1.0

    spec: Any = Spec()
    feed = notify.Feed("ops", spec, ["db"])
    for _ in range(notify.QUEUE + 7):
        feed.take(Event())
    feed._notifier = Recorder()
    report = RunReport("1", "shop", "web", datetime.now(timezone.utc))
    assert await feed.finish(report) == ["ops: 7 events dropped"]


@pytest.fixture(autouse=True)
def plain_event_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Event, "name", "plain", raising=False)
