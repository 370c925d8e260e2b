"""The blocks of a stream that a server has not acknowledged yet, between two threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pipeline.errors import Aborted
from pipeline.stage import CHUNK

WINDOW_BYTES = 8 << 20
"""Bytes that are here at most: four times what OpenSSH lets a client send ahead."""
_REQUESTS = 128
"""Blocks that are here at most; with the smallest blocks, what OpenSSH lets a client send ahead."""


class Window:
    """A writer adds blocks, in order; the loop acknowledges them, in any order.

    Chunks are cut into blocks without copying them; small ones are joined.

    Args:
        block: the largest block, in bytes.
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self._tail = bytearray()
        self._changed = threading.Condition()
        self._blocks: dict[int, memoryview] = {}
        self._bytes = 0
        self._end = self._reached = 0
        self._error: BaseException | None = None

    # For the writer

    def cut(self, chunk: bytes) -> Iterator[Sequence[memoryview]]:
        """The blocks to `add` for a chunk, together; none when it is small and kept for later."""
        if self._tail or len(chunk) < self._block:
            self._tail += chunk
            if len(self._tail) < CHUNK:
                return
            chunk = self._take_tail()
        view = memoryview(chunk)
        for start in range(0, len(view), CHUNK):
            yield self._even_blocks(view[start : start + CHUNK])

    def rest(self) -> Iterator[Sequence[memoryview]]:
        """The blocks to `add` for the small chunks that are left."""
        if self._tail:
            yield self._even_blocks(memoryview(self._take_tail()))

    def _take_tail(self) -> bytes:
        tail = bytes(self._tail)
        self._tail.clear()
        return tail

    def _even_blocks(self, view: memoryview) -> Sequence[memoryview]:
        count = -(-len(view) // self._block)
        size = -(-len(view) // count)
        return [view[start : start + size] for start in range(0, len(view), size)]

    def add(self, blocks: Sequence[memoryview]) -> None:
        """Wait until there is room for some blocks, and take them.

        Raises:
            StorageError, Aborted: as given to `stop`.
        """
        size = sum(map(len, blocks))
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._has_room(len(blocks), size))
            self.check()
            for block in blocks:
                self._blocks[self._end] = block
                self._end += len(block)
            self._bytes += size

    def _has_room(self, count: int, size: int) -> bool:
        held = len(self._blocks)
        fits = held + count <= _REQUESTS and self._bytes + size <= WINDOW_BYTES
        return fits or not held

    def wait_empty(self) -> None:
        """Wait until everything is acknowledged; raises what `add` raises."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._blocks)
            self.check()

    def check(self) -> None:
        """Raises what `add` raises."""
        if self._error:
            raise self._error

    # For the loop

    @property
    def reached(self) -> int:
        """Behind the farthest byte that is acknowledged; blocks before it may not be."""
        return self._reached

    @property
    def end(self) -> int:
        """Offset behind the last block."""
        return self._end

    def since(self, offset: int) -> Sequence[tuple[int, memoryview]]:
        """What is not acknowledged yet from an offset on: offsets and blocks, in order."""
        with self._changed:
            return [item for item in self._blocks.items() if item[0] >= offset]

    def acknowledge(self, offset: int) -> None:
        """The block at an offset is stored; the second time it does not matter."""
        with self._changed:
            block = self._blocks.pop(offset, b"")
            self._bytes -= len(block)
            self._reached = max(self._reached, offset + len(block))
            self._changed.notify_all()

    # For both

    def stop(self, error: BaseException) -> bool:
        """Have all calls raise an error; the first one counts, but `Aborted` counts more.

        Returns:
            Whether it was not `Aborted` already.
        """
        with self._changed:
            if isinstance(self._error, Aborted):
                return False
            if self._error is None or isinstance(error, Aborted):
                self._error = error
            if isinstance(error, Aborted):
                self._blocks.clear()
            self._changed.notify_all()
            return True
