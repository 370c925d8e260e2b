"""Collections read by several threads at once; blocks of them come as they are read.

The threads wait when they are ahead of the reader by more than a window of bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Generic, TypeVar

_STAY = 60.0
"""Seconds after which a thread that waits for room looks after what it holds."""

J = TypeVar("J")
R = TypeVar("R")


class Pool(Generic[J, R]):
    """One thread for each reader.

    Args:
        run: gives the blocks of a job.
        stay: called now and then for a reader whose thread waits.
        interrupt: makes every `run` that waits for the server fail.
        window: bytes that may be ready; a block is taken when there is less.
    """

    def __init__(
        self,
        jobs: Iterable[J],
        readers: Sequence[R],
        run: Callable[[J, R], Iterable[bytes]],
        stay: Callable[[R], None],
        interrupt: Callable[[], None],
        window: int,
    ) -> None:
        self._jobs = deque(jobs)
        self._readers = readers
        self._run = run
        self._stay = stay
        self._interrupt = interrupt
        self._window = window
        self._changed = threading.Condition()
        self._blocks: deque[bytes] = deque()
        self._ready = 0
        self._working = len(readers)
        self._stopped = False
        self._error: BaseException | None = None

    def blocks(self) -> Generator[bytes, None, None]:
        """All blocks; raises what a job raised. No thread is left when it ends."""
        threads = [threading.Thread(target=self._work, args=(one,)) for one in self._readers]
        for thread in threads:
            thread.start()
        whole = False
        try:
            while (block := self._get()) is not None:
                yield block
            whole = True
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            if not whole:
                self._interrupt()
            for thread in threads:
                thread.join()

    def _get(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or not self._working or self._error)
            if self._error:
                raise self._error
            if not self._blocks:
                return None
            block = self._blocks.popleft()
            self._ready -= len(block)
            self._changed.notify_all()
            return block

    def _work(self, reader: R) -> None:
        try:
            while (job := self._take()) is not None:
                for block in self._run(job, reader):
                    if not self._put(block, reader):
                        return
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _take(self) -> J | None:
        with self._changed:
            if self._stopped or self._error or not self._jobs:
                return None
            return self._jobs.popleft()

    def _put(self, block: bytes, reader: R) -> bool:
        """Hand over a block when there is room; False when nobody wants it any more."""

        def may_go_on() -> bool:
            return self._stopped or self._error is not None or self._ready < self._window

        while True:
            with self._changed:
                if self._changed.wait_for(may_go_on, _STAY):
                    if self._stopped or self._error:
                        return False
                    self._blocks.append(block)
                    self._ready += len(block)
                    self._changed.notify_all()
                    return True
            self._stay(reader)
