"""Tells Discord, by the webhook of a channel.

Format: https://docs.discord.com/developers/resources/webhook.
"""

from __future__ import annotations

from dataclasses import replace

from schemas.notifiers import DiscordNotifier
from stages.notifiers._chat import Chat, fenced
from stages.notifiers._delivery import Failure
from stages.notifiers._http import Answer, Http, by_status, seconds_of
from stages.notifiers._text import utf16_units


class Discord(Chat):
    """One message a run that is edited as the run goes on; what is long comes in several."""

    edits = True
    limit = 1980  # of 2,000 characters, less the fence around them

    def __init__(self, spec: DiscordNotifier) -> None:
        super().__init__(spec.text)
        self.size = utf16_units
        self._url = spec.url.get_secret_value()
        self._query = {} if spec.thread is None else {"thread_id": spec.thread}
        self._http = Http(spec, _judge, reads=True)

    async def reach(self) -> None:
        await self._http.reach(self._url)

    async def post(self, text: str, below: str | None, markup: bool = False) -> str | None:
        # Without `wait` the answer says nothing, not even whether there is a message.
        query = {"wait": "true", **self._query}
        answer = await self._http.send(self._url, _body(text, markup), query=query)
        return str(answer["id"])

    async def edit(self, message: str, text: str, markup: bool = False) -> None:
        tail = f"/messages/{message}"
        body = _body(text, markup)
        await self._http.send(self._url, body, method="PATCH", tail=tail, query=self._query)


def _body(text: str, markup: bool) -> dict[str, object]:
    """Only a template may call people: in its values nobody is named."""
    called = ["everyone", "roles", "users"] if markup else []
    return {"content": text if markup else fenced(text), "allowed_mentions": {"parse": called}}


def _judge(answer: Answer) -> Failure | None:
    document = answer.document if isinstance(answer.document, dict) else {}
    if (failure := by_status(answer)) is not None:
        # The header has whole seconds only.
        wait = max(failure.retry_after, seconds_of(document.get("retry_after")))
        return replace(failure, retry_after=wait)
    # It becomes a part of a path when the message is edited.
    found = document.get("id")
    if not isinstance(found, str) or not found.isdecimal():
        return Failure("gave an answer that is not one of Discord", "look at `url`")
    return None


COMPONENT = Discord
