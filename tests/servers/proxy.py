"""What lies between a client and its server: it can freeze, cut and slow down connections."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from tests.servers.base import HOST

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_BLOCK = 64 << 10
BUFFER = 256 << 10
"""Bytes that each socket of a proxy holds at most, for each direction."""


@dataclass(frozen=True)
class Route:
    """Connections to a port (0: a free one) of an address lead to a port of `HOST`."""

    address: str
    port: int
    target: int


class Proxy:
    """Forwards TCP connections on loopback.

    Args:
        target: the server's port; it is reached through `port`.
        rate: bytes per second that each connection may carry to the server; None is no limit. May
            be changed at any time.
    """

    def __init__(self, target: int, rate: int | None = None) -> None:
        self.sent = 0
        """Bytes that went from clients to the server so far."""
        self.rate = rate
        self._changed = threading.Condition()
        self._frozen = False
        self._mute = False
        self._links: dict[socket.socket, Route] = {}
        self._threads: list[threading.Thread] = []
        self._selector = selectors.DefaultSelector()
        self._wake, waker = socket.socketpair()
        self._selector.register(waker, selectors.EVENT_READ)
        self.port, *_ = [self._listen(route) for route in self.routes(target)]
        self._start(self._accept)

    def routes(self, target: int) -> Sequence[Route]:
        """Where connections come from and go to; the first one's port becomes `port`."""
        return [Route(HOST, 0, target)]

    def count(self, route: Route, block: bytes) -> None:
        """Take note of what goes to the server."""
        del route
        self.sent += len(block)

    def _listen(self, route: Route) -> int:
        listener = socket.create_server((route.address, route.port))
        _limit_buffers(listener)  # Connections inherit it.
        self._selector.register(listener, selectors.EVENT_READ, route)
        port: int = listener.getsockname()[1]
        return port

    def _start(self, function: object, *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            for key, _ in self._selector.select():
                listener: socket.socket = key.fileobj  # type: ignore[assignment]
                if key.data is None:
                    return  # Closed.
                client, _ = listener.accept()
                self._forward(client, key.data)

    def _forward(self, client: socket.socket, route: Route) -> None:
        server = socket.socket()
        _limit_buffers(server)
        try:
            server.connect((HOST, route.target))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # Nobody there: the client learns it.
            client.close()
            server.close()
            return
        with self._changed:
            self._links |= {client: route, server: route}
        self._start(self._pump, client, server, route, True)
        self._start(self._pump, server, client, route, False)

    def _pump(
        self, source: socket.socket, sink: socket.socket, route: Route, upwards: bool
    ) -> None:
        try:
            while block := source.recv(_BLOCK):
                self._pass_on(block, route, sink, upwards)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # One end is gone: the other one learns it, as without us.
            reset([source, sink])

    def _pass_on(self, block: bytes, route: Route, sink: socket.socket, upwards: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_held(upwards))
            if upwards:
                self.count(route, block)
            self._changed.notify_all()
        if self.rate and upwards:
            time.sleep(len(block) / self.rate)
        sink.sendall(block)

    def _is_held(self, upwards: bool) -> bool:
        return self._frozen or (self._mute and not upwards)

    def wait_sent(self, size: int) -> None:
        """Wait until so many bytes went to the server."""
        with self._changed:
            self._changed.wait_for(lambda: self.sent >= size)

    def freeze(self) -> None:
        """Forward nothing more; connections stay open."""
        with self._changed:
            self._frozen = True

    def mute(self) -> None:
        """Forward nothing more to the clients; what they send still arrives."""
        with self._changed:
            self._mute = True

    def thaw(self) -> None:
        with self._changed:
            self._frozen = self._mute = False
            self._changed.notify_all()

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        with self._changed:
            links, self._links = self._links, {}
        reset(list(links))

    def close(self) -> None:
        self._wake.close()
        self._threads[0].join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self.thaw()
        self.cut()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _limit_buffers(sock: socket.socket) -> None:
    """Hold no more than a network would: what a proxy has taken, the sender believes arrived."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)


def reset(sockets: Sequence[socket.socket]) -> None:
    """Close connections so that both ends see them break."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            one.shutdown(socket.SHUT_RDWR)  # Wakes the threads that use it.
        one.close()
