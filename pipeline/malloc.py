"""Keeps the C allocator from holding on to memory that the engine has given back."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from pipeline.events import Event, Progressed

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3), from malloc.h of glibc."""
_PERIOD = 1.0


def settle() -> Any:
    """Give the allocator one heap with fixed thresholds, before there are threads.

    Returns:
        The C library, or None when it is not glibc.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 8 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 16 << 20)
    except (OSError, AttributeError):
        return None
    return libc


class Trimmer:
    """A subscriber that returns free memory to the system once a second while data moves.

    By default glibc gives each thread that meets a busy heap one of its own, and a heap keeps up to
    twice the largest block ever freed: chunks that are made in one thread and freed in another then
    leave an amount behind that depends on luck. One heap with fixed thresholds is predictable, and
    quicker, as it does not ask the kernel for each chunk anew. Other C libraries need none of it.

    Make it before there are threads.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._libc = settle()

    def __call__(self, event: Event) -> None:
        if self._libc is None or not isinstance(event, Progressed):
            return
        now = time.monotonic()
        if now - self._last >= _PERIOD:
            self._last = now
            self._libc.malloc_trim(0)
