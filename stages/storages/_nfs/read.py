"""Reading a file from an NFS server, some blocks ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from stages.storages._names import ended_early, is_missing
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.client import Client
from stages.storages._nfs.errors import GONE
from stages.storages._nfs.session import Session
from stages.storages._nfs.tree import Node, Tree
from stages.storages._nfs.types import Call, NfsError
from stages.storages._nfs.xdr import Malformed

_AHEAD = 8
"""Blocks that are asked for before they are wanted."""


@dataclass(frozen=True)
class _Piece:
    offset: int
    size: int
    handle: bytes
    call: Call[tuple[bytes, bool]]


class Reader:
    """Reads an object once.

    Args:
        client: knows the export.
        session: used for all calls.
        tree: where the object is, over that session.
        name: of the object.
    """

    def __init__(self, client: Client, session: Session, tree: Tree, name: str) -> None:
        self._session = session
        self._tree = tree
        self._name = name
        self._block = client.export(session).limits.read
        self._file = tree.identify(self._find())
        self._ahead: deque[_Piece] = deque()

    def _find(self) -> Node:
        node = self._tree.locate(self._name)
        if node is None:
            raise is_missing(self._name)
        return node

    def chunks(self, offset: int) -> Iterator[bytes]:
        """All from an offset on.

        Raises:
            NfsError, StorageError: it cannot be read to its end.
        """
        size = self._file.node.attributes.size
        if offset > size:
            raise ended_early(self._name, offset)
        while offset < size or self._ahead:
            while offset < size and len(self._ahead) < _AHEAD:
                piece = self._ask(offset, min(self._block, size - offset))
                self._ahead.append(piece)
                offset += piece.size
            data = self._take(self._ahead.popleft())
            if data:
                yield data

    def _ask(self, offset: int, size: int) -> _Piece:
        handle = self._file.node.handle
        return _Piece(offset, size, handle, self._session.submit(nfs.read(handle, offset, size)))

    def _take(self, piece: _Piece) -> bytes:
        """What has arrived of a piece; the rest of it is asked for as the next one."""
        try:
            data, is_end = self._session.result(piece.call)
        except NfsError as error:
            self._find_again(piece, error)
            data, is_end = b"", False
        else:
            if len(data) > piece.size:
                raise Malformed("more was sent than asked for")
            if len(data) < piece.size and (is_end or not data):
                raise ended_early(self._name, self._file.node.attributes.size)
        if len(data) < piece.size:
            self._ahead.appendleft(self._ask(piece.offset + len(data), piece.size - len(data)))
        return data

    def _find_again(self, piece: _Piece, error: NfsError) -> None:
        """Go on with another handle of the same file, or raise."""
        if error.status not in GONE:
            raise error
        if piece.handle == self._file.node.handle:
            same = self._tree.is_same(self._file, self._find())
            if not same or piece.handle == self._file.node.handle:
                raise error
