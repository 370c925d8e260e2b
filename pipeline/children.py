"""The process groups of programs that run now, for a process that has to end at once."""

from __future__ import annotations

import os
import signal

_groups: set[int] = set()


def add(group: int) -> None:
    """A program was started in a process group of its own."""
    _groups.add(group)


def discard(group: int) -> None:
    """It has ended, and so has all that it had started."""
    _groups.discard(group)


def kill_all() -> None:
    """End them all; for the moment before this process ends without cleaning up."""
    for group in tuple(_groups):
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            continue  # ended by itself meanwhile
