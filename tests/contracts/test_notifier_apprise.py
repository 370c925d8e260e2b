"""Apprise, through services of its own that call a real HTTP server on loopback."""

from __future__ import annotations

import json

import pytest

from schemas.notifiers import AppriseNotifier
from stages.notifiers import _delivery
from stages.notifiers.apprise import Apprise
from tests.contracts.notifier import SECRET, refusal, report, some_events
from tests.servers.http import Answer, HttpSink

pytestmark = [
    pytest.mark.anyio,
    # Its mail service looks for a module that newer Pythons have no more.
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(_delivery, "FIRST_DELAY", 0.05)


def apprise(*urls: str, timeout: str = "30s") -> Apprise:
    fields = {"type": "apprise", "urls": list(urls), "timeout": timeout}
    return Apprise(AppriseNotifier.model_validate(fields))


def url(sink: HttpSink) -> str:
    return f"json://127.0.0.1:{sink.port}/{SECRET}"


async def test_a_report_is_told_to_every_service() -> None:
    with HttpSink() as one, HttpSink() as two:
        await apprise(url(one), url(two)).send(report())
        (request,) = one.received
        assert len(two.received) == 1
    body = json.loads(request.body)
    assert body["title"].startswith("[partial] shop on web-1")
    assert "nas: 900 B stored" in body["message"]
    assert body["type"] == "warning"


async def test_events_are_lines() -> None:
    with HttpSink() as sink:
        await apprise(url(sink)).send_events(some_events())
        (request,) = sink.received
    assert "info: artifact committed" in json.loads(request.body)["message"]


async def test_a_service_that_refuses_keeps_no_other_from_its_message() -> None:
    with HttpSink(Answer(403)) as bad, HttpSink() as good:
        error = await refusal(apprise(url(bad), url(good)))
        assert len(bad.received) == 3
        assert len(good.received) == 1
    assert '"json" did not take it' in error.message


async def test_what_passes_is_tried_again() -> None:
    with HttpSink(Answer(500), Answer(200)) as sink:
        await apprise(url(sink)).send(report())
        assert len(sink.received) == 2


async def test_a_service_that_hangs_is_given_up() -> None:
    with HttpSink(Answer(manner="hang")) as sink:
        error = await refusal(apprise(url(sink), timeout="500ms"))
    assert '"json" did not answer' in error.message


@pytest.mark.parametrize("address", [f"nonsense://{SECRET}", SECRET, f"tgram://{SECRET}"])
async def test_an_address_it_does_not_know_is_an_error(address: str) -> None:
    error = await refusal(apprise(address))
    assert "not one that apprise knows" in error.message


async def test_its_log_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with HttpSink(Answer(500), Answer(200)) as sink:
        await apprise(url(sink)).send(report())
    assert SECRET not in caplog.text
