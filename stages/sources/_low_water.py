"""Receives much at a time from servers that send in small pieces.

Databases send their rows and files in pieces of 8 or 16 KiB. To be woken for each of them costs
both sides more than what is done with it, so the kernel is asked to wake us only when there is more
(SO_RCVLOWAT, see socket(7); it makes the receive buffer large enough), and we look by ourselves
after a moment, since nobody knows where the data ends. Where the kernel has no such mark, as for
Unix sockets, it all comes piece by piece.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_MUCH = 256 << 10
_MOMENT = 2
"""Milliseconds that less waits for more."""


class LowWater:
    """The mark of one socket, until `end`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._wake_at(_MUCH)

    def receive_into(self, buffer: memoryview) -> int:
        """Receive what is there, at least a byte: how many; none at the end.

        For a socket that has a timeout, and no TLS.

        Raises:
            TimeoutError: nothing came within the timeout of the socket.
            OSError: the connection is lost.
        """
        self.wait()
        try:
            return os.readv(self._sock.fileno(), [buffer])
        except BlockingIOError:
            with self.lowered():
                return self._sock.recv_into(buffer)

    def wait(self) -> bool:
        """Wait a moment for much to come, or for the end; whether it did."""
        return bool(self._poll.poll(_MOMENT))

    @contextmanager
    def lowered(self) -> Iterator[None]:
        """Have any wait for the socket end with the first byte."""
        self._wake_at(1)
        yield
        self._wake_at(_MUCH)

    def end(self) -> None:
        """The same, from now on."""
        self._wake_at(1)

    def _wake_at(self, size: int) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
