"""The archive as it is made: parts that become chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.stage import CHUNK
from stages.sources._files import tar


class Output:
    """Collects parts until there is a chunk.

    Args:
        check: raises when the run is being stopped.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._parts: list[bytes] = []
        self._size = 0
        self._position = 0

    def put(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)

    def zeros(self, size: int) -> Iterator[bytes]:
        """So many zero bytes, in place of what cannot be read."""
        while size:
            some = min(size, CHUNK)
            self.put(bytes(some))
            size -= some
            yield from self.ready()

    def ready(self) -> Iterator[bytes]:
        """What there is, when it is enough."""
        if self._size >= CHUNK:
            yield from self.all()

    def all(self) -> Iterator[bytes]:
        """What there is."""
        self._check()
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._position += len(whole)
        if len(whole) < 4 * CHUNK:
            yield whole
        else:
            yield from (whole[at : at + CHUNK] for at in range(0, len(whole), CHUNK))

    def end(self) -> Iterator[bytes]:
        """The end of the archive."""
        self.put(tar.end(self._position + self._size))
        yield from self.all()
