"""SIGINT and SIGTERM: the first stops the work cleanly, the second ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from pipeline.context import Teardown
from pipeline.errors import Interrupted, root_causes
from pipeline.segment import run_in_thread

T = TypeVar("T")


async def interruptible(work: Callable[[], Awaitable[T]], interrupt: Callable[[], None]) -> T:
    """Do the work; call `interrupt` on the first signal."""
    results: list[T] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_listen, interrupt)
        results.append(await work())
        group.cancel_scope.cancel()
    return results.pop()


async def _listen(interrupt: Callable[[], None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        seen = False
        async for _ in signals:
            if seen:
                os._exit(130)
            seen = True
            interrupt()


def run_blocking(work: Callable[[Teardown], T]) -> T:
    """Run blocking work in a thread; a signal calls its teardown.

    Raises:
        Interrupted: a signal came before the work was done.
    """
    teardown = Teardown()

    async def in_thread() -> T:
        return await run_in_thread("work", lambda: work(teardown))

    async def main() -> T:
        return await interruptible(in_thread, teardown.abort)

    try:
        return anyio.run(main)
    except BaseException as error:
        # The task group has wrapped it; what is left when consequences are taken away is the cause.
        cause = next(root_causes(error), None)
        raise cause or Interrupted("interrupted") from None
