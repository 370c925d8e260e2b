"""What lies between an FTP client and its server: it can freeze, cut and slow connections down.

Data connections have ports of their own, which the server names in its replies, perhaps encrypted.
So every port is forwarded from the same port of another loopback address; clients that believe the
address in the reply would pass by.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable
from types import TracebackType

from tests.servers.base import HOST
from tests.servers.ftp import FAR_HOST

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_BLOCK = 64 << 10
_BUFFER = 1 << 20


def _limit_buffers(sock: socket.socket) -> None:
    """Hold no more than a network would: what a proxy has taken, the sender believes arrived."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)


class FtpProxy:
    """Listens on some ports of `FAR_HOST` and forwards to the same ports of `HOST`.

    Args:
        ports: the server's control port first, then those for data connections.
        rate: bytes per second that each connection may carry to the server; None is no limit.
    """

    def __init__(self, ports: Iterable[int], rate: int | None = None) -> None:
        self.sent = 0
        """Bytes that went over data connections to the server so far."""
        self.commands = bytearray()
        """What went over control connections to the server so far."""
        self._rate = rate
        self._changed = threading.Condition()
        self._frozen = False
        self._mute = False
        self._links: dict[socket.socket, int] = {}
        self._threads: list[threading.Thread] = []
        self._selector = selectors.DefaultSelector()
        self._wake, waker = socket.socketpair()
        self._selector.register(waker, selectors.EVENT_READ)
        for port in ports:
            listener = socket.create_server((FAR_HOST, port))
            _limit_buffers(listener)
            self._selector.register(listener, selectors.EVENT_READ, port)
        self.port = next(iter(ports))
        self._start(self._accept)

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
                with contextlib.suppress(OSError):
                    self._forward(client, key.data)

    def _forward(self, client: socket.socket, port: int) -> None:
        server = socket.socket()
        _limit_buffers(server)
        try:
            server.connect((HOST, port))
        except OSError:
            client.close()
            server.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            self._links |= {client: port, server: port}
        self._start(self._pump, client, server, port, True)
        self._start(self._pump, server, client, port, False)

    def _pump(self, source: socket.socket, sink: socket.socket, port: int, upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK):
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_held(upwards))
                    if upwards and port == self.port:
                        self.commands += block
                    elif upwards:
                        self.sent += len(block)
                    self._changed.notify_all()
                if self._rate and upwards:
                    time.sleep(len(block) / self._rate)
                sink.sendall(block)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _is_held(self, upwards: bool) -> bool:
        return self._frozen or (self._mute and not upwards)

    def wait_sent(self, size: int) -> None:
        """Wait until so many bytes of data went to the server."""
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

    def cut(self, control: bool = True, data: bool = True) -> None:
        """Reset connections; new ones are accepted."""
        with self._changed:
            chosen = [
                one for one, port in self._links.items() if (control, data)[port != self.port]
            ]
            for one in chosen:
                del self._links[one]
        for one in chosen:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                one.shutdown(socket.SHUT_RDWR)  # Wakes the threads that use it.
            one.close()

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

    def __enter__(self) -> FtpProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
