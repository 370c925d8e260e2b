"""Apprise, through services of its own that call a real HTTP server on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.notifiers import AppriseNotifier
from stages.notifiers import _delivery
from stages.notifiers.apprise import Apprise, _server
from tests.contracts.notifier import SECRET, no_reach, refusal, report, some_events
from tests.servers.dead import DeadServer, Manner
from tests.servers.http import Answer, HttpSink, self_signed

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


async def test_any_answer_of_any_service_shows_that_someone_is_there() -> None:
    with HttpSink(Answer(404)) as sink, DeadServer("refuses") as dead:
        await apprise(f"json://127.0.0.1:{dead.port}/{SECRET}", url(sink)).reach()
        assert sink.received == []
        (asked,) = sink.asked
    assert SECRET not in asked.path


@pytest.mark.parametrize("manner", ["refuses", "garbles"])
async def test_nobody_there_is_noticed(manner: Manner) -> None:
    with DeadServer(manner) as dead:
        await no_reach(apprise(f"json://127.0.0.1:{dead.port}/{SECRET}"))


async def test_a_certificate_shows_that_someone_is_there(tmp_path: Path) -> None:
    with HttpSink(certificate=self_signed(tmp_path)) as sink:
        await apprise(f"jsons://127.0.0.1:{sink.port}/{SECRET}?verify=no").reach()


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("json://h:81/x", "http://h:81/"),
        ("ntfys://ntfy.example.net/backups", "https://ntfy.example.net/"),
        ("ntfy://topic", None),
        ("tgram://123456789:abcdefg_hijklmnop/12315544/", "https://api.telegram.org/"),
        ("mailto://user:pass@example.net", None),
        ("gotify://h/token12345abc", "http://h/"),
    ],
)
def test_a_server_is_asked_only_where_the_address_tells(address: str, server: str | None) -> None:
    assert _server(address) == server
