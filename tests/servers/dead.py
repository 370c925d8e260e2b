"""Servers on loopback that are there and of no use: they refuse, swallow, hang or talk nonsense."""

from __future__ import annotations

import errno
import socket
import threading
from types import TracebackType
from typing import Literal

from tests.servers.base import HOST, free_port

Manner = Literal["refuses", "swallows", "hangs", "garbles"]
MANNERS: tuple[Manner, ...] = ("refuses", "swallows", "hangs", "garbles")


class DeadServer:
    """Runs while the `with` block does, at `port`.

    `refuses`: nobody listens. `swallows`: packets that would connect get no answer, as behind a
    firewall. `hangs`: takes everything and never says a word. `garbles`: says what no protocol has.
    """

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._sockets: list[socket.socket] = []
        self._stopping = False
        self.port = free_port()

    def __enter__(self) -> DeadServer:
        if self._manner == "refuses":
            return self
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((HOST, self.port))
        self._sockets.append(server)
        if self._manner == "swallows":
            server.listen(0)
            self._fill()
        else:
            server.listen(128)
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        return self

    def _fill(self) -> None:
        """The kernel drops what asks for a connection while nobody accepts the earlier ones."""
        for _ in range(100):
            client = socket.socket()
            self._sockets.append(client)
            client.settimeout(0.2)
            if client.connect_ex((HOST, self.port)) in (errno.EAGAIN, errno.EINPROGRESS):
                return
        raise AssertionError("the queue of a socket that listens does not get full")

    def _accept(self, server: socket.socket) -> None:
        while not self._stopping:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            self._sockets.append(connection)
            if self._manner == "garbles":
                threading.Thread(target=self._garble, args=(connection,), daemon=True).start()

    def _garble(self, connection: socket.socket) -> None:
        try:
            connection.sendall(b"\x16\x03SSH-2.0-neither\r\n\r\n\xff\x00" * 20)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        except OSError:
            pass  # they have left already

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)  # closing alone would not wake a thread in accept
            except OSError:
                pass
            one.close()
