"""What all chats share: messages of limited length, and where a service can, one that is edited."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from pipeline.errors import NotifierError
from pipeline.events import Event
from pipeline.report import RunReport
from pipeline.stage import Notifier
from stages.notifiers._text import Size, brief, event_line, pieces

_FEW_LINES = 15
"""A longer summary goes into a thread, with its result alone in the channel."""


class Chat(Notifier):
    """A chat; a subclass posts and edits single messages."""

    limit: int
    """The longest text of a message, as `size` counts it."""
    threads: bool = False
    """Whether details can stand below a message."""

    def __init__(self) -> None:
        self._message: str | None = None
        self.size: Size = len

    async def send(self, report: RunReport) -> None:
        summary = report.summary()
        parts = pieces(summary, self.limit, self.size)
        if self.threads and summary.count("\n") >= _FEW_LINES:
            parts = [*pieces(brief(report), self.limit, self.size, most=1), *parts]
        first = await self._conclude(parts[0])
        for part in parts[1:]:
            await self.post(part, first if self.threads else None)

    async def _conclude(self, text: str) -> str | None:
        """Turn the message that showed how the run stood into its result; returns its id."""
        message, self._message = self._message, None
        if message is not None:
            try:
                await self.edit(message, text)
                return message
            except NotifierError:
                # It may have been deleted, or be too old to be edited: better a second message.
                return await self.post(text, None)
        return await self.post(text, None)

    async def show(self, text: str) -> None:
        (shown,) = pieces(text, self.limit, self.size, most=1)
        if self._message is None:
            self._message = await self.post(shown, None)
        else:
            await self.edit(self._message, shown)

    async def send_events(self, events: Sequence[Event]) -> None:
        text = "\n".join(map(event_line, events))
        for part in pieces(text, self.limit, self.size):
            await self.post(part, None)

    @abstractmethod
    async def post(self, text: str, below: str | None) -> str | None:
        """Send a message, below another one when its id is given.

        Returns:
            Its id, when it can be edited.
        """

    async def edit(self, message: str, text: str) -> None:
        """Replace the text of a message."""
        raise NotImplementedError(f'"{message}" cannot be edited')


def fenced(text: str, language: str = "") -> str:
    """As a block of code: as wide as it is, without markup, and without calling anyone."""
    harmless = text.replace("```", "'''")
    return f"```{language}\n{harmless}\n```"
