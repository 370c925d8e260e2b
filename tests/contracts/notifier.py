"""What every notifier must do: the suite that each implementation is run through.

A notifier talks to a real HTTP or HTTPS server on loopback. `build` makes one that calls the given
address; one that speaks another protocol brings a suite of its own.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import anyio
import pytest

from pipeline.errors import NotifierError
from pipeline.events import ArtifactCommitted, Event, ItemsSkipped, Progressed, StageProgress
from pipeline.report import ArtifactReport, BackupReport, BranchReport, Outcome, RunReport
from pipeline.stage import Notifier
from stages.notifiers import _delivery
from tests.servers.dead import DeadServer, Manner
from tests.servers.http import Answer, HttpSink, self_signed

SECRET = "T0KEN-that-nobody-may-see"
PATH = f"/services/{SECRET}?key={SECRET}"


@dataclass(frozen=True)
class Build:
    """Makes a notifier that calls `url`, within `timeout` as a user writes it."""

    make: Callable[..., Notifier]
    """Called with `url`, `timeout` and `ca`."""
    base: str = PATH
    """What the configured address has behind the host."""
    path: str = PATH
    """What is called for a report that is partial."""
    body: bytes = b""
    """How the service accepts a message."""
    reads: bool = False
    """Whether the notifier has to understand the answer."""

    def __call__(self, url: str, timeout: str = "30s", ca: Path | None = None) -> Notifier:
        return self.make(url, timeout=timeout, ca=ca and str(ca))

    def good(self, status: int = 200, delay: float = 0.0) -> Answer:
        return Answer(status, body=self.body, delay=delay)


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


async def no_reach(notifier: Notifier) -> None:
    """Check that a notifier finds nobody there, and what it gives away."""
    with pytest.raises(NotifierError) as raised:
        await notifier.reach()
    assert SECRET not in "".join(traceback.format_exception(raised.value)) + repr(raised.value)


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

    @pytest.fixture(autouse=True)
    def short_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pauses between attempts, and nothing else, are shorter than a user's."""
        monkeypatch.setattr(_delivery, "FIRST_DELAY", 0.05)

    async def test_a_report_is_delivered_once(self, build: Build) -> None:
        with HttpSink(build.good()) as sink:
            await build(sink.url(build.base)).send(report())
            (request,) = sink.received
        assert request.path == build.path
        assert b"etc" in request.body

    async def test_a_batch_of_events_is_delivered_in_one_message(self, build: Build) -> None:
        with HttpSink(build.good()) as sink:
            await build(sink.url(build.base)).send_events(some_events())
            (request,) = sink.received
        committed = request.body.index(b"artifact committed")
        assert committed < request.body.index(b"items skipped")

    async def test_events_that_are_refused_are_an_error(self, build: Build) -> None:
        with HttpSink(Answer(403)) as sink:
            notifier = build(sink.url(build.base))
            with pytest.raises(NotifierError, match="403"):
                await notifier.send_events(some_events())

    async def test_one_notifier_tells_several_runs(self, build: Build) -> None:
        with HttpSink(build.good()) as sink:
            notifier = build(sink.url(build.base))
            for _ in range(3):
                await notifier.send(report())
            assert len(sink.received) == 3

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    async def test_any_2xx_is_a_success(self, build: Build, status: int) -> None:
        if build.reads and status == 204:
            pytest.skip("an answer without a body cannot say what is needed")
        with HttpSink(build.good(status)) as sink:
            await build(sink.url(build.base)).send(report())
            assert len(sink.received) == 1

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
    async def test_a_refusal_is_final(self, build: Build, status: int) -> None:
        with HttpSink(Answer(status, body=SECRET.encode())) as sink:
            error = await refusal(build(sink.url(build.base)))
            assert len(sink.received) == 1
        assert str(status) in error.message
        assert '"127.0.0.1"' in error.message

    async def test_a_redirect_is_not_followed(self, build: Build) -> None:
        with HttpSink(build.good()) as elsewhere:
            answer = Answer(307, headers={"location": elsewhere.url(PATH)})
            with HttpSink(answer) as sink:
                error = await refusal(build(sink.url(build.base)))
            assert elsewhere.received == []
        assert "307" in error.message

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_what_may_pass_is_tried_again(self, build: Build, status: int) -> None:
        with HttpSink(Answer(status), build.good()) as sink:
            await build(sink.url(build.base)).send(report())
            first, second = sink.received
        assert first == second

    async def test_a_body_that_never_ends_is_not_read(self, build: Build) -> None:
        with HttpSink(Answer(manner="endless")) as sink:
            if build.reads:
                await refusal(build(sink.url(build.base)))
            else:
                await build(sink.url(build.base)).send(report())
            assert len(sink.received) == 1

    async def test_an_answer_that_is_not_understood_is_an_error(self, build: Build) -> None:
        if not build.reads:
            pytest.skip("the status says it all")
        for body in (b"", b"ok", b"[]", b"{}", b"\xff", SECRET.encode(), b"[" * 60_000):
            with HttpSink(Answer(200, body=body)) as sink:
                error = await refusal(build(sink.url(build.base)))
                assert len(sink.received) == 1
            assert "answer" in error.message or "refused" in error.message

    @pytest.mark.parametrize("manner", ["garbage", "close"])
    async def test_no_proper_answer_is_tried_again(self, build: Build, manner: str) -> None:
        broken = Answer(manner="garbage" if manner == "garbage" else "close")
        with HttpSink(broken, build.good()) as sink:
            await build(sink.url(build.base)).send(report())
            assert len(sink.received) == 2

    async def test_a_trusted_certificate_is_accepted(self, build: Build, tmp_path: Path) -> None:
        pem = self_signed(tmp_path)
        with HttpSink(build.good(), certificate=pem) as sink:
            await build(sink.url(build.base), ca=pem).send(report())
            assert len(sink.received) == 1

    async def test_an_unknown_certificate_is_refused(self, build: Build, tmp_path: Path) -> None:
        with HttpSink(certificate=self_signed(tmp_path)) as sink:
            error = await refusal(build(sink.url(build.base)))
            assert sink.received == []
        assert "not trusted" in error.message

    async def test_a_certificate_for_another_host_is_refused(
        self, build: Build, tmp_path: Path
    ) -> None:
        pem = self_signed(tmp_path, "127.0.0.2")
        with HttpSink(certificate=pem) as sink:
            error = await refusal(build(sink.url(build.base), ca=pem))
            assert sink.received == []
        assert "not trusted" in error.message

    async def test_a_missing_trust_file_is_named(self, build: Build, tmp_path: Path) -> None:
        missing = tmp_path / "missing.pem"
        error = await refusal(build("https://127.0.0.1:1" + build.base, ca=missing))
        assert f'"{missing}"' in error.message

    async def test_an_unusable_trust_file_is_named(self, build: Build, tmp_path: Path) -> None:
        empty = tmp_path / "empty.pem"
        empty.touch()
        error = await refusal(build("https://127.0.0.1:1" + build.base, ca=empty))
        assert f'"{empty}"' in error.message

    @pytest.mark.parametrize(
        "url",
        [f"https://h:port/{SECRET}", f"https://h/\n{SECRET}", f"https://?{SECRET}"],
        ids=["port", "line-break", "no-host"],
    )
    async def test_a_malformed_address_is_an_error(self, build: Build, url: str) -> None:
        await refusal(build(url))

    @pytest.mark.parametrize("status", [200, 204, 302, 401, 404, 405, 500, 501, 503])
    async def test_any_answer_shows_that_someone_is_there(self, build: Build, status: int) -> None:
        with HttpSink(Answer(status)) as sink:
            await build(sink.url(build.base)).reach()
            assert sink.received == []  # nobody was told
            (asked,) = sink.asked
        assert SECRET not in f"{asked.path} {asked.headers}"

    @pytest.mark.parametrize("manner", ["garbles", "refuses"])
    async def test_nobody_there_is_noticed(self, build: Build, manner: Manner) -> None:
        with DeadServer(manner) as dead:
            await no_reach(build(f"http://127.0.0.1:{dead.port}{build.base}"))

    @pytest.mark.parametrize("manner", ["hangs", "swallows"])
    async def test_a_question_can_be_cancelled(self, build: Build, manner: Manner) -> None:
        with DeadServer(manner) as dead:
            notifier = build(f"http://127.0.0.1:{dead.port}{build.base}")
            with anyio.move_on_after(0.2) as scope:
                await notifier.reach()
        assert scope.cancelled_caught

    async def test_the_address_is_not_logged(
        self, build: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with HttpSink(Answer(500), build.good()) as sink:
            await build(sink.url(build.base)).send(report())
        assert SECRET not in caplog.text


@pytest.mark.anyio
class PatienceContract:
    """Deadlines and pauses, for one that is called over HTTP: those share their delivery."""

    @pytest.fixture(autouse=True)
    def short_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pauses between attempts, and nothing else, are shorter than a user's."""
        monkeypatch.setattr(_delivery, "FIRST_DELAY", 0.05)

    async def test_no_new_attempt_is_made_before_the_server_wants_it(self, build: Build) -> None:
        asked = Answer(429, headers={"retry-after": "60"})
        with HttpSink(asked, build.good()) as sink:
            error = await refusal(build(sink.url(build.base), timeout="5s"))
            assert len(sink.received) == 1
        assert "429" in error.message

    async def test_a_wait_that_fits_is_waited(self, build: Build) -> None:
        asked = Answer(429, headers={"retry-after": "1"})
        with HttpSink(asked, build.good()) as sink:
            await build(sink.url(build.base)).send(report())
            assert len(sink.received) == 2

    async def test_a_server_that_stays_broken_is_given_up(self, build: Build) -> None:
        with HttpSink(Answer(503)) as sink:
            error = await refusal(build(sink.url(build.base), timeout="500ms"))
            assert len(sink.received) > 1
        assert "503" in error.message
        assert "0.5s" in error.message

    @pytest.mark.timeout(30)
    async def test_a_server_that_never_answers_is_given_up(self, build: Build) -> None:
        with HttpSink(Answer(manner="hang")) as sink:
            error = await refusal(build(sink.url(build.base), timeout="300ms"))
        assert "did not answer" in error.message

    async def test_a_slow_trickle_is_given_up(self, build: Build) -> None:
        with HttpSink(Answer(manner="trickle")) as sink:
            error = await refusal(build(sink.url(build.base), timeout="400ms"))
        assert "did not answer" in error.message

    async def test_only_improper_answers_are_an_error(self, build: Build) -> None:
        with HttpSink(Answer(manner="garbage")) as sink:
            await refusal(build(sink.url(build.base), timeout="300ms"))

    async def test_nobody_there_is_an_error(self, build: Build) -> None:
        with HttpSink(build.good()) as sink:
            url = sink.url(build.base)
        error = await refusal(build(url, timeout="300ms"))
        assert "cannot be reached" in error.message

    async def test_a_server_that_is_late_is_waited_for(self, build: Build) -> None:
        with HttpSink(build.good(delay=0.5)) as sink:
            await build(sink.url(build.base)).send(report())
            assert len(sink.received) == 1

    async def test_it_can_be_cancelled_while_it_waits(self, build: Build) -> None:
        with HttpSink(Answer(manner="hang")) as sink:
            async with anyio.create_task_group() as group:
                group.start_soon(build(sink.url(build.base)).send, report())
                await anyio.to_thread.run_sync(sink.wait_for, 1)
                group.cancel_scope.cancel()
            assert len(sink.received) == 1

    async def test_it_can_be_cancelled_between_attempts(self, build: Build) -> None:
        asked = Answer(503, headers={"retry-after": "20"})
        with HttpSink(asked) as sink:
            async with anyio.create_task_group() as group:
                group.start_soon(build(sink.url(build.base)).send, report())
                await anyio.to_thread.run_sync(sink.wait_for, 1)
                await anyio.sleep(0.1)
                group.cancel_scope.cancel()
            assert len(sink.received) == 1
