"""Tells Slack, by an incoming webhook or as a bot.

Formats: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks and
https://docs.slack.dev/reference/methods/chat.postMessage and chat.update.
"""

from __future__ import annotations

from typing import Any

from schemas.notifiers import SlackNotifier
from stages.notifiers._chat import Chat, fenced
from stages.notifiers._delivery import Failure
from stages.notifiers._http import Answer, Http, by_status

_HINTS = {
    "account_inactive": "the user of the token was removed",
    "channel_not_found": "set `channel` to the id of a channel that the bot can see",
    "invalid_auth": "look at `token`",
    "is_archived": "the channel is archived",
    "missing_scope": "the bot needs the scope chat:write",
    "not_authed": "look at `token`",
    "not_in_channel": "invite the bot to the channel",
    "restricted_action": "the workspace does not permit it",
    "token_expired": "set a new `token`",
    "token_revoked": "set a new `token`",
}
_MAY_PASS = (
    "fatal_error",
    "internal_error",
    "ratelimited",
    "rate_limited",
    "request_timeout",
    "service_unavailable",
)


class Slack(Chat):
    """One message a run; a bot edits it as the run goes on, and puts details into its thread."""

    # Slack cuts text at 40,000 characters, but refuses to edit one beyond 4,000.
    limit = 3900

    def __init__(self, spec: SlackNotifier) -> None:
        super().__init__(spec.text)
        self._spec = spec
        self.edits = self.threads = spec.token is not None
        self._http = Http(spec, _judge, reads=True) if self.edits else Http(spec)
        self.size = lambda text: len(_escaped(text))
        self._channel = spec.channel or ""

    async def reach(self) -> None:
        await self._http.reach((self._spec.url or self._spec.api).get_secret_value())

    async def post(self, text: str, below: str | None, markup: bool = False) -> str | None:
        body: dict[str, Any] = {"text": _shown(text, markup)}
        if self._spec.url is not None:
            await self._http.send(self._spec.url.get_secret_value(), body)
            return None
        body |= {"channel": self._spec.channel, "unfurl_links": False}
        if below is not None:
            body["thread_ts"] = below
        answer = await self._call("chat.postMessage", body)
        # It may have been named, and editing takes nothing but the id.
        self._channel = str(answer.get("channel") or self._channel)
        return str(answer["ts"])

    async def edit(self, message: str, text: str, markup: bool = False) -> None:
        body = {"channel": self._channel, "ts": message, "text": _shown(text, markup)}
        await self._call("chat.update", body)

    def harmless(self, value: str) -> str:
        return _escaped(value).replace("```", "'''")

    async def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._spec.token is not None
        headers = {
            "authorization": f"Bearer {self._spec.token.get_secret_value()}",
            "content-type": "application/json; charset=utf-8",
        }
        api = self._spec.api.get_secret_value()
        answer: dict[str, Any]
        answer = await self._http.send(api, body, tail=f"/{method}", headers=headers)
        return answer


def _judge(answer: Answer) -> Failure | None:
    """Slack answers 200 to almost everything, and means what its body says."""
    document = answer.document
    if (failure := by_status(answer)) is not None:
        return failure
    if not isinstance(document, dict) or not isinstance(document.get("ok"), bool):
        return Failure("gave an answer that is not one of Slack", "look at `api`")
    if document["ok"]:
        has_id = isinstance(document.get("ts"), str)
        return None if has_id else Failure("gave an answer without the id of the message")
    error = str(document.get("error"))
    if error in _MAY_PASS:
        return Failure(f"refused it: {error}", may_pass=True)
    return Failure(f"refused it: {error}" if error in _HINTS else "refused it", _HINTS.get(error))


def _shown(text: str, markup: bool) -> str:
    return text if markup else fenced(_escaped(text))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


COMPONENT = Slack
