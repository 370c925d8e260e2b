"""Reading an object from an offset, in the thread of a session."""

from __future__ import annotations

from contextlib import suppress

from pipeline.stage import CHUNK
from stages.storages._fsspec.tree import Tree
from stages.storages._names import ended_early, is_missing


class Reader:
    """An open object.

    Args:
        block_size: bytes that the driver may ask for at once; None where that is up to it.

    Raises:
        ObjectMissing: there is no such object.
        StorageRefused: it is shorter than `offset`.
    """

    def __init__(self, tree: Tree, name: str, offset: int, block_size: int | None) -> None:
        size = tree.size(name)
        if size is None:
            raise is_missing(name)
        if offset > size:
            raise ended_early(name, offset)
        self._name = name
        self._size = size
        self._at = offset
        self._file = tree.fs.open(tree.locate(name), "rb", block_size=block_size)
        if offset:
            self._file.seek(offset)

    def read(self) -> bytes:
        """The next chunk; empty at the end.

        Raises:
            StorageRefused: the object is shorter than it was said to be.
        """
        if self._at == self._size:
            return b""
        chunk: bytes = self._file.read(min(CHUNK, self._size - self._at))
        if not chunk:
            raise ended_early(self._name, self._size)
        self._at += len(chunk)
        return bytes(chunk)

    def close(self) -> None:
        with suppress(Exception):  # Nothing is lost by what cannot be closed.
            self._file.close()
