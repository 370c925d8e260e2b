"""What chats check: the shape of a message, its limit, how it is edited, what asks for patience."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.events import RunStarted, SourceWarned
from pipeline.report import ArtifactReport, Outcome, RunReport
from stages.notifiers import _delivery
from stages.notifiers._text import pieces, utf8_bytes, utf16_units
from tests.contracts.notifier import PATH, SECRET, refusal, report
from tests.contracts.test_notifiers import (
    discord,
    healthchecks,
    mattermost_bot,
    slack,
    slack_bot,
    teams,
    telegram,
    webhook,
)
from tests.servers.http import Answer, HttpSink, Received

POSTED: dict[str, bytes] = {
    "slack": b'{"ok": true, "ts": "1.2", "channel": "C9"}',
    "mattermost": b'{"id": "p1"}',
    "telegram": b'{"ok": true, "result": {"message_id": 7}}',
    "discord": b'{"id": "77"}',
}
BOTS = {
    "slack": slack_bot,
    "mattermost": mattermost_bot,
    "telegram": telegram,
    "discord": discord,
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(_delivery, "FIRST_DELAY", 0.05)


def body_of(request: Received) -> Any:
    return json.loads(request.body)


def calls(requests: Sequence[Received]) -> list[tuple[str, str]]:
    return [(request.method, request.path.replace(SECRET, "S")) for request in requests]


def text_of(name: str, request: Received) -> str:
    body = body_of(request)
    found: str = body[
        "message" if name == "mattermost" else "content" if name == "discord" else "text"
    ]
    return found


def long_report(artifacts: int = 300) -> RunReport:
    run = report()
    run.backups[0].artifacts += [
        ArtifactReport(f"base <{number}> & \N{ELEPHANT} ```", Outcome.OK)
        for number in range(artifacts)
    ]
    return run


EDITED = {
    "slack": [("POST", "/chat.postMessage"), ("POST", "/chat.update"), ("POST", "/chat.update")],
    "mattermost": [
        ("POST", "/api/v4/posts"),
        ("PUT", "/api/v4/posts/p1/patch"),
        ("PUT", "/api/v4/posts/p1/patch"),
    ],
    "telegram": [
        ("POST", "/bot12:S/sendMessage"),
        ("POST", "/bot12:S/editMessageText"),
        ("POST", "/bot12:S/editMessageText"),
    ],
    "discord": [("POST", "/?wait=true"), ("PATCH", "/messages/77"), ("PATCH", "/messages/77")],
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BOTS)
class TestEditing:
    async def test_one_message_shows_how_a_run_stands_and_becomes_its_result(
        self, name: str
    ) -> None:
        with HttpSink(Answer(body=POSTED[name])) as sink:
            chat = BOTS[name](sink.url("/" if name == "discord" else ""))
            assert chat.edits
            await chat.show("one")
            await chat.show("two")
            await chat.send(report())
            assert calls(sink.received) == EDITED[name]
            assert "one" in text_of(name, sink.received[0])
            assert "partial" in text_of(name, sink.received[2])
            if name == "slack":  # by the id that it got, whatever the channel is called
                assert [body_of(one)["channel"] for one in sink.received] == ["C1", "C9", "C9"]
                assert body_of(sink.received[1])["ts"] == "1.2"
            if name == "telegram":
                assert body_of(sink.received[1])["message_id"] == 7

    async def test_a_message_that_is_gone_is_replaced(self, name: str) -> None:
        posted = Answer(body=POSTED[name])
        with HttpSink(posted, Answer(404), posted) as sink:
            chat = BOTS[name](sink.url())
            await chat.show("one")
            await chat.send(report())
            assert calls(sink.received)[2] == calls(sink.received)[0]

    async def test_details_of_a_long_run_are_below_its_result(self, name: str) -> None:
        with HttpSink(Answer(body=POSTED[name])) as sink:
            await BOTS[name](sink.url()).send(long_report())
            first, *rest = sink.received
        assert rest
        if name == "slack":
            assert {body_of(one)["thread_ts"] for one in rest} == {"1.2"}
        if name == "mattermost":
            assert {body_of(one)["root_id"] for one in rest} == {"p1"}
        if name == "telegram":
            assert {body_of(one)["reply_parameters"]["message_id"] for one in rest} == {7}
        assert "etc" in text_of(name, first)

    async def test_no_message_is_longer_than_the_service_takes(self, name: str) -> None:
        with HttpSink(Answer(body=POSTED[name])) as sink:
            await BOTS[name](sink.url()).send(long_report(2000))
            texts = [text_of(name, request) for request in sink.received]
        limits = {"slack": 4000, "mattermost": 16_383, "telegram": 4096, "discord": 2000}
        assert max(map(utf16_units, texts)) <= limits[name]
        assert len(texts) <= 6
        assert "more lines" in texts[-1]


@pytest.mark.anyio
class TestServices:
    async def test_slack_gets_text_that_calls_nobody(self) -> None:
        with HttpSink() as sink:
            await slack(sink.url(PATH)).send_events([SourceWarned("db", "x", "<!channel> & ```")])
            (request,) = sink.received
        text = body_of(request)["text"]
        assert "&lt;!channel&gt; &amp; '''" in text
        assert text.startswith("```")
        assert text.endswith("```")
        assert text.count("```") == 2

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b'{"ok": false, "error": "not_in_channel"}', "not_in_channel; invite the bot"),
            (json.dumps({"ok": False, "error": SECRET}).encode(), '"127.0.0.1" refused it'),
        ],
    )
    async def test_slack_says_no_with_status_200(self, body: bytes, words: str) -> None:
        with HttpSink(Answer(body=body)) as sink:
            assert words in str(await refusal(slack_bot(sink.url())))
            assert len(sink.received) == 1

    async def test_slack_is_asked_again_when_it_has_trouble(self) -> None:
        trouble = Answer(body=b'{"ok": false, "error": "internal_error"}')
        with HttpSink(trouble, Answer(body=POSTED["slack"])) as sink:
            await slack_bot(sink.url()).send(report())
            assert len(sink.received) == 2
            assert sink.received[0].headers["authorization"] == f"Bearer {SECRET}"

    @pytest.mark.parametrize("name", ["telegram", "discord"])
    async def test_patience_that_only_the_body_asks_for_is_had(self, name: str) -> None:
        asked = {"telegram": {"parameters": {"retry_after": 60}}, "discord": {"retry_after": 60.5}}
        with HttpSink(Answer(429, body=json.dumps(asked[name]).encode())) as sink:
            error = await refusal(BOTS[name](sink.url(), timeout="5s"))
            assert len(sink.received) == 1
        assert "429" in error.message

    async def test_telegram_gets_preformatted_text_in_its_own_units(self) -> None:
        with HttpSink(Answer(body=POSTED["telegram"])) as sink:
            await telegram(sink.url(), thread=3).send(long_report(2))
            body = body_of(sink.received[0])
        assert body["chat_id"] == "-1001"
        assert body["message_thread_id"] == 3
        (entity,) = body["entities"]
        assert entity == {"type": "pre", "offset": 0, "length": utf16_units(body["text"])}

    async def test_telegram_that_has_nothing_to_change_is_content(self) -> None:
        same = b'{"ok": false, "description": "Bad Request: message is not modified: exactly"}'
        with HttpSink(Answer(body=POSTED["telegram"]), Answer(400, body=same)) as sink:
            chat = telegram(sink.url())
            await chat.show("one")
            await chat.show("one")
            assert len(sink.received) == 2

    async def test_telegram_hints_at_what_to_do(self) -> None:
        with HttpSink(Answer(400, body=b'{"description": "Bad Request: chat not found"}')) as sink:
            assert "look at `chat`" in str(await refusal(telegram(sink.url())))

    async def test_discord_mentions_nobody(self) -> None:
        with HttpSink(Answer(body=POSTED["discord"])) as sink:
            await discord(sink.url(PATH), thread="9").send_events([SourceWarned("a", "b", "@all")])
            (request,) = sink.received
        assert request.path == f"{PATH}&wait=true&thread_id=9"
        assert body_of(request)["allowed_mentions"] == {"parse": []}

    async def test_teams_gets_cards_within_its_limit(self) -> None:
        with HttpSink(Answer(202)) as sink:
            await teams(sink.url(PATH)).send(long_report(2000))
            requests = list(sink.received)
        assert 1 < len(requests) <= 5
        for request in requests:
            assert len(request.body) <= 28 << 10
            body = body_of(request)
            assert body["type"] == "message"
            (card,) = [one["content"] for one in body["attachments"]]
            assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
            runs = [block["inlines"] for block in card["body"]]
            assert all(one["type"] == "TextRun" and one["text"] for (one,) in runs)

    @pytest.mark.parametrize(
        ("outcome", "partial", "tail"),
        [
            (Outcome.OK, "failure", ""),
            (Outcome.PARTIAL, "success", ""),
            (Outcome.PARTIAL, "failure", "/fail"),
            (Outcome.LOCKED, "failure", "/log"),
            (Outcome.FAILED, "success", "/fail"),
            (Outcome.INTERRUPTED, "success", "/fail"),
        ],
    )
    async def test_healthchecks_is_pinged_as_the_run_went(
        self, outcome: Outcome, partial: str, tail: str
    ) -> None:
        run = report()
        run.backups[0].outcome = outcome
        with HttpSink() as sink:
            pinged = healthchecks(sink.url("/id"), partial=partial)
            await pinged.announce(RunStarted("r1", "shop", "web", ("etc",)))
            await pinged.send(run)
            start, end = sink.received
        assert start.path.partition("?")[0] == "/id/start"
        assert end.path.partition("?")[0] == f"/id{tail}"
        assert start.path.partition("?")[2] == end.path.partition("?")[2]  # the same run
        assert b"etc" in end.body

    async def test_a_webhook_gets_the_payload_that_was_asked_for(self) -> None:
        payload = {
            "message": "{{{outcome}}} {project} on {host}, {level}",
            "report": "{report}",
            "fixed": [1, True, None],
            "api_key": SECRET,
        }
        with HttpSink() as sink:
            await webhook(sink.url(PATH), payload=payload, method="PATCH").send(report())
            (request,) = sink.received
        body = body_of(request)
        assert body["message"] == "{partial} shop on web-1, warning"
        assert body["report"]["run"] == "r1"
        assert (body["fixed"], body["api_key"]) == ([1, True, None], SECRET)
        assert request.method == "PATCH"

    async def test_a_webhook_by_get_has_no_body(self) -> None:
        with HttpSink() as sink:
            await webhook(sink.url(PATH), method="GET").send(report())
            (request,) = sink.received
        assert (request.method, request.body) == ("GET", b"")
        assert "content-type" not in request.headers


@pytest.mark.parametrize("size", [len, utf16_units, utf8_bytes])
@pytest.mark.parametrize(
    "text", ["", "a\n" * 500, "\N{ELEPHANT}" * 999, "x" * 90 + "\n" + "y" * 900]
)
def test_pieces_fit_and_lose_nothing(text: str, size: Any) -> None:
    found = pieces(text, 100, size, most=10_000)
    assert max(map(size, found)) <= 100
    assert "".join(found).replace("\n", "") == text.replace("\n", "")


def test_what_is_left_out_is_counted() -> None:
    found = pieces("line\n" * 100, 100, most=2)
    assert len(found) == 2
    told = sum(piece.count("line") for piece in found) - 1
    assert f"... {101 - told} more lines" in found[-1]
