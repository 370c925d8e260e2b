"""What the engine hands to a running stage: how it is stopped, where it says what it found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.errors import Aborted

MAX_NAMED = 1000
"""So many skipped items are named; the rest are only counted."""


class Teardown:
    """Stops whatever blocks, from any thread.

    A thread that waits in a system call cannot be cancelled; what it waits for can be ended. A
    stage registers how (kill the child, close the socket) for as long as it may block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._aborted = threading.Event()

    @property
    def aborted(self) -> bool:
        return self._aborted.is_set()

    def check(self) -> None:
        """Raise `Aborted` when the run is being stopped; for loops that do not touch a channel."""
        if self._aborted.is_set():
            raise Aborted

    def sleep(self, seconds: float) -> None:
        """Sleep, or raise `Aborted` as soon as the run is being stopped."""
        if self._aborted.wait(seconds):
            raise Aborted

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called on abort, at once when that has already happened.

        The callback must be quick, must not raise, and may be called while the block is being left.
        """
        key = object()
        with self._lock:
            self._callbacks[key] = callback
            late = self._aborted.is_set()
        if late:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)

    def abort(self) -> None:
        """Stop everything that is registered, now and later. May be called again."""
        with self._lock:
            self._aborted.set()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()


@dataclass
class Findings:
    """What a source learned while it streamed; it goes into the manifest and the report.

    Written by the source's thread only, read by the engine after the stream has ended.
    """

    counts: dict[str, int] = field(default_factory=dict)
    """Files, tables, rows, keys...: whatever the source counts."""
    warnings: list[str] = field(default_factory=list)
    """For people; does not change the outcome."""
    skipped: list[str] = field(default_factory=list)
    """Items that could not be read, each with its reason; they make the run partial."""
    skipped_total: int = 0
    """How many: `skipped` names at most MAX_NAMED of them."""
    server_version: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    """More about where the stream comes from, for the manifest: a binary log position, an LSN..."""

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def warn(self, message: str) -> None:
        if len(self.warnings) < MAX_NAMED:
            self.warnings.append(_storable(message))

    def skip(self, item: str, reason: str) -> None:
        """Note an item that could not be read and should have been."""
        self.skipped_total += 1
        if len(self.skipped) < MAX_NAMED:
            self.skipped.append(_storable(f"{item}: {reason}"))


def _storable(text: str) -> str:
    """File names may hold what UTF-8 cannot express; manifests and messages cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Increment:
    """The place of a copy in a series, as the source of increments sees it."""

    keep: Callable[[bytes], None]
    """Takes the index of this copy, piece by piece; the next increment will be given it."""
    base: Callable[[], Iterator[bytes]] | None = None
    """Reads the index of the copy to build on; None: make a full copy."""


@dataclass
class StageContext:
    """One artifact's run, as seen by its source and its transforms."""

    teardown: Teardown = field(default_factory=Teardown)
    findings: Findings = field(default_factory=Findings)
    increment: Increment | None = None
    """Set when the source keeps a series of increments."""
    expected: int | None = None
    """Plain bytes of the whole stream: set by a source that knows, as soon as it does. Only the
    display looks at it."""
