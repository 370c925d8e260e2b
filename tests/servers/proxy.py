"""A TCP proxy that can freeze or cut the connections that run through it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

from tests.servers.base import HOST

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_BLOCK = 64 << 10


class Proxy:
    """Listens on `port` and forwards every connection to `target` on loopback."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.sent = 0
        """Bytes that went from clients to the server so far."""
        self._changed = threading.Condition()
        self._frozen = False
        self._mute = False
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, function: object, *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # Closed.
            server = socket.create_connection((HOST, self.target))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._sockets |= {client, server}
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK):
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_held(upwards))
                    self.sent += len(block) * upwards
                    self._changed.notify_all()
                sink.sendall(block)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

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
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                one.shutdown(socket.SHUT_RDWR)  # Wakes the threads that use it.
            one.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
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
