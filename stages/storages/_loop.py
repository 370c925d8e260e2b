"""One asyncio loop in a thread of its own, shared by every storage whose client library is async.

Storages are plain blocking code that the engine calls in worker threads, whichever loop the engine
itself runs on. The thread starts with the first user and ends with the last.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from pipeline.errors import StorageUnavailable

T = TypeVar("T")


def _is_worth_telling(record: logging.LogRecord) -> bool:
    # asyncio warns for every packet that is sent to a connection that has just died.
    return record.getMessage() != "socket.send() raised exception."


logging.getLogger("asyncio").addFilter(_is_worth_telling)


class LoopThread:
    """A running loop; get one with `acquire`, give it back with `release`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.users = 0
        self._ended = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="storage-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._finish())
        finally:
            self.loop.close()

    async def _finish(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # Lets transports that were aborted close their sockets.
        await self.loop.shutdown_default_executor()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine there; the future may be waited for and cancelled from any thread.

        Raises:
            StorageUnavailable: the loop has ended, because the storage was closed meanwhile.
        """
        with self._lock:
            if self._ended:
                work.close()
                raise StorageUnavailable("the connection was closed")
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    def call_soon(self, function: Callable[..., object], *arguments: object) -> bool:
        """Call a function there, soon; False, and no call, when the loop has ended."""
        with self._lock:
            if not self._ended:
                self.loop.call_soon_threadsafe(function, *arguments)
            return not self._ended

    def end(self) -> None:
        """Cancel what runs there, and wait for the thread."""
        with self._lock:
            self._ended = True
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


_shared: LoopThread | None = None
_shared_lock = threading.Lock()


def acquire() -> LoopThread:
    """The loop, started when nobody uses it yet; every `acquire` needs a `release`."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = LoopThread()
        _shared.users += 1
        return _shared


def release(loop: LoopThread) -> None:
    """Give the loop back; the last one ends it. Not to be called on the loop's own thread."""
    global _shared
    with _shared_lock:
        loop.users -= 1
        if loop.users:
            return
        _shared = None
    loop.end()
