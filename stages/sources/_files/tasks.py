"""Work for a few threads that may hang in the kernel, and the memory it may fill."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Generic, TypeVar

from pipeline.context import Teardown
from pipeline.errors import Aborted

T = TypeVar("T")

_GRACE = 1.0
"""Seconds for threads to come back from the kernel when they are no longer needed."""


class Task(Generic[T]):
    """Something to be done once: by a thread of a pool, or by the writer when none has begun.

    Args:
        work: what is done; gets the task.
        discard: frees what the task holds when nobody wants its result any more: gets what `work`
            returned (None when it failed), and whether it has run at all. Called at most once,
            from any thread.
    """

    def __init__(
        self, work: Callable[[Task[T]], T], discard: Callable[[T | None, bool], None]
    ) -> None:
        self._work = work
        self._discard = discard
        self._lock = threading.Lock()
        self._claimed = threading.Lock()
        self._done = threading.Event()
        self._ended = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self.cancelled = False
        """Nobody wants the result."""
        self.urgent = False
        """The writer waits for this one: it may take what room it needs."""
        self.cpu = 0.0
        """Seconds of processor time that a thread of the pool spent on it."""

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def run(self) -> None:
        """Do it, unless somebody has begun already; errors are kept for `result`."""
        if not self._claimed.acquire(blocking=False):
            return
        started = time.thread_time()
        result, error = None, None
        try:
            result = self._work(self)
        except BaseException as caught:
            error = caught
        self.cpu = time.thread_time() - started
        with self._lock:
            self._result, self._error, self._ended = result, error, True
            unwanted = self.cancelled
        if unwanted:
            self._discard(result, True)
        self._done.set()

    def result(self, rooms: Iterable[Room], teardown: Teardown) -> T:
        """What the work returned, to be asked for once; done here and now when no thread has begun.

        Raises:
            Aborted: the run is being stopped; a hung thread is left behind.
            BaseException: whatever the work raised.
        """
        for room in rooms:
            room.hurry(self)
        if not self._claimed.locked():
            self.run()
            self.cpu = 0.0
        if not self.done:
            with teardown.calling(self._done.set):
                self._done.wait()
        teardown.check()
        if self._error is not None:
            raise self._error
        result, self._result = self._result, None
        return result  # type: ignore[return-value]  # there is one, as there is no error

    def peek(self) -> T | None:
        """The result, when it is there and nobody has taken it away."""
        return self._result if self.done else None

    def cancel(self) -> None:
        """Nobody wants the result; what the task holds is freed now, or when it ends."""
        never_ran = self._claimed.acquire(blocking=False)
        with self._lock:
            self.cancelled = True
            ended = self._ended or never_ran
        if ended:
            self._discard(self._result, not never_ran)


class Pool:
    """Threads that run tasks in the order in which they were submitted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[Task[object] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, task: Task[T], threads: int) -> None:
        """Have it run by one of so many threads; one that is missing is started."""
        if len(self._threads) < threads:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._tasks.put(task)  # type: ignore[arg-type]  # what it returns is not looked at

    def close(self) -> None:
        """End the threads; one that hangs in the kernel is left behind."""
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + _GRACE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads.clear()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task.run()
            del task  # Or what it made would stay in memory for as long as this thread waits.


class Room:
    """What finished work may fill until the writer takes it: bytes, or descriptors."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._taken: dict[object, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def take(self, task: Task[T], size: int) -> None:
        """Wait for room; not for long, since the task that the writer waits for always gets it.

        Raises:
            Aborted: nobody wants the work any more.
        """
        with self._changed:
            while not (
                self._closed or task.cancelled or task.urgent or self._used + size <= self._size
            ):
                self._changed.wait()
            if self._closed or task.cancelled:
                raise Aborted
            self._used += size
            self._taken[task] = self._taken.get(task, 0) + size

    def hurry(self, task: Task[T]) -> None:
        """Let a task through, whatever it needs."""
        with self._changed:
            task.urgent = True
            self._changed.notify_all()

    def give_back(self, task: Task[T]) -> None:
        """The writer has taken what the task made."""
        with self._changed:
            self._used -= self._taken.pop(task, 0)
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
