"""One HTTP/1.1 connection: idle timeouts, bodies that stream, and an end to it from any thread."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11

from pipeline.stage import CHUNK
from stages.storages._sockets import (
    Breaker,
    connect,
    idle_timeout,
    keep_alive,
    readable,
    receive,
    start_tls,
    unacknowledged,
)
from stages.storages._webdav.errors import Unreachable
from stages.storages._webdav.names import Address

Headers = Sequence[tuple[str, str]]
_PIECE = 64 << 10
_DIRECT = 256 << 10
"""Bodies longer than this are read past the protocol library, at the cost of the connection."""
_LATE_SECONDS = 1.0
"""How long the reason may take that a server gives after it has closed its ears."""


@dataclass(frozen=True)
class Head:
    """The beginning of an answer."""

    status: int
    headers: Headers
    """Names in lower case."""

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def length(self) -> int | None:
        """Bytes of the body; None when that is told in another way."""
        text = self.get("content-length")
        chunked = self.get("transfer-encoding") is not None
        return int(text) if text is not None and not chunked else None


class Wire:
    """A connection; used by one thread at a time, and broken by any."""

    def __init__(self, address: Address, connect_timeout: float, idle: float) -> None:
        self.address = address
        self.breaker = Breaker()
        self.used = False
        """Whether it has carried a request before: the server may have closed it meanwhile."""
        self._connect_timeout = connect_timeout
        self._idle = idle
        self._http = h11.Connection(h11.CLIENT)
        self._sock: socket.socket | None = None

    def connect(self, context: ssl.SSLContext | None) -> None:
        """Connect, with TLS when there is a context.

        Raises:
            Unreachable: nobody answers.
            OSError: there is no trust, or no common ground.
        """
        host, port = self.address.host, self.address.port
        try:
            sock = connect(host, port, self._connect_timeout, self.breaker)
        except OSError as error:
            raise Unreachable(error.strerror or str(error)) from error
        if context is not None:
            sock = start_tls(sock, context, host, self.breaker)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(sock)
        idle_timeout(sock, self._idle)
        self._sock = sock

    @property
    def sock(self) -> socket.socket:
        if self._sock is None or self.breaker.tripped:
            raise ConnectionAbortedError("the connection was closed")
        return self._sock

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        if self._sock is None or self.breaker.tripped or readable(self._sock):
            return False  # What comes unasked is the end.
        return {self._http.our_state, self._http.their_state} <= {h11.IDLE, h11.DONE}

    def close(self) -> None:
        self.breaker.close_all()

    # Sending

    def ask(self, method: str, target: str, headers: Headers, body: bytes | None = b"") -> None:
        """Send a request.

        Args:
            method: such as PUT.
            target: path, percent-encoded.
            headers: beside `Host` and those that go with the body.
            body: None when it follows with `send_body` and `end_body`.
        """
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
            self.used = True
        size = [] if body is None else [("content-length", str(len(body)))]
        named = [("host", self.address.authority), *headers, *size]
        every = [
            (name.encode(), value.encode()) for name, value in named
        ]  # A user may be any text.
        data = self._http.send(h11.Request(method=method, target=target, headers=every)) or b""
        if body is not None:
            data += self._http.send(h11.Data(data=body)) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
        self._send([data])

    def send_body(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send some of a body as one piece of a chunked one."""
        views = [memoryview(piece) for piece in pieces if piece]
        size = sum(len(view) for view in views)
        if size:
            self._send([b"%x\r\n" % size, *views, b"\r\n"])

    def end_body(self) -> None:
        self._send([self._http.send(h11.EndOfMessage()) or b""])

    def _send(self, pieces: Iterable[bytes | memoryview]) -> None:
        sock, left = self.sock, [memoryview(piece) for piece in pieces]
        while left:
            sent = self._send_some(sock, left)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if left:
                left[0] = left[0][sent:]

    def _send_some(self, sock: socket.socket, views: list[memoryview]) -> int:
        # The system takes more only when a good part of what it holds is gone: on a slow network
        # that may take its time, while data moves all along.
        waiting = unacknowledged(sock)
        while True:
            try:
                return sock.send(views[0]) if _has_tls(sock) else sock.sendmsg(views)
            except (BlockingIOError, TimeoutError):
                before, waiting = waiting, unacknowledged(sock)
                if waiting >= before:
                    raise TimeoutError("it took no data any more") from None

    # Receiving

    def head(self) -> Head:
        """Wait for an answer, passing over interim ones.

        Raises:
            TimeoutError: nothing comes.
            OSError: the connection is lost.
        """
        while True:
            event = self._event()
            if isinstance(event, h11.Response):
                return _head(event)

    def go_ahead(self, seconds: float) -> Head | None:
        """Wait for leave to send a body; servers that know no `Expect` say nothing.

        Returns:
            An answer when it is final already.
        """
        event = self._next_within(seconds)
        return _head(event) if isinstance(event, h11.Response) else None

    def early_answer(self) -> Head | None:
        """An answer that came while the body is still being sent: the server wants no more."""
        while readable(self.sock):
            found = self._next_within(0)
            if found is None:
                return None  # Bytes that TLS has for itself.
            if isinstance(found, h11.Response):
                return _head(found)
        return None

    def last_words(self) -> Head | None:
        """After a `send` that failed: the answer that may have come before the end."""
        with suppress(OSError, h11.ProtocolError):
            found = self._next_within(_LATE_SECONDS)
            return _head(found) if isinstance(found, h11.Response) else None
        return None

    def has_answer(self, seconds: float) -> bool:
        """Whether anything comes within so many seconds."""
        return readable(self.sock, seconds)

    def _next_within(self, seconds: float) -> _Event:
        self.sock.settimeout(seconds)
        try:
            return self._event()
        except (BlockingIOError, ssl.SSLWantReadError, TimeoutError):
            return None
        finally:
            self._restore_timeout()

    def _restore_timeout(self) -> None:
        if self._sock is not None and not self.breaker.tripped:
            idle_timeout(self._sock, self._idle)

    def _event(self) -> _Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                data = self.sock.recv(_PIECE)
            except BlockingIOError:
                raise TimeoutError("it did not answer") from None
            self._take(data)
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("it closed the connection")
        return event

    def _take(self, data: bytes) -> None:
        until_the_end = self._http.their_state is h11.SEND_BODY  # A body may end with it.
        if not data and not until_the_end:
            raise ConnectionResetError("it closed the connection")
        self._http.receive_data(data)

    def body(self, head: Head) -> Iterator[bytes]:
        """The body of an answer, in pieces of `CHUNK` at most.

        Raises:
            OSError: it did not come to its end.
        """
        length = head.length
        if length is not None and length > _DIRECT:
            yield from self._direct(length)
            return
        try:
            while isinstance(event := self._event(), h11.Data):
                yield bytes(event.data)
        except h11.RemoteProtocolError:
            raise ConnectionResetError("it closed the connection") from None

    def _direct(self, left: int) -> Iterator[bytes]:
        """Read with few copies; the connection is of no use after that."""
        while isinstance(event := self._http.next_event(), h11.Data):
            left -= len(event.data)
            yield bytes(event.data)
        buffer = memoryview(bytearray(CHUNK))
        sock = self.sock
        while left:
            data = receive(sock, buffer[: min(left, CHUNK)])
            if not data:
                raise ConnectionResetError("it closed the connection")
            left -= len(data)
            yield data
        self.close()


_Event = Any
"""One of the events of h11; its own union names even those that are filtered out here."""


def _head(response: h11.Response) -> Head:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
    return Head(response.status_code, pairs)


def _has_tls(sock: socket.socket) -> bool:
    return isinstance(sock, ssl.SSLSocket)
