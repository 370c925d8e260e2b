"""The bytes of an upload that an SMB server has not yet promised to keep.

A WRITE that is answered may still be lost when the server crashes; only a FLUSH makes it last. So
each piece stays here until a FLUSH has answered that was sent after its WRITE had answered, and is
sent again when the connection breaks before. FLUSHes go out all the time, beside the WRITEs: the
window stays small, and the server's disk busy.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipeline.stage import CHUNK
from stages.storages._smb import calls as smb
from stages.storages._smb.session import Session
from stages.storages._smb.target import Target
from stages.storages._smb.types import Call, SmbError, Status
from stages.storages._tcp import Buffer

HELD_BYTES = 32 << 20
"""Bytes that were sent, and are not known to be on the server's disk, at most."""
IN_FLIGHT_BYTES = 16 << 20
"""Bytes of WRITEs that were not answered, at most."""
MAX_BLOCK = CHUNK
"""Bytes of a WRITE, at most."""
_IN_FLIGHT = 64
"""WRITEs that were not answered, at most."""
_WORTH_SENDING = 256 << 10
"""Smaller chunks are joined first."""
_FLUSH_BYTES = 8 << 20
"""So many answered bytes are worth a FLUSH."""


@dataclass(eq=False)
class _Piece:
    offset: int
    data: Buffer
    call: Call[int] | None = None


@dataclass(frozen=True)
class _Flush:
    call: Call[None]
    pieces: list[_Piece]


class Window:
    """Writes a file from its beginning to its end.

    Args:
        session: used for all requests.
        target: the file, over that session; it is empty.
    """

    def __init__(self, session: Session, target: Target) -> None:
        self._session = session
        self._target = target
        self._generation = session.generation
        self.size = 0
        """Bytes so far, without those that wait to be joined with more."""
        self._tail = bytearray()
        self._todo: deque[_Piece] = deque()
        self._flying: deque[_Piece] = deque()
        self._flying_bytes = 0
        self._written: list[_Piece] = []
        self._written_bytes = 0
        self._flush: _Flush | None = None
        self._held_bytes = 0
        self._kept = 0
        """Bytes from the beginning that are on the server's disk."""
        self._answered = 0
        """Where the farthest WRITE ends that was ever answered."""

    def add(self, chunk: bytes) -> None:
        """Take a chunk; waits while too much is under way.

        Raises:
            SmbError, StorageError: it cannot be stored.
        """
        if self._tail or len(chunk) < _WORTH_SENDING:
            self._tail += chunk
            if len(self._tail) >= MAX_BLOCK:
                self._send_tail()
        else:
            self._send(chunk)

    def drain(self) -> None:
        """Wait until everything is on the server's disk; raises like `add`."""
        self._send_tail()
        while self._todo or self._held_bytes:
            self._session.persist(self._advance, is_progress=False)

    def _send_tail(self) -> None:
        tail, self._tail = self._tail, bytearray()
        self._send(tail)

    def _send(self, data: Buffer) -> None:
        view, block = memoryview(data), min(self._session.link.limits.write, MAX_BLOCK)
        for at in range(0, len(view), block):
            piece = _Piece(self.size, view[at : at + block])
            self._todo.append(piece)
            self.size += len(piece.data)
            while self._todo:
                self._session.persist(self._advance, is_progress=False)

    def _advance(self) -> None:
        """Send a piece, or wait for an answer."""
        if self._generation != self._session.generation:
            self._resume()
        if self._todo and self._has_room(len(self._todo[0].data)):
            self._submit(self._todo[0])
        elif self._flying:
            self._settle()
        elif self._flush:
            self._finish_flush(self._flush)
        else:
            self._start_flush()

    def _has_room(self, size: int) -> bool:
        return (
            len(self._flying) < _IN_FLIGHT
            and self._flying_bytes + size <= IN_FLIGHT_BYTES
            and self._held_bytes + size <= HELD_BYTES
        )

    def _resume(self) -> None:
        """Send again over another connection what no FLUSH has confirmed."""
        self._target.open_again(self._kept)
        confirming = self._flush.pieces if self._flush else []
        again = [*confirming, *self._written, *self._flying, *self._todo]
        self._todo = deque(sorted(again, key=lambda piece: piece.offset))
        self._flying.clear()
        self._written, self._flush = [], None
        self._flying_bytes = self._written_bytes = self._held_bytes = 0
        self._generation = self._session.generation

    def _submit(self, piece: _Piece) -> None:
        call = smb.write(self._target.file_id, piece.offset, piece.data)
        piece.call = self._session.submit(call)
        self._flying.append(self._todo.popleft())
        self._flying_bytes += len(piece.data)
        self._held_bytes += len(piece.data)

    def _settle(self) -> None:
        """Take the answer to the oldest WRITE."""
        piece = self._flying[0]
        assert piece.call
        count = self._session.result(piece.call)
        self._flying.popleft()
        self._flying_bytes -= len(piece.data)
        if count < len(piece.data):
            self._split(piece, count)
        self._written.append(piece)
        self._written_bytes += len(piece.data)
        self._note_progress(piece.offset + len(piece.data))
        if self._flush and self._flush.call.is_done:
            self._finish_flush(self._flush)
        if self._written_bytes >= _FLUSH_BYTES and not self._flush:
            self._start_flush()

    def _split(self, piece: _Piece, count: int) -> None:
        """Send again what the server did not take of a piece."""
        if not count:
            raise SmbError(Status.DISK_FULL)  # Who takes nothing and gives no reason never will.
        self._held_bytes -= len(piece.data) - count
        self._todo.appendleft(_Piece(piece.offset + count, piece.data[count:]))
        piece.data = piece.data[:count]

    def _start_flush(self) -> None:
        """Have those WRITEs last that were answered: a FLUSH says nothing about others."""
        call = self._session.submit(smb.flush(self._target.file_id))
        self._flush = _Flush(call, self._written)
        self._written, self._written_bytes = [], 0

    def _finish_flush(self, flush: _Flush) -> None:
        self._session.result(flush.call)
        self._flush = None
        self._held_bytes -= sum(len(piece.data) for piece in flush.pieces)
        self._kept = min(
            (piece.offset for piece in (*self._written, *self._flying, *self._todo)),
            default=self.size,
        )
        self._session.progressed()

    def _note_progress(self, answered: int) -> None:
        """What was answered once, and is sent again, is none."""
        if answered > self._answered:
            self._answered = answered
            self._session.progressed()
