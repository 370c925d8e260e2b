"""SIGINT, SIGTERM, SIGHUP: the first stops the work cleanly, the second ends the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import anyio

from pipeline import children
from pipeline.context import Teardown
from pipeline.errors import Interrupted, root_causes
from pipeline.segment import run_in_thread

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3.0
"""Seconds that blocking work gets to end after it was told to."""


@contextmanager
def interruptible(
    interrupt: Callable[[], None], reopen: Callable[[], None] | None = None
) -> Iterator[None]:
    """Call `interrupt` in the event loop on the first signal, while the block runs.

    With `reopen`, SIGHUP calls that instead, as daemons have it, unless it came because the
    terminal is gone.

    Plain handlers, because those of the loop do not run while it waits for something, such as a
    terminal that takes no output.
    """
    import asyncio  # here, as `check` alone needs no event loop

    loop = asyncio.get_running_loop()
    seen: list[int] = []
    had_terminal = _has_terminal()

    def handle(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP and reopen and (_has_terminal() or not had_terminal):
            loop.call_soon_threadsafe(reopen)
            return
        if seen:
            children.kill_all()
            os._exit(130)
        seen.append(number)
        loop.call_soon_threadsafe(interrupt)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal (still)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def run_interruptibly(
    work: Callable[[], Awaitable[T]],
    interrupt: Callable[[], None],
    reopen: Callable[[], None] | None = None,
) -> T:
    """Run asynchronous work to its end; `interrupt` must make it end soon, `reopen` is for SIGHUP,
    see `interruptible`.
    """

    async def main() -> T:
        with interruptible(interrupt, reopen):
            return await work()

    return anyio.run(main, backend="asyncio")


def run_blocking(work: Callable[[Teardown], T]) -> T:
    """Run blocking work in a thread; a signal calls its teardown.

    Raises:
        Interrupted: a signal came before the work was done.
    """
    teardown = Teardown()
    results: list[T] = []
    scopes: list[anyio.CancelScope] = []

    def interrupt() -> None:
        teardown.abort()
        scopes[0].cancel()

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            in_thread = run_in_thread("work", lambda: work(teardown), grace=PATIENCE)
            results.append(await in_thread)

    try:
        run_interruptibly(main, interrupt)
    except BaseException as error:
        # The task group has wrapped it; what is left when consequences are taken away is the cause.
        raise next(root_causes(error), Interrupted("interrupted")) from None
    if not results:
        raise Interrupted("interrupted")
    return results.pop()
