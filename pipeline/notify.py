"""Runs the notifiers beside the backups, so that none of them can fail, block or slow one.

`send: summary` gets the report when the run has ended, and where the service can edit messages, one
that shows how the run stands until then; `send: events` gets the events as they come, in batches.
Each notifier has a bounded backlog and a deadline of its own; what does not arrive is counted in
the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from pipeline import registry
from pipeline.backlog import Backlog
from pipeline.errors import NotifierError, NxsError
from pipeline.events import LEVELS, Event, EventBus, NotificationFailed, NotificationTested
from pipeline.report import Outcome, RunReport
from pipeline.segment import run_in_thread
from pipeline.stage import Notifier
from pipeline.standing import Standing
from schemas.notifiers import NotifierSpec

BATCH_SECONDS = 2.0
"""Before the first message, which spares a short run all but its result."""
LONGEST_PAUSE = 60.0
"""Between two messages while there is always something to say: services limit their number."""
_GRACE = 2.0
"""The notifier has the same deadline, and more to say about it."""

_RESULTS = {Outcome.OK: "success", Outcome.PARTIAL: "partial", Outcome.LOCKED: "locked"}


class Feed:
    """One notifier, with what it has still to say."""

    def __init__(self, name: str, spec: NotifierSpec, backups: Sequence[str]) -> None:
        self.name = name
        self._spec = spec
        self._backups = frozenset(backups)
        self._threshold = LEVELS.index(spec.level)
        self._notifier: Notifier | None = None
        self._backlog = Backlog()
        self._standing = Standing(backups)
        self._shown = ""
        self._ended = False
        self._delivering = anyio.Lock()
        self._failures: Counter[str] = Counter()
        self._lost = 0

    def take(self, event: Event) -> None:
        """Note an event; called from any thread, never waits for long."""
        if getattr(event, "backup", None) not in {None, *self._backups}:
            return
        if self._spec.send == "summary":
            self._standing.take(event)
        elif LEVELS.index(event.severity) >= self._threshold:
            self._backlog.add(event)

    async def run(self) -> None:
        """Say what there is to say, in turns that get rarer, until cancelled."""
        async with self._delivering:
            await self._announce()
        pause = BATCH_SECONDS
        while True:
            await anyio.sleep(pause)
            async with self._delivering:
                if self._ended:
                    return
                told = await self._tell()
            pause = min(pause * 2, LONGEST_PAUSE) if told else BATCH_SECONDS

    async def _announce(self) -> None:
        run = self._standing.started
        if run is not None and self._spec.send == "summary" and self._spec.start:
            mine = tuple(name for name in run.backups if name in self._backups)
            event = replace(run, backups=mine)
            if await self._can_show():
                await self._show()
            else:
                await self._deliver(lambda notifier: notifier.announce(event))

    async def _tell(self) -> bool:
        """Whether there was anything to say."""
        if self._spec.send == "events":
            return await self._flush()
        return await self._can_show() and await self._show()

    async def _can_show(self) -> bool:
        """A message that is edited must not appear for a run that is not to be told in the end."""
        everything = self._spec.level in ("debug", "info") and len(set(self._spec.on)) == 4
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
        with anyio.move_on_after(self._spec.timeout + _GRACE) as scope:
            async with self._delivering:
                await self._flush()
                await self._conclude(report)
        if scope.cancelled_caught:
            self._failures[self._late] += 1
        if self._lost:
            self._failures[f"{self._lost} events not told"] += 1
        lines = (f"{what} ({n} times)" if n > 1 else what for what, n in self._failures.items())
        return [f"{self.name}: {line}" for line in lines]

    async def _conclude(self, report: RunReport) -> None:
        mine = replace(report, backups=[b for b in report.backups if b.name in self._backups])
        wanted = LEVELS.index(mine.level) >= self._threshold
        result = _RESULTS.get(mine.outcome, "failure")
        if self._spec.send == "summary" and wanted and result in self._spec.on:
            await self._deliver(lambda notifier: notifier.send(mine))

    @property
    def _late(self) -> str:
        return f"not delivered within {self._spec.timeout:g} s"

    async def _made(self) -> Notifier | None:
        """The notifier; None when it cannot be made, which is noted."""
        if self._notifier is None:
            try:
                # In a thread: some bring large libraries along.
                make = partial(registry.make_notifier, self._spec)
                self._notifier = await run_in_thread("notifier", make, grace=0)
            except Exception as failure:
                self._failures[_words(failure)] += 1
        return self._notifier

    async def _deliver(self, send: Callable[[Notifier], Awaitable[None]]) -> bool:
        """Try once, within the deadline; whatever goes wrong stays here."""
        error = self._late
        with anyio.move_on_after(self._spec.timeout + _GRACE):
            notifier = await self._made()
            if notifier is None:
                return False
            try:
                await send(notifier)
                return True
            except Exception as failure:
                error = _words(failure)
        self._failures[error] += 1
        return False


def _words(failure: Exception) -> str:
    """Only our own errors say nothing that may be secret."""
    return (
        str(failure) if isinstance(failure, NxsError) else f"failed with {type(failure).__name__}"
    )


def make_feeds(specs: dict[str, Any], wanted: Iterable[tuple[str, Sequence[str]]]) -> list[Feed]:
    """A feed for each notifier that at least one backup names.

    Args:
        specs: the notifiers of the configuration.
        wanted: for each backup of the run its name and the notifiers it wants.
    """
    backups: dict[str, list[str]] = {}
    for backup, notifiers in wanted:
        for name in notifiers:
            backups.setdefault(name, []).append(backup)
    return [Feed(name, specs[name], names) for name, names in backups.items()]


@asynccontextmanager
async def notifying(feeds: Sequence[Feed], bus: EventBus) -> AsyncIterator[None]:
    """Let the feeds tell what happens while the block runs; `tell` belongs at its end."""
    async with anyio.create_task_group() as group:
        for feed in feeds:
            bus.subscribe(feed.take)
            group.start_soon(feed.run)
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
