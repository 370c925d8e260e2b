"""Tells Microsoft Teams, by a workflow that posts a card to a channel or chat.

Format: https://learn.microsoft.com/en-us/connectors/teams/?tabs=text1 (webhook trigger), and
https://adaptivecards.io/explorer/RichTextBlock.html.
"""

from __future__ import annotations

from typing import Any

from schemas.notifiers import TeamsNotifier
from stages.notifiers._chat import Chat
from stages.notifiers._http import Http, to_json

_BLOCK = 150
"""Bytes around each line, at most."""


class Teams(Chat):
    """A card a run; what is long comes in several."""

    limit = 26_000  # Teams takes 28 KiB a message, with everything around the text

    def __init__(self, spec: TeamsNotifier) -> None:
        super().__init__(spec.text)
        self._url = spec.url.get_secret_value()
        self._http = Http(spec)
        self.size = lambda text: len(to_json(text)) + _BLOCK

    async def reach(self) -> None:
        await self._http.reach(self._url)

    def harmless(self, value: str) -> str:
        return value  # there is no markup in a card's runs of text

    async def post(self, text: str, below: str | None, markup: bool = False) -> str | None:
        first, *rest = text.split("\n")
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "msteams": {"width": "Full"},
            "body": [_block(first, weight="Bolder"), *(_block(line) for line in rest)],
        }
        kind = "application/vnd.microsoft.card.adaptive"
        attachment = {"contentType": kind, "contentUrl": None, "content": card}
        await self._http.send(self._url, {"type": "message", "attachments": [attachment]})
        return None


def _block(line: str, **style: str) -> dict[str, Any]:
    """A line that is shown as it is: runs of text have no markup."""
    indent = len(line) - len(line.lstrip(" "))
    text = "\N{NO-BREAK SPACE}" * indent + line[indent:]
    run = {"type": "TextRun", "text": text, "fontType": "Monospace", **style}
    return {"type": "RichTextBlock", "spacing": "None", "inlines": [run]}


COMPONENT = Teams
