"""Tells Mattermost, by an incoming webhook or as a bot.

Formats: https://developers.mattermost.com/integrate/webhooks/incoming/ and
https://api.mattermost.com/#tag/posts.
"""

from __future__ import annotations

from typing import Any

from schemas.notifiers import MattermostNotifier
from stages.notifiers._chat import Chat, fenced
from stages.notifiers._delivery import Failure
from stages.notifiers._http import Answer, Http, by_status


class Mattermost(Chat):
    """One message a run; a bot edits it as the run goes on, and puts details into its thread."""

    limit = 16_000  # the server takes 16,383 characters

    def __init__(self, spec: MattermostNotifier) -> None:
        super().__init__(spec.text)
        self._spec = spec
        self.edits = self.threads = spec.token is not None
        self._http = Http(spec, _judge, reads=True) if self.edits else Http(spec)

    async def reach(self) -> None:
        await self._http.reach(self._spec.url.get_secret_value())

    async def post(self, text: str, below: str | None, markup: bool = False) -> str | None:
        shown = _shown(text, markup)
        if self._spec.token is None:
            await self._http.send(self._spec.url.get_secret_value(), {"text": shown})
            return None
        body = {"channel_id": self._spec.channel, "message": shown}
        if below is not None:
            body["root_id"] = below
        answer = await self._call("POST", "", body)
        return str(answer["id"])

    async def edit(self, message: str, text: str, markup: bool = False) -> None:
        await self._call("PUT", f"/{message}/patch", {"message": _shown(text, markup)})

    async def _call(self, method: str, tail: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._spec.token is not None
        headers = {"authorization": f"Bearer {self._spec.token.get_secret_value()}"}
        address, path = self._spec.url.get_secret_value(), f"/api/v4/posts{tail}"
        answer: dict[str, Any]
        answer = await self._http.send(address, body, method=method, tail=path, headers=headers)
        return answer


def _shown(text: str, markup: bool) -> str:
    return text if markup else fenced(text, "text")


def _judge(answer: Answer) -> Failure | None:
    if (failure := by_status(answer)) is not None:
        hints = {401: "look at `token`", 403: "add the bot to the channel", 404: "look at `url`"}
        return failure if failure.hint else _with_hint(failure, hints.get(answer.status))
    # It becomes a part of a path when the message is edited.
    found = answer.document.get("id") if isinstance(answer.document, dict) else None
    if not isinstance(found, str) or not found.isalnum():
        return Failure("gave an answer that is not one of Mattermost", "look at `url`")
    return None


def _with_hint(failure: Failure, hint: str | None) -> Failure:
    return Failure(failure.what, hint, failure.may_pass, failure.retry_after)


COMPONENT = Mattermost
