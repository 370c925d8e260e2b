"""What every notifier must do: the suite that each implementation is run through.

A notifier talks to a real HTTP or HTTPS server on loopback. `build` makes one that calls the given
address; one that speaks another protocol brings a suite of its own.
"""

from __future__ import annotations

import logging
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from pipeline.errors import NotifierError
from pipeline.events import ArtifactCommitted, Event, ItemsSkipped, Progressed, StageProgress
from pipeline.report import ArtifactReport, BackupReport, BranchReport, Outcome, RunReport
from pipeline.stage import Notifier
from tests.servers.http import Answer, HttpSink, self_signed

SECRET = "T0KEN-that-nobody-may-see"
PATH = f"/services/{SECRET}?key={SECRET}"


class Build(Protocol):
    """Makes a notifier that calls `url`, within `timeout` as a user writes it."""

    def __call__(self, url: str, timeout: str = "30s", ca: Path | None = None) -> Notifier: ...


def report() -> RunReport:
    """A run of one backup, partial, with a file name that is not UTF-8."""
    branch = BranchReport("nas", True, Outcome.OK, "etc/etc/etc_x.tar", 900)
    etc = ArtifactReport("etc", Outcome.PARTIAL, skipped=["a\udcff: gone"], skipped_total=1)
    etc.branches.append(branch)
    run = RunReport("r1", "shop", "web-1", datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc))
    run.backups.append(BackupReport("etc", Outcome.PARTIAL, artifacts=[etc]))
    return run


def some_events() -> list[Event]:
    return [
        ArtifactCommitted("etc", "etc", "nas", "etc/etc/etc_x.tar", 900),
        Progressed("etc", "etc", 1.5, (StageProgress("zstd", 7, 0.5), StageProgress("nas", 5))),
        ItemsSkipped("etc", "etc", 1, ("a\udcff: gone",)),
    ]


async def refusal(notifier: Notifier) -> NotifierError:
    """The error of a message that is not delivered, after checking what it gives away."""
    with pytest.raises(NotifierError) as raised:
        await notifier.send(report())
    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert SECRET not in told
    assert raised.value.message[:1] in '"' or raised.value.message[:1].islower()
    assert not raised.value.message.endswith(".")
    return raised.value


@pytest.mark.anyio
class NotifierContract:
    """Run on each event loop that anyio knows."""

    async def test_a_report_is_delivered_once(self, build: Build) -> None:
        with HttpSink() as sink:
            await build(sink.url(PATH)).send(report())
            (request,) = sink.received
        assert request.path == PATH
        assert b"etc" in request.body

    async def test_a_batch_of_events_is_delivered_in_one_message(self, build: Build) -> None:
        with HttpSink() as sink:
            await build(sink.url(PATH)).send_events(some_events())
            (request,) = sink.received
        committed = request.body.index(b"artifact committed")
        assert committed < request.body.index(b"items skipped")

    async def test_events_that_are_refused_are_an_error(self, build: Build) -> None:
        with HttpSink(Answer(403)) as sink:
            notifier = build(sink.url(PATH))
            with pytest.raises(NotifierError, match="403"):
                await notifier.send_events(some_events())

    async def test_one_notifier_tells_several_runs(self, build: Build) -> None:
        with HttpSink() as sink:
            notifier = build(sink.url(PATH))
            for _ in range(3):
                await notifier.send(report())
            assert len(sink.received) == 3

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    async def test_any_2xx_is_a_success(self, build: Build, status: int) -> None:
        with HttpSink(Answer(status)) as sink:
            await build(sink.url(PATH)).send(report())
            assert len(sink.received) == 1

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
    async def test_a_refusal_is_final(self, build: Build, status: int) -> None:
        with HttpSink(Answer(status, body=SECRET.encode())) as sink:
            error = await refusal(build(sink.url(PATH)))
            assert len(sink.received) == 1
        assert str(status) in error.message
        assert '"127.0.0.1"' in error.message

    async def test_a_redirect_is_not_followed(self, build: Build) -> None:
        with HttpSink() as elsewhere:
            answer = Answer(307, headers={"location": elsewhere.url(PATH)})
            with HttpSink(answer) as sink:
                error = await refusal(build(sink.url(PATH)))
            assert elsewhere.received == []
        assert "307" in error.message

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_what_may_pass_is_tried_again(self, build: Build, status: int) -> None:
        with HttpSink(Answer(status), Answer(200)) as sink:
            await build(sink.url(PATH)).send(report())
            first, second = sink.received
        assert first == second

    async def test_no_new_attempt_is_made_before_the_server_wants_it(self, build: Build) -> None:
        asked = Answer(429, headers={"retry-after": "60"})
        with HttpSink(asked, Answer(200)) as sink:
            error = await refusal(build(sink.url(PATH), timeout="5s"))
            assert len(sink.received) == 1
        assert "429" in error.message

    async def test_a_wait_that_fits_is_waited(self, build: Build) -> None:
        asked = Answer(429, headers={"retry-after": "1"})
        with HttpSink(asked, Answer(200)) as sink:
            await build(sink.url(PATH)).send(report())
            assert len(sink.received) == 2

    async def test_a_server_that_stays_broken_is_given_up(self, build: Build) -> None:
        with HttpSink(Answer(503)) as sink:
            error = await refusal(build(sink.url(PATH), timeout="2s"))
            assert len(sink.received) > 1
        assert "503" in error.message
        assert "2s" in error.message

    @pytest.mark.timeout(30)
    async def test_a_server_that_never_answers_is_given_up(self, build: Build) -> None:
        with HttpSink(Answer(manner="hang")) as sink:
            error = await refusal(build(sink.url(PATH), timeout="300ms"))
        assert "did not answer" in error.message

    async def test_a_body_that_never_ends_is_not_read(self, build: Build) -> None:
        with HttpSink(Answer(manner="endless")) as sink:
            await build(sink.url(PATH)).send(report())
            assert len(sink.received) == 1

    @pytest.mark.parametrize("manner", ["garbage", "close"])
    async def test_no_proper_answer_is_tried_again(self, build: Build, manner: str) -> None:
        broken = Answer(manner="garbage" if manner == "garbage" else "close")
        with HttpSink(broken, Answer(200)) as sink:
            await build(sink.url(PATH)).send(report())
            assert len(sink.received) == 2

    async def test_only_improper_answers_are_an_error(self, build: Build) -> None:
        with HttpSink(Answer(manner="garbage")) as sink:
            await refusal(build(sink.url(PATH), timeout="300ms"))

    async def test_nobody_there_is_an_error(self, build: Build) -> None:
        with HttpSink() as sink:
            url = sink.url(PATH)
        error = await refusal(build(url, timeout="300ms"))
        assert "cannot be reached" in error.message

    async def test_a_server_that_is_late_is_waited_for(self, build: Build) -> None:
        with HttpSink(Answer(delay=0.5)) as sink:
            await build(sink.url(PATH)).send(report())
            assert len(sink.received) == 1

    async def test_a_trusted_certificate_is_accepted(self, build: Build, tmp_path: Path) -> None:
        pem = self_signed(tmp_path)
        with HttpSink(certificate=pem) as sink:
            await build(sink.url(PATH), ca=pem).send(report())
            assert len(sink.received) == 1

    async def test_an_unknown_certificate_is_refused(self, build: Build, tmp_path: Path) -> None:
        with HttpSink(certificate=self_signed(tmp_path)) as sink:
            error = await refusal(build(sink.url(PATH)))
            assert sink.received == []
        assert "not trusted" in error.message

    async def test_a_certificate_for_another_host_is_refused(
        self, build: Build, tmp_path: Path
    ) -> None:
        pem = self_signed(tmp_path, "127.0.0.2")
        with HttpSink(certificate=pem) as sink:
            error = await refusal(build(sink.url(PATH), ca=pem))
            assert sink.received == []
        assert "not trusted" in error.message

    async def test_a_missing_trust_file_is_named(self, build: Build, tmp_path: Path) -> None:
        missing = tmp_path / "missing.pem"
        error = await refusal(build("https://127.0.0.1:1" + PATH, ca=missing))
        assert f'"{missing}"' in error.message

    async def test_an_unusable_trust_file_is_named(self, build: Build, tmp_path: Path) -> None:
        empty = tmp_path / "empty.pem"
        empty.touch()
        error = await refusal(build("https://127.0.0.1:1" + PATH, ca=empty))
        assert f'"{empty}"' in error.message

    @pytest.mark.parametrize(
        "url",
        [f"https://h:port/{SECRET}", f"https://h/\n{SECRET}", f"https://?{SECRET}"],
        ids=["port", "line-break", "no-host"],
    )
    async def test_a_malformed_address_is_an_error(self, build: Build, url: str) -> None:
        await refusal(build(url))

    async def test_it_can_be_cancelled_while_it_waits(self, build: Build) -> None:
        with HttpSink(Answer(manner="hang")) as sink:
            async with anyio.create_task_group() as group:
                group.start_soon(build(sink.url(PATH)).send, report())
                await anyio.to_thread.run_sync(sink.wait_for, 1)
                group.cancel_scope.cancel()
            assert len(sink.received) == 1

    async def test_it_can_be_cancelled_between_attempts(self, build: Build) -> None:
        asked = Answer(503, headers={"retry-after": "20"})
        with HttpSink(asked) as sink:
            async with anyio.create_task_group() as group:
                group.start_soon(build(sink.url(PATH)).send, report())
                await anyio.to_thread.run_sync(sink.wait_for, 1)
                await anyio.sleep(0.1)
                group.cancel_scope.cancel()
            assert len(sink.received) == 1

    async def test_the_address_is_not_logged(
        self, build: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with HttpSink(Answer(500), Answer(200)) as sink:
            await build(sink.url(PATH)).send(report())
        assert SECRET not in caplog.text
