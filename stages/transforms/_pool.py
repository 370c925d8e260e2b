"""Work on the blocks of one stream in several threads, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0))


def map_ordered(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, window: int
) -> Generator[Result, None, None]:
    """Yield `work(item)` for each item, in their order, with at most `window` of them under way.

    The items are pulled in the caller's thread. However it ends, its threads have ended before.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="transform")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            while pending and (len(pending) >= window or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
