"""Reading a file from an SMB server, some blocks ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.stage import CHUNK
from stages.storages._names import ended_early, is_missing
from stages.storages._smb import calls as smb
from stages.storages._smb.calls import Access, Disposition, Option
from stages.storages._smb.errors import MISSING
from stages.storages._smb.session import Session
from stages.storages._smb.tree import Tree
from stages.storages._smb.types import Call, Malformed, Opened, SmbError, Status

_AHEAD_BYTES = 8 * CHUNK
"""What is asked for before it is wanted."""
_ACCESS = Access.READ_DATA | Access.READ_ATTRIBUTES
_OPTIONS = Option.NON_DIRECTORY | Option.SEQUENTIAL


@dataclass(frozen=True)
class _Piece:
    size: int
    call: Call[bytes]


class Reader:
    """Reads an object once; goes on where it was when the connection breaks.

    Args:
        session: used for all requests.
        tree: where the object is, over that session.
        name: of the object.
    """

    def __init__(self, session: Session, tree: Tree, name: str) -> None:
        self._session = session
        self._tree = tree
        self._name = name
        self._file: Opened | None = None
        self._number = 0
        self._generation = 0
        self._ahead: deque[_Piece] = deque()
        self._position = self._asked = 0

    def chunks(self, offset: int) -> Iterator[bytes]:
        """All from an offset on.

        Raises:
            SmbError, StorageError: it cannot be read to its end.
        """
        self._position = self._asked = offset
        size = self._session.persist(self._current).size
        if offset > size:
            raise ended_early(self._name, offset)
        while self._position < size:
            data = self._session.persist(self._next)
            self._position += len(data)
            yield data
        self._session.persist(self._close)

    def _current(self) -> Opened:
        """The open file; opened again when the connection is another one."""
        if self._file is None or self._generation != self._session.generation:
            file, number = self._open()
            if self._file and (number, file.size) != (self._number, self._file.size):
                raise is_missing(self._name)  # It was replaced, which only others do.
            self._file, self._number = file, number
            self._generation = self._session.generation
            self._ahead.clear()
            self._asked = self._position
        return self._file

    def _open(self) -> tuple[Opened, int]:
        path = self._tree.path(self._name)
        try:
            file = self._session.call(smb.open_file(path, _ACCESS, Disposition.OPEN, _OPTIONS))
        except SmbError as error:
            if error.status in MISSING:
                raise is_missing(self._name) from None
            raise
        return file, self._session.call(smb.get_number(file.file_id))

    def _next(self) -> bytes:
        """The bytes from our position on, as many as there came."""
        file = self._current()
        block = min(self._session.link.limits.read, CHUNK)
        while self._asked < file.size and self._asked - self._position < _AHEAD_BYTES:
            size = min(block, file.size - self._asked)
            call = self._session.submit(smb.read(file.file_id, self._asked, size))
            self._ahead.append(_Piece(size, call))
            self._asked += size
        piece = self._ahead.popleft()
        try:
            data = self._session.result(piece.call)
        except SmbError as error:
            if error.status == Status.END_OF_FILE:
                raise ended_early(self._name, file.size) from None
            raise
        if not 0 < len(data) <= piece.size:
            raise Malformed("not as much was sent as was asked for")
        if len(data) < piece.size:  # Ask for the rest, and for what follows it.
            self._ahead.clear()
            self._asked = self._position + len(data)
        return data

    def _close(self) -> None:
        if self._file and self._generation == self._session.generation:
            self._session.call(smb.close(self._file.file_id))
