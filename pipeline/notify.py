"""Runs the notifiers beside the backups, so that none of them can fail, block or slow one.

`send: summary` gets the report when the run has ended; `send: events` gets the events as they come,
in batches. Each notifier has a bounded queue and a deadline of its own; what does not arrive is
counted in the report.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from pipeline import registry
from pipeline.errors import NxsError
from pipeline.events import LEVELS, Event, EventBus, NotificationFailed
from pipeline.report import Outcome, RunReport
from pipeline.stage import Notifier
from schemas.notifiers import NotifierSpec

BATCH_SECONDS = 2.0
QUEUE = 1000
"""Events a notifier may lag behind; what comes on top is dropped, and counted."""

_LEVEL_OF = {Outcome.OK: "info", Outcome.PARTIAL: "warning", Outcome.LOCKED: "warning"}


class Feed:
    """One notifier, with what it has still to say."""

    def __init__(self, name: str, spec: NotifierSpec, backups: Sequence[str]) -> None:
        self.name = name
        self._spec = spec
        self._backups = frozenset(backups)
        self._notifier: Notifier | None = None
        self._queue: deque[Event] = deque()
        self._dropped = 0
        self._failures: list[str] = []

    def take(self, event: Event) -> None:
        """Queue an event; called from any thread, never waits."""
        if self._spec.send != "events" or LEVELS.index(event.severity) < self._threshold:
            return
        if getattr(event, "backup", None) not in {None, *self._backups}:
            return
        if len(self._queue) < QUEUE:
            self._queue.append(event)
        else:
            self._dropped += 1

    @property
    def _threshold(self) -> int:
        return LEVELS.index(self._spec.level)

    async def run(self) -> None:
        """Send what is queued, batch by batch, until cancelled."""
        while True:
            await anyio.sleep(BATCH_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        if not batch:
            return
        try:
            await self._deliver(lambda notifier: notifier.send_events(batch))
        except anyio.get_cancelled_exc_class():
            self._queue.extendleft(reversed(batch))  # `finish` sends them again
            raise

    async def finish(self, report: RunReport) -> list[str]:
        """Send what is left, and the summary; returns what went wrong, one line each."""
        await self._flush()
        mine = replace(report, backups=[b for b in report.backups if b.name in self._backups])
        level = _LEVEL_OF.get(mine.outcome, "error")
        if self._spec.send == "summary" and LEVELS.index(level) >= self._threshold:
            await self._deliver(lambda notifier: notifier.send(mine))
        if self._dropped:
            self._failures.append(f"{self.name}: {self._dropped} events dropped")
        return self._failures

    async def _deliver(self, send: Callable[[Notifier], Awaitable[None]]) -> None:
        """Try once, within the deadline; whatever goes wrong stays here."""
        error = f"not delivered within {self._spec.timeout:g} s"
        # The notifier has the same deadline, and more to say about it.
        with anyio.move_on_after(self._spec.timeout + 2):
            try:
                if self._notifier is None:
                    self._notifier = registry.make_notifier(self._spec)
                await send(self._notifier)
                return
            except Exception as failure:
                known = isinstance(failure, NxsError)
                error = str(failure) if known else f"failed with {type(failure).__name__}"
        self._failures.append(f"{self.name}: {error}")


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
    """Let the feeds stream their events while the block runs."""
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
