"""Jobs read over several connections at once, their chunks in the order of the jobs.

Workers take jobs in order and run ahead of the reader, together by no more than a window of bytes.
Only the job that the reader waits for is not held back by it: there is always one that moves on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_AHEAD = 2 << 20
"""Bytes that the job at the head may have ready beyond the window."""

J = TypeVar("J")
C = TypeVar("C")


@dataclass
class _Output:
    """What a job has ready."""

    chunks: deque[bytes] = field(default_factory=deque)
    size: int = 0
    ended: bool = False


class Pool(Generic[J, C]):
    """One worker thread for each connection.

    Args:
        run: gives the chunks of a job over a connection.
        interrupt: makes every `run` that waits for the server fail.
        window: bytes that may be ready, all jobs together.
    """

    def __init__(
        self,
        jobs: Sequence[J],
        links: Sequence[C],
        run: Callable[[J, C], Iterator[bytes]],
        interrupt: Callable[[], None],
        window: int,
    ) -> None:
        self._jobs = jobs
        self._links = links
        self._run = run
        self._interrupt = interrupt
        self._window = window
        self._outputs = [_Output() for _ in jobs]
        self._changed = threading.Condition()
        self._next = 0
        self._head = 0
        self._ready = 0
        self._stopped = False
        self._error: BaseException | None = None

    def chunks(self) -> Iterator[bytes]:
        """All chunks in order; raises what a job raised. No worker is left when it ends."""
        workers = [threading.Thread(target=self._work, args=(link,)) for link in self._links]
        for worker in workers:
            worker.start()
        whole = False
        try:
            for head in range(len(self._jobs)):
                yield from self._of(head)
            whole = True
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            if not whole:
                self._interrupt()
            for worker in workers:
                worker.join()

    def _of(self, head: int) -> Iterator[bytes]:
        output = self._outputs[head]
        with self._changed:
            self._head = head
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: output.chunks or output.ended or self._error)
                if self._error and not output.ended:
                    raise self._error
                if not output.chunks:
                    return
                chunk = output.chunks.popleft()
                output.size -= len(chunk)
                self._ready -= len(chunk)
                self._changed.notify_all()
            yield chunk

    def _work(self, link: C) -> None:
        try:
            while (number := self._take()) is not None:
                for chunk in self._run(self._jobs[number], link):
                    if not self._put(number, chunk):
                        return
                with self._changed:
                    self._outputs[number].ended = True
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _take(self) -> int | None:
        with self._changed:
            if self._stopped or self._error or self._next == len(self._jobs):
                return None
            self._next += 1
            return self._next - 1

    def _put(self, number: int, chunk: bytes) -> bool:
        """Hand over a chunk when there is room; False when nobody wants it any more."""
        output = self._outputs[number]

        def has_room() -> bool:
            if number == self._head and output.size < _AHEAD:
                return True
            return self._ready + len(chunk) <= self._window

        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._error or has_room())
            if self._stopped or self._error:
                return False
            output.chunks.append(chunk)
            output.size += len(chunk)
            self._ready += len(chunk)
            self._changed.notify_all()
            return True
