"""Tells Telegram, as a bot.

Format: https://core.telegram.org/bots/api#sendmessage and #editmessagetext.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from schemas.notifiers import TelegramNotifier
from stages.notifiers._chat import Chat
from stages.notifiers._delivery import Failure
from stages.notifiers._http import Answer, Http, by_status, seconds_of
from stages.notifiers._text import utf16_units

_HINTS = {
    "chat not found": "look at `chat`; a bot can write to those alone who have written to it",
    "bot was blocked by the user": "the user has to unblock the bot",
    "bot was kicked": "add the bot to the group again",
    "bot is not a member": "add the bot to the channel as an administrator",
    "group chat was upgraded": "the group has a new id; set `chat` to it",
    "message thread not found": "look at `thread`",
    "not enough rights": "permit the bot to send messages",
    "unauthorized": "look at `token`",
}


class Telegram(Chat):
    """One message a run that is edited as the run goes on; details are replies to it."""

    edits = threads = True
    limit = 4096

    def __init__(self, spec: TelegramNotifier) -> None:
        super().__init__(spec.text)
        self.size = utf16_units
        self._base = f"{spec.api.get_secret_value().rstrip('/')}/bot{spec.token.get_secret_value()}"
        self._chat: dict[str, Any] = {"chat_id": spec.chat}
        self._place = self._chat | ({"message_thread_id": spec.thread} if spec.thread else {})
        self._http = Http(spec, _judge, reads=True)

    async def reach(self) -> None:
        await self._http.reach(self._base)

    async def post(self, text: str, below: str | None, markup: bool = False) -> str | None:
        body = self._place | _formatted(text, markup)
        if below is not None:
            reply = {"message_id": int(below), "allow_sending_without_reply": True}
            body["reply_parameters"] = reply
        answer = await self._http.send(self._base, body, tail="/sendMessage")
        return str(answer["result"]["message_id"])

    async def edit(self, message: str, text: str, markup: bool = False) -> None:
        body = self._chat | {"message_id": int(message)} | _formatted(text, markup)
        await self._http.send(self._base, body, tail="/editMessageText")


def _formatted(text: str, markup: bool) -> dict[str, Any]:
    """Preformatted, by an entity instead of markup: nothing needs to be escaped.

    In a text without entities Telegram finds names of users by itself.
    """
    whole = {"type": "pre", "offset": 0, "length": utf16_units(text)}
    style = {} if markup else {"entities": [whole]}
    return {"text": text, **style, "link_preview_options": {"is_disabled": True}}


def _judge(answer: Answer) -> Failure | None:
    document = answer.document if isinstance(answer.document, dict) else {}
    told = str(document.get("description", "")).lower()
    if (failure := by_status(answer)) is not None:
        if "message is not modified" in told:
            return None
        parameters = document.get("parameters")
        found = parameters.get("retry_after") if isinstance(parameters, dict) else None
        wait = max(failure.retry_after, seconds_of(found))
        hint = next((hint for words, hint in _HINTS.items() if words in told), failure.hint)
        return replace(failure, retry_after=wait, hint=hint)
    result = document.get("result")
    if not isinstance(result, dict) or type(result.get("message_id")) is not int:
        return Failure("gave an answer that is not one of Telegram", "look at `api`")
    return None


COMPONENT = Telegram
