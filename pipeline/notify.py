"""Runs the notifiers beside the backups, so that none of them can fail, block or slow one.

`send: summary` gets the report when the run has ended, and where the service can edit messages, one
that shows how the run stands until then; `send: events` gets the events as they come, in batches.
Each notifier has a bounded backlog and a deadline of its own; what does not arrive is counted in
the report. `pipeline.contact` says how long the end of a run waits for whom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import anyio

from pipeline import registry
from pipeline.backlog import Backlog
from pipeline.contact import Contact
from pipeline.errors import NotifierError, NxsError
from pipeline.events import (
    LEVELS,
    Event,
    EventBus,
    NotificationFailed,
    NotificationTested,
    RunStarted,
)
from pipeline.report import RunReport, result_of
from pipeline.segment import run_in_thread
from pipeline.stage import Notifier
from pipeline.standing import Standing
from schemas.notifiers import NotifierSpec
from schemas.telling import EVERY_RESULT

BATCH_SECONDS = 2.0
"""Before the first message, which spares a short run all but its result."""
LONGEST_PAUSE = 60.0
"""Between two messages while there is always something to say: services limit their number."""
_GRACE = 2.0
"""The notifier has the same deadline, and more to say about it."""


class Feed:
    """One notifier, with what it has still to say."""

    def __init__(self, name: str, spec: NotifierSpec, backups: Sequence[str]) -> None:
        self.name = name
        self._spec = spec
        self._backups = frozenset(backups)
        self._threshold = LEVELS.index(spec.level)
        self._notifier: Notifier | None = None
        self._making = anyio.Lock()
        self._cannot_be_made = False
        self._contact = Contact()
        self._backlog = Backlog()
        self._standing = Standing(backups)
        self._about: RunStarted | None = None
        self._shown = ""
        self._ended = False
        self._delivering = anyio.Lock()
        self._turns: anyio.CancelScope | None = None
        self._in_turn = False
        self._failures: Counter[str] = Counter()
        self._lost = 0

    @property
    def recovering(self) -> frozenset[str]:
        """The backups whose recovery it wants to be told."""
        return self._backups if "recovered" in self._spec.on else frozenset()

    def take(self, event: Event) -> None:
        """Note an event; called from any thread, never waits for long."""
        if getattr(event, "backup", None) not in {None, *self._backups}:
            return
        if isinstance(event, RunStarted):
            mine = tuple(name for name in event.backups if name in self._backups)
            self._about = replace(event, backups=mine)
        if self._spec.send == "summary":
            self._standing.take(event)
        elif self._wants(event):
            self._backlog.add(event)

    def _wants(self, event: Event) -> bool:
        """Whether an event is to be told as such."""
        outcome = getattr(event, "outcome", None)
        return (
            LEVELS.index(event.severity) >= self._threshold
            and (self._spec.events is None or event.name in self._spec.events)
            and (outcome is None or result_of(outcome) in self._spec.on)
        )

    async def seek(self) -> None:
        """Find out whether the other side is there, until cancelled."""
        notifier = await self._made()
        if notifier is not None:
            await self._contact.seek(notifier.reach)

    async def run(self) -> None:
        """Say what there is to say, in turns that get rarer, until cancelled."""
        with anyio.CancelScope() as self._turns:
            await self._turn(self._announce)
            pause = BATCH_SECONDS
            while not self._ended:
                await anyio.sleep(pause)
                told = await self._turn(self._tell)
                pause = min(pause * 2, LONGEST_PAUSE) if told else BATCH_SECONDS
        if self._in_turn:
            self._failures["a message was given up at the end of the run"] += 1

    async def _turn(self, say: Callable[[], Awaitable[bool]]) -> bool:
        async with self._delivering:
            if self._ended:
                return False
            self._in_turn = True
            told = await say()
            self._in_turn = False
        return told

    def _end_turns(self) -> None:
        """Give up what hangs, as there is something more important to tell."""
        if self._turns is not None and self._in_turn:
            self._turns.cancel()

    async def _announce(self) -> bool:
        about = self._about
        if about is None or self._spec.send == "events" or not self._spec.start:
            return False
        if await self._can_show():
            return await self._show()
        return await self._deliver(lambda notifier: notifier.announce(about))

    async def _tell(self) -> bool:
        """Whether there was anything to say."""
        if self._spec.send == "events":
            return await self._flush()
        return await self._can_show() and await self._show()

    async def _can_show(self) -> bool:
        """A message that is edited must not appear for a run that is not to be told in the end."""
        everything = self._spec.level in ("debug", "info") and {*EVERY_RESULT} <= {*self._spec.on}
        notifier = await self._made() if everything else None
        return notifier is not None and notifier.edits

    async def _show(self) -> bool:
        text = self._standing.text()
        if text is None or text == self._shown:
            return False
        self._shown = text
        await self._deliver(lambda notifier: notifier.show(text))
        return True

    async def _flush(self) -> bool:
        batch, total = self._backlog.drain()
        if not batch:
            return False
        self._lost += total  # unless it arrives
        if await self._deliver(lambda notifier: notifier.send_events(batch)):
            self._lost -= total
        return True

    async def finish(self, report: RunReport) -> list[str]:
        """Send what is left, or the summary; returns what went wrong, one line each."""
        self._ended = True
        async with anyio.create_task_group() as group:
            timeout = self._spec.timeout + _GRACE
            group.start_soon(self._contact.limit, group.cancel_scope, timeout, self._end_turns)
            async with self._delivering:
                await self._flush()
                await self._conclude(report)
            group.cancel_scope.cancel()
        if self._contact.given_up:
            self._failures[self._late if self._contact.answered else _NEVER_ANSWERED] += 1
        if self._lost:
            self._failures[f"{self._lost} events not told"] += 1
        lines = (f"{what} ({n} times)" if n > 1 else what for what, n in self._failures.items())
        return [f"{self.name}: {line}" for line in lines]

    async def _conclude(self, report: RunReport) -> None:
        mine = [backup for backup in report.backups if backup.name in self._backups]
        told = replace(report, backups=mine, notifications=[])
        wanted = LEVELS.index(told.level) >= self._threshold
        if self._spec.send == "summary" and wanted and {*told.results} & {*self._spec.on}:
            await self._deliver(lambda notifier: notifier.send(told))

    @property
    def _late(self) -> str:
        return f"not delivered within {self._spec.timeout:g} s"

    async def _made(self) -> Notifier | None:
        """The notifier; None when it cannot be made, which is noted."""
        async with self._making:
            if self._notifier is None and not self._cannot_be_made:
                try:
                    # In a thread: some bring large libraries along.
                    make = partial(registry.make_notifier, self._spec)
                    self._notifier = await run_in_thread("notifier", make, grace=0)
                except Exception as failure:
                    self._cannot_be_made = True
                    self._failures[_words(failure)] += 1
        return self._notifier

    async def _deliver(self, send: Callable[[Notifier], Awaitable[None]]) -> bool:
        """Try once, within the deadline; whatever goes wrong stays here."""
        error = self._late
        with anyio.move_on_after(self._spec.timeout + _GRACE):
            notifier = await self._made()
            if notifier is None:
                return False
            notifier.about = self._about
            try:
                await send(notifier)
            except Exception as failure:
                error = _words(failure)
            else:
                self._contact.heard()
                return True
        self._failures[error] += 1
        return False


_NEVER_ANSWERED = (
    "no answer while the run went on, so it was not waited for at its end: what was left to tell "
    "may not have arrived"
)


def _words(failure: Exception) -> str:
    """Only our own errors say nothing that may be secret."""
    return (
        str(failure) if isinstance(failure, NxsError) else f"failed with {type(failure).__name__}"
    )


def make_feeds(specs: dict[str, Any], wanted: Iterable[tuple[str, Sequence[str]]]) -> list[Feed]:
    """A feed for each notifier that is to tell of at least one backup.

    Args:
        specs: the notifiers of the configuration.
        wanted: for each backup of the run its name and the notifiers it wants.
    """
    backups: dict[str, list[str]] = {}
    for backup, notifiers in wanted:
        for name in notifiers:
            if any(fnmatchcase(backup, pattern) for pattern in specs[name].backups):
                backups.setdefault(name, []).append(backup)
    return [Feed(name, specs[name], names) for name, names in backups.items()]


def recovering(feeds: Iterable[Feed]) -> frozenset[str]:
    """The backups whose recovery someone wants to be told."""
    return frozenset(name for feed in feeds for name in feed.recovering)


@asynccontextmanager
async def notifying(feeds: Sequence[Feed], bus: EventBus) -> AsyncIterator[None]:
    """Let the feeds tell what happens while the block runs; `tell` belongs at its end."""
    async with anyio.create_task_group() as group:
        for feed in feeds:
            bus.subscribe(feed.take)
            group.start_soon(feed.run)
            group.start_soon(feed.seek)
        yield
        group.cancel_scope.cancel()


async def tell(feeds: Sequence[Feed], report: RunReport, bus: EventBus) -> None:
    """Send the end of the run to all feeds at once; failures go into the report."""
    async with anyio.create_task_group() as group:
        for feed in feeds:
            group.start_soon(partial(_finish, feed, report, bus))


async def _finish(feed: Feed, report: RunReport, bus: EventBus) -> None:
    for error in await feed.finish(report):
        report.notifications.append(error)
        bus.emit(NotificationFailed(feed.name, error.removeprefix(f"{feed.name}: ")))


async def send_test(spec: NotifierSpec, project: str, host: str) -> None:
    """Send a test message through a notifier.

    Raises:
        NxsError: it was not delivered.
    """
    with anyio.move_on_after(spec.timeout + _GRACE):
        notifier = registry.make_notifier(spec)
        await notifier.send_events([NotificationTested(project, host)])
        return
    raise NotifierError(f"not delivered within {spec.timeout:g} s")
