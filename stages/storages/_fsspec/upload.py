"""The ways in which an object gets its name, by what a file system can.

Every writer of fsspec publishes what it has, whole or not, when it is closed, and it is closed by
an exception, or when nobody holds it any more. So no file of these is ever opened under the final
name unless the driver can be told to wait (`Committed`, `Closed`), and none is let go of before it
was disarmed.

All of this runs in the thread of a session. The unfinished object `.NAME.TOKEN.part` is there from
the start: it holds the data, or it is empty and only says that somebody is writing.
"""

from __future__ import annotations

import io
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from pipeline.errors import StorageRefused
from stages.storages._fsspec.errors import Kind, kind_of
from stages.storages._fsspec.tree import Tree
from stages.storages._names import exists_already, was_removed
from stages.storages._publish import publish

_IN_MEMORY_OR_ON_DISK = (
    tempfile.SpooledTemporaryFile,
    tempfile._TemporaryFileWrapper,
    io.BytesIO,
)
_SLOWEST_COPY = 4 << 20
"""Bytes per second at which a copy made by the server, which nobody can watch, is taken for stuck.
"""


@dataclass(frozen=True)
class Place:
    """Where an object goes: its name, and that of the unfinished one beside it."""

    name: str
    part: str


class Upload(ABC):
    """An object on its way, not visible yet.

    Args:
        block_size: bytes that are sent at once; None where that is up to the driver.
    """

    def __init__(self, tree: Tree, place: Place, block_size: int | None) -> None:
        self._tree = tree
        self._place = place
        self._size = 0
        self._published = False
        self._file = self._open(block_size)

    @property
    def copy_seconds(self) -> float:
        """What `publish` may take longer than other calls, because it moves all of the data."""
        return 0

    @abstractmethod
    def _open(self, block_size: int | None) -> Any: ...

    @abstractmethod
    def finish(self) -> None:
        """Send the rest, so that only the name is missing."""

    @abstractmethod
    def _publish(self) -> None: ...

    @abstractmethod
    def is_done(self, tree: Tree) -> bool:
        """Whether the object became visible although the answer got lost; asked elsewhere."""

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._file.write(chunk) not in (None, len(chunk)):
            raise OSError("the driver took only a part of the data")

    def flush(self) -> None:
        """Send what the driver sends; the start of a block stays here."""
        self._file.flush()

    def publish(self) -> None:
        """Give the object its name, unless another has it.

        Raises:
            StorageRefused: the name is taken, the unfinished object is gone, or what became visible
            is not what was written.
        """
        if self._tree.info(self._place.part) is None:
            raise was_removed(self._place.name)
        if self._tree.info(self._place.name) is not None:
            raise exists_already(self._place.name)
        try:
            self._publish()
        except Exception as error:
            if kind_of(error) is Kind.EXISTS:
                raise exists_already(self._place.name) from error
            raise
        self._check_size(self._place.name)

    def _check_size(self, name: str) -> None:
        size = self._tree.size(name)
        if size != self._size:
            raise StorageRefused(
                f'object "{self._place.name}" arrived with {size} bytes instead of {self._size}'
            )

    def disarm(self) -> None:
        """Have the end of the file publish nothing."""
        if isinstance(self._file, AbstractBufferedFile):
            self._file.closed = True
            return
        with suppress(Exception):  # What it holds is not wanted any more.
            self._file.close()

    def give_up(self) -> None:
        """Remove every trace, also of what has become visible too late."""
        self.disarm()
        if self._published:
            self._tree.remove(self._place.name)
        self._tree.remove(self._place.part)
        self._tree.remove_empty_parents(self._place.part)


class Renamed(Upload):
    """Written under the name of the part, which is then renamed."""

    def _open(self, block_size: int | None) -> Any:
        path = self._tree.locate(self._place.part)
        file = self._tree.fs.open(path, "wb", block_size=block_size)
        if isinstance(file, _IN_MEMORY_OR_ON_DISK) and not _is_memory(self._tree):
            file.close()
            raise StorageRefused("the driver would keep the whole object in memory or on disk")
        return file

    def finish(self) -> None:
        if self._tree.info(self._place.part) is None:  # What is sent last would make a new one.
            raise was_removed(self._place.name)
        self._file.close()
        self._check_size(self._place.part)

    def _publish(self) -> None:
        part, final = map(self._tree.locate, (self._place.part, self._place.name))
        self._tree.fs.mv(part, final)
        self._published = self._tree.info(self._place.part) is None
        if not self._published:  # Not all drivers tell that a server said no.
            raise exists_already(self._place.name)

    def is_done(self, tree: Tree) -> bool:
        return tree.size(self._place.name) == self._size and tree.info(self._place.part) is None


class Linked(Renamed):
    """The same on this machine, where a link never replaces anything."""

    def _publish(self) -> None:
        publish(self._tree.locate(self._place.part), self._tree.locate(self._place.name))
        self._published = True


class Copied(Renamed):
    """Written under the name of the part, which is then copied: the last resort."""

    @property
    def copy_seconds(self) -> float:
        return self._size / _SLOWEST_COPY

    def _publish(self) -> None:
        part, final = map(self._tree.locate, (self._place.part, self._place.name))
        self._published = True  # Half a copy has to go again.
        self._tree.fs.cp_file(part, final)
        self._check_size(self._place.name)
        self._tree.remove(self._place.part)


class Committed(Upload):
    """An upload that the service shows when it is told to (`autocommit=False`)."""

    def _open(self, block_size: int | None) -> Any:
        path = self._tree.locate(self._place.name)
        # The x has the service refuse to replace an object, where it knows how.
        return self._tree.fs.open(path, "xb", block_size=block_size, autocommit=False)

    def finish(self) -> None:
        self._file.close()

    def _publish(self) -> None:
        self._file.commit()
        self._published = True
        with suppress(Exception):  # The object is there; `sweep` finds the rest.
            self._tree.remove(self._place.part)

    def is_done(self, tree: Tree) -> bool:
        # It was not there right before, and nobody else has a name with this host and second.
        if tree.size(self._place.name) != self._size:
            return False
        tree.remove(self._place.part)
        return True

    def give_up(self) -> None:
        if not self._published:
            with suppress(Exception):  # The service forgets it in time.
                self._file.discard()
        super().give_up()


class Closed(Committed):
    """An upload that the service shows when its file is closed, and only then."""

    def _open(self, block_size: int | None) -> Any:
        path = self._tree.locate(self._place.name)
        return self._tree.fs.open(path, "xb", block_size=block_size)

    def finish(self) -> None:
        self.flush()

    def _publish(self) -> None:
        self._file.close()
        self._published = True
        with suppress(Exception):
            self._tree.remove(self._place.part)


def _is_memory(tree: Tree) -> bool:
    return bool(tree.fs.protocol == "memory")
