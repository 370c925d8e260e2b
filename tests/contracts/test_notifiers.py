"""Every notifier through its contract, and what is particular to each."""

from __future__ import annotations

import json
import threading
import uuid
from datetime import datetime, timezone
from typing import Any

import anyio
import pytest

from pipeline.stage import Notifier
from schemas.notifiers import (
    DiscordNotifier,
    HealthchecksNotifier,
    MattermostNotifier,
    SlackNotifier,
    TeamsNotifier,
    TelegramNotifier,
    WebhookNotifier,
)
from stages.notifiers._http import retry_after
from stages.notifiers.discord import Discord
from stages.notifiers.healthchecks import Healthchecks
from stages.notifiers.mattermost import Mattermost
from stages.notifiers.slack import Slack
from stages.notifiers.teams import Teams
from stages.notifiers.telegram import Telegram
from stages.notifiers.webhook import COMPONENT, Webhook
from tests.contracts.notifier import (
    PATH,
    SECRET,
    Build,
    NotifierContract,
    PatienceContract,
    refusal,
    report,
    some_events,
)
from tests.servers.http import Answer, HttpSink


def webhook(url: str, **more: Any) -> Notifier:
    return Webhook(WebhookNotifier.model_validate({"type": "webhook", "url": url, **more}))


def slack(url: str, **more: Any) -> Slack:
    return Slack(SlackNotifier.model_validate({"type": "slack", "url": url, **more}))


def slack_bot(url: str, **more: Any) -> Slack:
    fields = {"type": "slack", "api": url, "token": SECRET, "channel": "C1", **more}
    return Slack(SlackNotifier.model_validate(fields))


def mattermost(url: str, **more: Any) -> Mattermost:
    return Mattermost(MattermostNotifier.model_validate({"type": "mattermost", "url": url, **more}))


def mattermost_bot(url: str, **more: Any) -> Mattermost:
    return mattermost(url, token=SECRET, channel="c1", **more)


def teams(url: str, **more: Any) -> Teams:
    return Teams(TeamsNotifier.model_validate({"type": "teams", "url": url, **more}))


def telegram(url: str, **more: Any) -> Telegram:
    fields = {"type": "telegram", "api": url, "token": f"12:{SECRET}", "chat": "-1001", **more}
    return Telegram(TelegramNotifier.model_validate(fields))


def discord(url: str, **more: Any) -> Discord:
    return Discord(DiscordNotifier.model_validate({"type": "discord", "url": url, **more}))


def healthchecks(url: str, **more: Any) -> Healthchecks:
    fields = {"type": "healthchecks", "url": url, **more}
    return Healthchecks(HealthchecksNotifier.model_validate(fields))


RID = str(uuid.uuid5(uuid.NAMESPACE_OID, "r1"))
HOOK, QUERY = PATH.split("?")
BUILDS = [
    pytest.param(Build(webhook), id="webhook"),
    pytest.param(Build(slack, body=b"ok"), id="slack"),
    pytest.param(
        Build(slack_bot, "/api", "/api/chat.postMessage", b'{"ok": true, "ts": "1.2"}', True),
        id="slack-bot",
    ),
    pytest.param(Build(mattermost, body=b"ok"), id="mattermost"),
    pytest.param(
        Build(mattermost_bot, "", "/api/v4/posts", b'{"id": "p1"}', True), id="mattermost-bot"
    ),
    pytest.param(Build(teams), id="teams"),
    pytest.param(
        Build(
            telegram,
            "",
            f"/bot12:{SECRET}/sendMessage",
            b'{"ok": true, "result": {"message_id": 7}}',
            True,
        ),
        id="telegram",
    ),
    pytest.param(
        Build(discord, path=f"{PATH}&wait=true", body=b'{"id": "77"}', reads=True), id="discord"
    ),
    pytest.param(
        Build(healthchecks, path=f"{HOOK}/fail?{QUERY}&rid={RID}", body=b"OK"), id="healthchecks"
    ),
]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the surroundings must not come between the tests and loopback."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("build", BUILDS)
class TestNotifiers(NotifierContract):
    pass


@pytest.mark.parametrize("build", [one for one in BUILDS if one.id in ("webhook", "telegram")])
class TestPatience(PatienceContract):
    pass


def test_the_registry_finds_it() -> None:
    assert COMPONENT is Webhook


@pytest.mark.anyio
class TestWebhook:
    async def test_the_body_is_the_summary_and_the_report(self) -> None:
        with HttpSink() as sink:
            await webhook(sink.url(PATH)).send(report())
            (request,) = sink.received
        body = json.loads(request.body)
        assert body.keys() == {"text", "report"}
        assert body["text"] == report().summary().replace("\udcff", "?")
        assert body["report"]["backups"][0]["artifacts"][0]["skipped"] == ["a?: gone"]
        assert body["report"]["outcome"] == "partial"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"] == "nxs-backup"

    async def test_events_are_lines_for_people_and_objects_for_programs(self) -> None:
        with HttpSink() as sink:
            await webhook(sink.url(PATH)).send_events(some_events())
            (request,) = sink.received
        body = json.loads(request.body)
        title, first, *_ = body["text"].splitlines()
        assert title == "[warning] 3 events"
        assert first == (
            "info: artifact committed backup=etc artifact=etc storage=nas "
            "object=etc/etc/etc_x.tar size=900"
        )
        committed, progressed, skipped = body["events"]
        assert committed["event"] == "artifact committed"
        assert progressed["stages"][0] == {
            "stage": "zstd",
            "bytes": 7,
            "fill": 0.5,
            "kind": "transform",
        }
        assert (skipped["level"], skipped["items"]) == ("warning", ["a?: gone"])

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    async def test_the_method_is_as_told(self, method: str) -> None:
        with HttpSink() as sink:
            await webhook(sink.url(PATH), method=method).send(report())
            assert [request.method for request in sink.received] == [method]

    async def test_headers_are_added_and_win(self) -> None:
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "text/json"}
        with HttpSink() as sink:
            await webhook(sink.url(PATH), headers=headers).send(report())
            (request,) = sink.received
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert request.headers["content-type"] == "text/json"

    @pytest.mark.parametrize("value", [f"a\n{SECRET}", f"{SECRET}\udcff"], ids=ascii)
    async def test_a_header_that_cannot_be_sent_is_an_error(self, value: str) -> None:
        with HttpSink() as sink:
            error = await refusal(webhook(sink.url(PATH), headers={"X-Key": value}))
            assert sink.received == []
        assert "header" in error.message

    async def test_user_and_password_of_the_url_are_used_and_not_told(self) -> None:
        with HttpSink(Answer(401)) as sink:
            url = sink.url(PATH).replace("//", f"//user:{SECRET}@")
            error = await refusal(webhook(url))
            assert sink.received[0].headers["authorization"].startswith("Basic ")
        assert error.message == '"127.0.0.1" answered 401'

    async def test_a_redirect_comes_with_a_hint(self) -> None:
        with HttpSink(Answer(301, headers={"location": "/elsewhere"})) as sink:
            error = await refusal(webhook(sink.url(PATH)))
        assert error.hint == "redirects are not followed; set the url it leads to"


@pytest.mark.anyio
async def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.delenv("no_proxy")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answer.wait(60))
    try:
        with anyio.move_on_after(0.2) as scope:
            await webhook("http://ops.example.net/").reach()
        assert scope.cancelled_caught
    finally:
        answer.set()


@pytest.mark.anyio
async def test_a_name_that_does_not_exist_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    error = await refusal(webhook("http://nobody.invalid/", timeout="200ms"))
    assert error.message.startswith('"nobody.invalid" cannot be reached')


NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param(None, 0, id="absent"),
        pytest.param("0", 0, id="at-once"),
        pytest.param("120", 120, id="seconds"),
        pytest.param("Mon, 23 Nov 2026 12:00:30 GMT", 30, id="date"),
        pytest.param("Mon, 23 Nov 2026 12:00:30 -0000", 30, id="date-without-zone"),
        pytest.param("Mon, 23 Nov 2026 11:00:00 GMT", 0, id="date-in-the-past"),
        pytest.param("-5", 0, id="negative"),
        pytest.param("1.5", 0, id="fraction"),
        pytest.param("soon", 0, id="words"),
        pytest.param("", 0, id="empty"),
        pytest.param("9" * 5000, 0, id="absurd"),
        pytest.param("\u0663", 0, id="digits-that-are-not-ascii"),
        pytest.param("Mon, 99 Nov 2026 99:99:99 GMT", 0, id="no-such-date"),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds
