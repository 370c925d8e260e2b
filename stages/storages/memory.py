"""Objects in the memory of this process: the reference for every other storage."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.errors import Aborted
from pipeline.naming import part_name
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import MemoryStorage
from stages.storages._names import (
    check_name,
    check_part,
    check_prefix,
    ended_early,
    exists_already,
    in_progress,
    is_below,
    is_missing,
    was_removed,
)


@dataclass
class Space:
    """What one named space holds; hold `lock` to look at both."""

    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, bytearray] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


_spaces: dict[str, Space] = {}
_spaces_lock = threading.Lock()


def space(name: str) -> Space:
    """The space of this name, made when it is new. All storages with the same `path` share it."""
    with _spaces_lock:
        return _spaces.setdefault(name, Space())


def clear() -> None:
    """Forget all spaces."""
    with _spaces_lock:
        _spaces.clear()


class MemoryWriter(Writer):
    """Collects the bytes in `Space.parts`."""

    def __init__(self, where: Space, name: str, part: str) -> None:
        self._space = where
        self._name = name
        self._part = part
        self._ended = False

    def _buffer(self) -> bytearray:
        if self._ended:
            raise Aborted
        buffer = self._space.parts.get(self._part)
        if buffer is None:
            raise was_removed(self._name)
        return buffer

    def write(self, chunk: bytes) -> None:
        with self._space.lock:
            self._buffer().extend(chunk)

    def flush(self) -> None:
        with self._space.lock:
            self._buffer()

    def commit(self) -> None:
        with self._space.lock:
            buffer = self._buffer()
            if self._name in self._space.objects:
                raise exists_already(self._name)
            self._space.objects[self._name] = bytes(buffer)
            del self._space.parts[self._part]
            self._ended = True

    def abort(self) -> None:
        with self._space.lock:
            if not self._ended:
                self._ended = True
                self._space.parts.pop(self._part, None)


class Memory(Storage):
    """A named space of this process."""

    def __init__(self, spec: MemoryStorage) -> None:
        self._path = spec.path

    @property
    def _space(self) -> Space:
        return space(self._path)

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        where, part = self._space, part_name(name, token)
        with where.lock:
            if name in where.objects:
                raise exists_already(name)
            if part in where.parts:
                raise in_progress(name)
            where.parts[part] = bytearray()
        return MemoryWriter(where, name, part)

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        with self._space.lock:
            content = self._space.objects.get(name)
        if content is None:
            raise is_missing(name)
        if offset > len(content):
            raise ended_early(name, offset)
        for start in range(offset, len(content), CHUNK):
            yield content[start : start + CHUNK]

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        check_prefix(prefix)
        with self._space.lock:
            return [
                ObjectInfo(name, len(content))
                for name, content in sorted(self._space.objects.items())
                if is_below(name, prefix)
            ]

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        with self._space.lock:
            for name in names:
                self._space.objects.pop(name, None)

    def unfinished(self, prefix: str) -> Sequence[str]:
        check_prefix(prefix)
        with self._space.lock:
            return sorted(part for part in self._space.parts if is_below(part, prefix))

    def sweep(self, names: Sequence[str]) -> None:
        for name in names:
            check_part(name)
        with self._space.lock:
            for name in names:
                self._space.parts.pop(name, None)

    def probe(self) -> Sequence[str]:
        with self._space.lock:
            return [f"{len(self._space.objects)} objects in memory, gone when the process ends"]


COMPONENT = Memory
