"""What all chats share: messages of limited length, and where a service can, one that is edited."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from pipeline.errors import NotifierError
from pipeline.events import Event
from pipeline.report import RunReport
from pipeline.stage import Notifier
from schemas.templates import fill
from stages.notifiers._template import of_events, of_report
from stages.notifiers._text import Size, brief, events_text, pieces

_FEW_LINES = 15
"""A longer summary goes into a thread, with its result alone in the channel."""


class Chat(Notifier):
    """A chat; a subclass posts and edits single messages."""

    limit: int
    """The longest text of a message, as `size` counts it."""
    threads: bool = False
    """Whether details can stand below a message."""

    def __init__(self, template: str | None = None) -> None:
        self._message: str | None = None
        self._template = template
        self.size: Size = len

    async def send(self, report: RunReport) -> None:
        if self._template is not None:
            await self._conclude(self._filled(self._template, of_report(report)), markup=True)
            return
        summary = report.summary()
        parts = pieces(summary, self.limit, self.size)
        if self.threads and summary.count("\n") >= _FEW_LINES:
            parts = [*pieces(brief(report), self.limit, self.size, most=1), *parts]
        await self._conclude(parts)

    async def _conclude(self, parts: Sequence[str], markup: bool = False) -> None:
        """Turn the message that showed how the run stood into its result; details follow."""
        first = await self._replace(parts[0], markup)
        for part in parts[1:]:
            await self.post(part, first if self.threads else None, markup)

    async def _replace(self, text: str, markup: bool) -> str | None:
        """The id of the message that now has this text."""
        message, self._message = self._message, None
        if message is not None:
            try:
                await self.edit(message, text, markup)
                return message
            except NotifierError:
                # It may have been deleted, or be too old to be edited: better a second message.
                return await self.post(text, None, markup)
        return await self.post(text, None, markup)

    async def show(self, text: str) -> None:
        (shown,) = pieces(text, self.limit, self.size, most=1)
        if self._message is None:
            self._message = await self.post(shown, None)
        else:
            await self.edit(self._message, shown)

    async def send_events(self, events: Sequence[Event]) -> None:
        if self._template is not None:
            parts = self._filled(self._template, of_events(events, self.about))
        else:
            parts = pieces(events_text(events, self.about), self.limit, self.size)
        for part in parts:
            await self.post(part, None, self._template is not None)

    def _filled(self, template: str, values: Mapping[str, str]) -> list[str]:
        clean = {name: self.harmless(value) for name, value in values.items()}
        return rejoined(pieces(fill(template, clean), self.limit - len(_REOPENED), self.size))

    def harmless(self, value: str) -> str:
        """A value for a template, so that it calls nobody and ends no block of code."""
        return value.replace("@", "@\N{ZERO WIDTH SPACE}").replace("```", "'''")

    @abstractmethod
    async def post(self, text: str, below: str | None, markup: bool = False) -> str | None:
        """Send a message, below another one when its id is given.

        Args:
            markup: it is in the markup of the service; otherwise it is shown as it is.

        Returns:
            Its id, when it can be edited.
        """

    async def edit(self, message: str, text: str, markup: bool = False) -> None:
        """Replace the text of a message."""
        raise NotImplementedError(f'"{message}" cannot be edited')


_REOPENED = "```\n\n```"


def rejoined(parts: Sequence[str]) -> list[str]:
    """Pieces of one text, with a block of code that was cut closed and opened again."""
    found, is_open = [], False
    for part in parts:
        whole = f"```\n{part}" if is_open else part
        is_open = whole.count("```") % 2 == 1
        found.append(f"{whole}\n```" if is_open else whole)
    return found


def fenced(text: str, language: str = "") -> str:
    """As a block of code: as wide as it is, without markup, and without calling anyone."""
    harmless = text.replace("```", "'''")
    return f"```{language}\n{harmless}\n```"
