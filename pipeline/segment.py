"""Long-lived worker threads under the structure of anyio.

anyio owns the structure (task groups, cancellation, deadlines); data moves in a few threads, each
of which runs a whole segment of the graph as a chain of generators. `to_thread.run_sync` is not
used: it would wait for a thread that hangs in a system call for ever, and keep the process from
ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import current_token

T = TypeVar("T")

GRACE = 10.0
"""Seconds a thread gets to end after it was told to; then it is abandoned."""


async def run_in_thread(
    name: str,
    function: Callable[[], T],
    on_cancel: Callable[[], None] | None = None,
    grace: float | None = None,
) -> T:
    """Run `function` in a thread of its own and wait for it.

    When the waiting task is cancelled, `on_cancel` is called, which must make the function return
    soon. The thread then has `grace` seconds; one that hangs in a system call is left behind (it is
    a daemon, so it does not keep the process from ending).

    Raises:
        Whatever `function` raises.
    """
    done = anyio.Event()
    outcome = _Outcome[T]()
    tell = _poster()

    def body() -> None:
        outcome.capture(function)
        try:
            tell(done.set)
        except RuntimeError:
            pass  # the loop is gone: we were abandoned, and nobody waits for us any more

    threading.Thread(target=body, name=name, daemon=True).start()
    try:
        await done.wait()
    except anyio.get_cancelled_exc_class():
        if on_cancel is not None:
            on_cancel()
        with anyio.move_on_after(GRACE if grace is None else grace, shield=True):
            await done.wait()
        raise
    return outcome.result()


def _poster() -> Callable[[Callable[[], object]], object]:
    """What hands a callback to this event loop from a thread, without waiting for it to run.

    `anyio.from_thread.run_sync` waits, for ever when the loop ends in between.
    """
    loop: Any = current_token().native_token
    post: Callable[[Callable[[], object]], object]
    post = getattr(loop, "run_sync_soon", None) or loop.call_soon_threadsafe  # Trio, asyncio
    return post


class _Outcome(list[tuple[T | None, BaseException | None]]):
    """What a function returned or raised, carried from one thread to another."""

    def capture(self, function: Callable[[], T]) -> None:
        try:
            self.append((function(), None))
        except BaseException as error:
            self.append((None, error))

    def result(self) -> T:
        value, error = self.pop()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback would keep this frame, and the frame the error
        return value  # type: ignore[return-value]
