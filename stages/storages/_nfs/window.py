"""The bytes of an upload that an NFS server has not yet promised to keep.

A WRITE that is answered may still be lost when the server crashes; only a COMMIT makes it last. All
of these answers carry a verifier that is another one after each start of the server (RFC 1813,
3.3.21). So each piece stays here until a COMMIT has answered with the verifier of its WRITE, and is
sent again when it answers with another one. COMMITs go out all the time, beside the WRITEs: the
window stays small, and the server's disk busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from stages.storages._nfs import calls as nfs
from stages.storages._nfs.errors import GONE
from stages.storages._nfs.session import Session
from stages.storages._nfs.types import Call, NfsError, Status, Written
from stages.storages._nfs.xdr import Buffer

HELD_BYTES = 32 << 20
"""Bytes that are not known to be on the server's disk, at most."""
IN_FLIGHT_BYTES = 16 << 20
"""Bytes of WRITEs that were not answered, at most."""
_IN_FLIGHT = 32
"""WRITEs that were not answered, at most."""
_COMMIT_BYTES = 8 << 20
"""So many answered bytes are worth a COMMIT."""
_MAX_COMMIT = (1 << 32) - 1
_MAX_LOSSES = 5
"""COMMITs that confirm nothing, one after the other, until each WRITE has to reach the disk."""


@dataclass(eq=False)
class _Piece:
    offset: int
    data: Buffer
    handle: bytes
    call: Call[Written]
    verifier: bytes = b""


@dataclass(frozen=True)
class _Commit:
    pieces: list[_Piece]
    handle: bytes
    call: Call[bytes]


class Window:
    """Writes a file from its beginning to its end, in blocks.

    Args:
        session: used for all calls.
        handle: of the file, which is empty.
        block: bytes of a WRITE.
        find_again: gives the handle of the file when the server does not know the old one.
    """

    def __init__(
        self, session: Session, handle: bytes, block: int, find_again: Callable[[], bytes]
    ) -> None:
        self._session = session
        self._handle = handle
        self._block = block
        self._find_again = find_again
        self.size = 0
        """Bytes so far, without those that do not fill a block yet."""
        self._tail = bytearray()
        self._flying: deque[_Piece] = deque()
        self._flying_bytes = 0
        self._written: list[_Piece] = []
        self._written_bytes = 0
        self._held_bytes = 0
        self._commit: _Commit | None = None
        self._stability = nfs.UNSTABLE
        self._losses = 0

    def add(self, chunk: bytes) -> None:
        """Take a chunk; waits while too much is under way.

        Raises:
            NfsError, StorageError: it cannot be stored.
        """
        view = memoryview(chunk)
        if self._tail:
            missing = self._block - len(self._tail)
            self._tail += view[:missing]
            view = view[missing:]
            if len(self._tail) < self._block:
                return
            self._send_tail()
        whole = len(view) - len(view) % self._block
        for at in range(0, whole, self._block):
            self._send(view[at : at + self._block])
        self._tail += view[whole:]

    def drain(self) -> None:
        """Wait until everything is on the server's disk; raises like `add`."""
        if self._tail:
            self._send_tail()
        while self._held_bytes:
            self._advance()

    def _send_tail(self) -> None:
        tail, self._tail = self._tail, bytearray()
        self._send(tail)

    def _send(self, data: Buffer) -> None:
        while self._held_bytes and not self._has_room(len(data)):
            self._advance()
        self._submit(self.size, data)
        self.size += len(data)
        self._held_bytes += len(data)

    def _advance(self) -> None:
        """Wait for an answer."""
        if self._flying:
            self._settle()
        elif self._commit:
            self._finish_commit(self._commit)
        else:
            self._start_commit()

    def _has_room(self, size: int) -> bool:
        return (
            len(self._flying) < _IN_FLIGHT
            and self._flying_bytes + size <= IN_FLIGHT_BYTES
            and self._held_bytes + size <= HELD_BYTES
        )

    def _submit(self, offset: int, data: Buffer) -> None:
        call = nfs.write(self._handle, offset, data, self._stability)
        self._flying.append(_Piece(offset, data, self._handle, self._session.submit(call)))
        self._flying_bytes += len(data)

    def _settle(self) -> None:
        """Take the answer to the oldest WRITE."""
        piece = self._flying.popleft()
        self._flying_bytes -= len(piece.data)
        try:
            written = self._session.result(piece.call)
        except NfsError as error:
            self._replace_handle(piece.handle, error)
            self._submit(piece.offset, piece.data)
            return
        if written.count < len(piece.data):
            self._split(piece, written.count)
        if written.is_stable:
            self._held_bytes -= len(piece.data)
        else:
            piece.verifier = written.verifier
            self._written.append(piece)
            self._written_bytes += len(piece.data)
        self._commit_now_and_then()

    def _split(self, piece: _Piece, count: int) -> None:
        """Send again what the server did not take of a piece."""
        if not count:
            raise NfsError(Status.IO)  # Who takes nothing and gives no reason never will.
        self._submit(piece.offset + count, piece.data[count:])
        piece.data = piece.data[:count]

    def _replace_handle(self, handle: bytes, error: NfsError) -> None:
        """Go on with another handle, or raise the error that using this one brought."""
        if error.status not in GONE:
            raise error
        if handle == self._handle:
            self._handle = self._find_again()
            if handle == self._handle:
                raise error

    def _commit_now_and_then(self) -> None:
        if self._commit and self._commit.call.is_done:
            self._finish_commit(self._commit)
        if self._written_bytes >= _COMMIT_BYTES and not self._commit:
            self._start_commit()

    def _start_commit(self) -> None:
        """Have those WRITEs last that were answered: a COMMIT says nothing about others."""
        pieces, self._written, self._written_bytes = self._written, [], 0
        start = min(piece.offset for piece in pieces)
        end = max(piece.offset + len(piece.data) for piece in pieces)
        size = end - start if end - start <= _MAX_COMMIT else 0  # To the end of the file.
        call = self._session.submit(nfs.commit(self._handle, start, size))
        self._commit = _Commit(pieces, self._handle, call)

    def _finish_commit(self, commit: _Commit) -> None:
        self._commit = None
        try:
            verifier = self._session.result(commit.call)
        except NfsError as error:
            self._replace_handle(commit.handle, error)
            verifier = b""  # Confirms nothing.
        lost = [piece for piece in commit.pieces if piece.verifier != verifier]
        self._held_bytes -= sum(len(piece.data) for piece in commit.pieces)
        self._held_bytes += sum(len(piece.data) for piece in lost)
        for piece in lost:
            self._submit(piece.offset, piece.data)
        self._losses = self._losses + 1 if len(lost) == len(commit.pieces) else 0
        if self._losses >= _MAX_LOSSES:
            # A cluster may answer with another verifier each time.
            self._stability = nfs.FILE_SYNC
