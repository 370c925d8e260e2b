"""How long the end of a run waits for a notifier: for one that has answered, and for one that has
not. Both event loops.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from pipeline import contact
from pipeline.errors import NotifierError
from pipeline.events import RunStarted
from pipeline.report import Outcome, RunReport
from tests.unit.test_notify import Recorder, feed_of, finished, run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("send", ["summary", "events"])
async def test_one_that_never_answered_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, send: str
) -> None:
    recorder = Recorder(hang=True, gone=True)
    # Waiting for that long would end the test.
    report = await run(tmp_path, monkeypatch, recorder, send=send, timeout="10m")
    assert report.outcome is Outcome.OK
    assert "no answer while the run went on" in report.notifications[0]
    assert report.summary().splitlines()[-1].startswith("not told: ops: ")
    if send == "events":
        assert report.notifications[1].endswith("events not told")


async def test_one_that_has_answered_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Recorder):
        async def send(self, report: RunReport) -> None:
            await anyio.sleep(3 * contact.LAST_CALL)
            await super().send(report)

    recorder = Slow()
    report = await run(tmp_path, monkeypatch, recorder, timeout="30s")
    assert report.notifications == []
    assert len(recorder.reports) == 1


async def test_one_that_answers_at_the_last_moment_is_waited_for() -> None:
    class Late(Recorder):
        async def reach(self) -> None:
            await anyio.sleep(0.2)

        async def send(self, report: RunReport) -> None:
            await anyio.sleep(3 * contact.LAST_CALL)
            await super().send(report)

    recorder = Late()
    feed = feed_of(recorder, timeout="30s")
    async with anyio.create_task_group() as group:
        group.start_soon(feed.seek)
        assert await feed.finish(finished()) == []
    assert len(recorder.reports) == 1


async def test_a_message_that_hangs_does_not_keep_the_last_one_from_being_tried() -> None:
    class Stuck(Recorder):
        async def announce(self, run: RunStarted) -> None:
            await anyio.sleep_forever()

    recorder = Stuck(gone=True)
    feed = feed_of(recorder, timeout="10m", start=True)
    feed.take(RunStarted("1", "shop", "web", ("db",)))
    async with anyio.create_task_group() as group:
        group.start_soon(feed.run)
        group.start_soon(feed.seek)
        await anyio.wait_all_tasks_blocked()
        told = await feed.finish(finished())
        group.cancel_scope.cancel()
    assert told == ["ops: a message was given up at the end of the run"]
    assert len(recorder.reports) == 1


async def test_contact_is_sought_until_it_is_had() -> None:
    class Waking(Recorder):
        asked = 0

        async def reach(self) -> None:
            self.asked += 1
            if self.asked == 1:
                raise NotifierError("nobody there yet")

    recorder = Waking()
    with anyio.fail_after(20):
        await feed_of(recorder).seek()
    assert recorder.asked == 2
