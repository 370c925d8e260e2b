"""The last bytes of a stream, kept for the case that they have to be sent again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from pipeline.stage import CHUNK

_SMALL = CHUNK // 4


class Window:
    """Keeps the last `size` bytes that were appended, and less than a chunk more.

    Chunks are kept as they come; small ones are joined, large ones are cut.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: deque[bytes] = deque()
        self._tail = bytearray()
        self.start = 0
        """Offset of the first byte that is here."""
        self.end = 0
        """Offset behind the last byte that is here."""

    def cut(self, chunk: bytes) -> Iterator[bytes]:
        """The pieces to `append` for a chunk; none when it is small and kept for later."""
        if self._tail or len(chunk) < _SMALL:
            self._tail += chunk
            if len(self._tail) < CHUNK:
                return
            chunk = bytes(self._tail)
            self._tail.clear()
        for start in range(0, len(chunk), CHUNK):
            yield chunk[start : start + CHUNK]

    def rest(self) -> Iterator[bytes]:
        """The piece to `append` for the small chunks that are left, if there are any."""
        if self._tail:
            piece = bytes(self._tail)
            self._tail.clear()
            yield piece

    def append(self, piece: bytes) -> None:
        """Keep a piece, and drop old ones that the size leaves no room for."""
        self._pieces.append(piece)
        self.end += len(piece)
        while self.end - self.start - len(self._pieces[0]) >= self._size:
            self.start += len(self._pieces.popleft())

    def forget(self) -> None:
        """Drop everything: it is stored."""
        self._pieces.clear()
        self.start = self.end

    def since(self, offset: int) -> Iterator[memoryview]:
        """What is here from an offset on, which is not before `start`."""
        wanted: list[memoryview] = []
        at = self.end
        for piece in reversed(self._pieces):
            if at <= offset:
                break
            at -= len(piece)
            wanted.append(memoryview(piece)[max(0, offset - at) :])
        return reversed(wanted)

    def between(self, start: int, end: int) -> bytes:
        """The bytes from one offset to another, both within the window."""
        found = bytearray()
        for piece in self.since(start):
            found += piece[: end - start - len(found)]
        return bytes(found)
