"""The services that notifiers call, on loopback: they check what the real ones check.

Each refuses in the way of its original what is not of its format, too long, or about a message that
it does not have. The sources of the rules are named in `stages/notifiers/`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.http import Answer, HttpSink, Received

_CARD = "application/vnd.microsoft.card.adaptive"


class Wrong(Exception):
    """A request that the service would refuse."""


def _require(fact: object, why: str) -> None:
    if not fact:
        raise Wrong(why)


def units(text: str) -> int:
    """Length in UTF-16, as Telegram and Discord count."""
    return len(text.encode("utf-16-le")) // 2


class ChatServices(HttpSink):
    """All of them, by the first part of the path (see `tests.everyone`).

    Args:
        busy: each service first asks once to be called again in a second.
    """

    def __init__(self, busy: bool = False) -> None:
        super().__init__()
        self.complaints: list[str] = []
        """What was refused, and why."""
        self.messages: dict[tuple[str, str], str] = {}
        """What can be read in each chat now, by service and id, in the order of its posts."""
        self.replies: dict[str, str] = {}
        """The message that a reply is below."""
        self.edits: Counter[str] = Counter()
        self._busy = {service: busy for service in _SERVICES}

    def __enter__(self) -> ChatServices:
        super().__enter__()
        return self

    def of(self, service: str) -> list[str]:
        """The texts that can be read at a service, oldest first."""
        return [text for (name, _), text in self.messages.items() if name == service]

    def requests(self, service: str) -> list[Received]:
        """What a service was sent, refusals included."""
        return [one for one in self.received if one.path.split("/")[1] == service]

    def take(self, request: Received) -> Answer:
        super().take(request)
        service = request.path.split("/")[1]
        with self._arrival:
            if self._busy.get(service):
                self._busy[service] = False
                return _asking_for_patience(service)
            try:
                return _SERVICES[service](self, request)
            except (Wrong, KeyError, ValueError, TypeError) as wrong:
                self.complaints.append(f"{service}: {wrong!r}")
                return Answer(400, body=b"refused")

    def post(self, service: str, text: str, below: str | None = None) -> str:
        """Keep a new message; returns its id, which consists of digits."""
        number = str(len(self.messages) + 100)
        if below is not None:
            _require((service, below) in self.messages, "a reply to a message that is not there")
            _require(below not in self.replies, "a reply to a reply")
            self.replies[number] = below
        self.messages[service, number] = text
        return number

    def change(self, service: str, number: str, text: str) -> None:
        _require((service, number) in self.messages, "no such message")
        self.messages[service, number] = text
        self.edits[service] += 1


def _asking_for_patience(service: str) -> Answer:
    body = {"telegram": {"parameters": {"retry_after": 1}}, "discord": {"retry_after": 0.8}}
    return Answer(429, {"retry-after": "1"}, json.dumps(body.get(service, {})).encode())


def _json(request: Received) -> dict[str, Any]:
    _require(request.headers["content-type"].startswith("application/json"), "not JSON")
    document = json.loads(request.body)
    _require(isinstance(document, dict), "not an object")
    found: dict[str, Any] = document
    return found


def _answer(document: Any, status: int = 200) -> Answer:
    return Answer(status, body=json.dumps(document).encode())


def _text(value: Any, limit: int, size: Callable[[str], int] = len) -> str:
    _require(isinstance(value, str) and value.strip(), "no text")
    _require(size(value) <= limit, f"longer than {limit}")
    return str(value)


def _slack(services: ChatServices, request: Received) -> Answer:
    services.post("slack", _text(_json(request)["text"], 40_000))
    return Answer(body=b"ok")


def _slack_bot(services: ChatServices, request: Received) -> Answer:
    _require(request.headers["authorization"].startswith("Bearer "), "not_authed")
    body, method = _json(request), request.path.rpartition("/")[2]
    _require(re.fullmatch("C[A-Z0-9]+", body["channel"]), "channel_not_found")
    if method == "chat.update":
        number = body["ts"].removeprefix("1764.")
        services.change("slack-api", number, _text(body["text"], 4_000))
    else:
        _require(method == "chat.postMessage", "unknown_method")
        below = body.get("thread_ts")
        text = _text(body["text"], 40_000)
        number = services.post("slack-api", text, below and below.removeprefix("1764."))
    return _answer({"ok": True, "channel": body["channel"], "ts": f"1764.{number}"})


def _mattermost(services: ChatServices, request: Received) -> Answer:
    services.post("hooks", _text(_json(request)["text"], 16_383))
    return Answer(body=b"ok")


def _mattermost_bot(services: ChatServices, request: Received) -> Answer:
    _require(request.headers["authorization"].startswith("Bearer "), "no session")
    body = _json(request)
    text = _text(body["message"], 16_383)
    if request.method == "PUT":
        found = re.fullmatch(r"/mattermost/api/v4/posts/p(\d+)/patch", request.path)
        _require(found, "no such path")
        number = str(found and found[1])
        services.change("mattermost", number, text)
    else:
        _require(request.path == "/mattermost/api/v4/posts", "no such path")
        _require(body["channel_id"], "no channel")
        below = body.get("root_id")
        number = services.post("mattermost", text, below and below.removeprefix("p"))
    return _answer({"id": f"p{number}"}, 201)


def _teams(services: ChatServices, request: Received) -> Answer:
    _require(len(request.body) <= 28 << 10, "larger than 28 KiB")
    body = _json(request)
    (attachment,) = body["attachments"]
    _require((body["type"], attachment["contentType"]) == ("message", _CARD), "no card")
    card = attachment["content"]
    _require((card["type"], card["version"]) == ("AdaptiveCard", "1.4"), "no card")
    lines = []
    for block in card["body"]:
        _require(block["type"] == "RichTextBlock" and block["inlines"], "an empty block")
        for run in block["inlines"]:
            _require(run["type"] == "TextRun", "not a run of text")
            lines.append(str(run["text"]))
    services.post("teams", _text("\n".join(lines), 28 << 10))
    return Answer(202)


def _telegram(services: ChatServices, request: Received) -> Answer:
    found = re.fullmatch(r"/telegram/bot\d+:[^/]+/(sendMessage|editMessageText)", request.path)
    _require(found, "no such method")
    body = _json(request)
    _require(re.fullmatch(r"-?\d+|@\w+", body["chat_id"]), "chat not found")
    text = _text(body["text"], 4096, units)
    for entity in body.get("entities", []):
        _require(entity["offset"] + entity["length"] <= units(text), "an entity beyond the text")
    if found and found[1] == "editMessageText":
        number = str(body["message_id"])
        if services.messages.get(("telegram", number)) == text:
            words = "Bad Request: message is not modified"
            return _answer({"ok": False, "error_code": 400, "description": words}, 400)
        services.change("telegram", number, text)
    else:
        below = body.get("reply_parameters", {}).get("message_id")
        number = services.post("telegram", text, below and str(below))
    return _answer({"ok": True, "result": {"message_id": int(number)}})


def _discord(services: ChatServices, request: Received) -> Answer:
    body, parts = _json(request), urlsplit(request.path)
    text = _text(body["content"], 2000, units)
    known = {"everyone", "roles", "users"}
    _require(set(body["allowed_mentions"]["parse"]) <= known, "an unknown mention")
    if request.method == "PATCH":
        number = parts.path.rpartition("/messages/")[2]
        services.change("discord", number, text)
    else:
        _require(parse_qs(parts.query)["wait"] == ["true"], "it would not say which message it is")
        number = services.post("discord", text)
    return _answer({"id": number})


def _healthchecks(services: ChatServices, request: Received) -> Answer:
    parts = urlsplit(request.path)
    tail = re.fullmatch(r"/ping/[^/]+(/start|/fail|/log|)", parts.path)
    _require(tail, "not found")
    _require(len(request.body) <= 100_000, "cut off")
    if "rid" in parse_qs(parts.query):
        uuid.UUID(parse_qs(parts.query)["rid"][0])
    services.post("ping", f"{tail and tail[1]}\n{request.body.decode()}")
    return Answer(body=b"OK")


def _json_hook(services: ChatServices, request: Received) -> Answer:
    body = _json(request)
    service = request.path.split("/")[1]
    services.post(service, str(body.get("text") or f"{body.get('title')}\n{body.get('message')}"))
    return Answer()


_SERVICES: dict[str, Callable[[ChatServices, Received], Answer]] = {
    "webhook": _json_hook,
    "slack": _slack,
    "slack-api": _slack_bot,
    "hooks": _mattermost,
    "mattermost": _mattermost_bot,
    "teams": _teams,
    "telegram": _telegram,
    "discord": _discord,
    "ping": _healthchecks,
    "apprise": _json_hook,
}
SERVICES = tuple(_SERVICES)
