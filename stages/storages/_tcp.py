"""TCP connections that notice when nothing moves, and that any thread can wake."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Buffer = bytes | bytearray | memoryview

_READ_AHEAD = 4096
_LOOKS = 8
"""How often a wait looks whether anything moves, until it gives up."""
_ANY_PORT = 0
_NOT_THIS_PORT = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
_NO_LINGER = struct.pack("ii", 1, 0)
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    # Closing drops what is still queued, and frees the port at once.
    (socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER),
)


class Interrupt:
    """Ends what one thread waits for, on its sockets or asleep, from any other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._make_error: Callable[[], Exception] | None = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def watch(self, one: socket.socket) -> None:
        """Name a socket that the thread will wait for; raises like `check`."""
        with self._lock:
            self._sockets.add(one)
        self.check()

    def check(self) -> None:
        """Raise what `end` was given, if it was called."""
        if self._make_error:
            raise self._make_error()

    def sleep(self, seconds: float) -> None:
        """Sleep; raises like `check`, at once."""
        self._ended.wait(seconds)
        self.check()

    def end(self, make_error: Callable[[], Exception]) -> None:
        """Have every wait, now and later, end with an error; the first call counts."""
        with self._lock:
            self._make_error = self._make_error or make_error
            self._ended.set()
            for one in self._sockets:
                # Not closed: the thread may be about to use the descriptor's number.
                with suppress(OSError):  # Not connected, or not any more.
                    one.shutdown(socket.SHUT_RDWR)


class Stream:
    """A connection as a stream of bytes in both directions, for one thread.

    Args:
        connected: a non-blocking socket, which belongs to the stream from now on.
        patience: seconds without a byte in either direction, after which it is taken for dead.
    """

    def __init__(self, connected: socket.socket, patience: float) -> None:
        self._socket = connected
        self._patience = patience
        self._buffer = bytearray(64 << 10)
        self._start = self._end = 0

    def send(self, parts: list[Buffer]) -> None:
        """Send bytes, without joining them first.

        Raises:
            OSError: the connection is lost.
        """
        while parts:
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                self._wait(select.POLLOUT)
            else:
                parts = _rest(parts, sent)

    def take(self, size: int) -> memoryview:
        """The next `size` bytes; valid until the next call.

        Raises:
            OSError: the connection is lost.
        """
        if self._end - self._start < size:
            self._fill(size)
        view = memoryview(self._buffer)[self._start : self._start + size]
        self._start += size
        return view

    def _fill(self, size: int) -> None:
        # Not much beyond what is asked for: what is read too early has to be moved later.
        limit = max(size, _READ_AHEAD)
        if self._start + limit > len(self._buffer):
            rest = self._buffer[self._start : self._end]
            if limit > len(self._buffer):
                self._buffer = bytearray(limit)
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        space = memoryview(self._buffer)[: self._start + limit]
        while self._end - self._start < size:
            self._end += self._receive_into(space[self._end :])

    def _receive_into(self, space: memoryview) -> int:
        while True:
            try:
                received = self._socket.recv_into(space)
            except BlockingIOError:
                self._wait(select.POLLIN)
                continue
            if not received:
                raise ConnectionResetError(errno.ECONNRESET, "connection closed by the server")
            return received

    def _wait(self, event: int) -> None:
        """Until the socket is ready; that the kernel still gets rid of what we sent is progress."""
        moved, queued = time.monotonic(), self._queued()
        while not _poll(self._socket, event, self._patience / _LOOKS):
            before, queued = queued, self._queued()
            if queued != before:
                moved = time.monotonic()
            elif time.monotonic() - moved >= self._patience:
                raise silence(self._patience)

    def _queued(self) -> int:
        """Bytes that have not reached the other side."""
        answer = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))
        queued: int = struct.unpack("i", answer)[0]
        return queued

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()


def silence(seconds: float) -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, f"no answer for {seconds:g} s")


def _poll(one: socket.socket, event: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(one, event)
    return bool(poller.poll(seconds * 1000))


def _rest(parts: list[Buffer], sent: int) -> list[Buffer]:
    """What is left of these parts when so many bytes were sent."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[number + 1 :]]
        sent -= len(part)
    return []


class Host:
    """A server's name, and the addresses it had when it was last looked up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._addresses: list[tuple[socket.AddressFamily, Any]] = []

    def connect(
        self, port: int, timeout: float, interrupt: Interrupt, sources: Sequence[int] = ()
    ) -> socket.socket:
        """Connect to the first address that answers.

        Args:
            port: at the server.
            timeout: seconds for each address.
            interrupt: watches the socket.
            sources: our own ports to try first, before one that the system chooses.

        Raises:
            OSError: none answers.
        """
        failure: OSError | None = None
        known = self._addresses  # A name server that hangs must not hold up who has been there.
        for family, address in known or self._look_up():
            try:
                there = (address[0], port, *address[2:])
                return _connect_from(sources, family, there, timeout, interrupt)
            except OSError as error:
                failure = error
        self._addresses = []
        raise failure or OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    def _look_up(self) -> list[tuple[socket.AddressFamily, Any]]:
        found = socket.getaddrinfo(self.name, 0, type=socket.SOCK_STREAM)
        self._addresses = [(family, address) for family, _, _, _, address in found]
        return self._addresses


def _connect_from(
    sources: Sequence[int],
    family: socket.AddressFamily,
    address: Any,
    timeout: float,
    interrupt: Interrupt,
) -> socket.socket:
    for source in sources:
        try:
            return _connect(source, family, address, timeout, interrupt)
        except OSError as error:
            if error.errno not in _NOT_THIS_PORT:
                raise
    return _connect(_ANY_PORT, family, address, timeout, interrupt)


def _connect(
    source: int, family: socket.AddressFamily, address: Any, timeout: float, interrupt: Interrupt
) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        for option in _OPTIONS:
            one.setsockopt(*option)
        if source != _ANY_PORT:
            one.bind(("", source))
        _await_connection(one, address, timeout, interrupt)
    except BaseException:
        one.close()
        raise
    return one


def _await_connection(
    one: socket.socket, address: Any, timeout: float, interrupt: Interrupt
) -> None:
    interrupt.watch(one)
    code = one.connect_ex(address)
    interrupt.check()  # From here on its `end` wakes us.
    if code == errno.EINPROGRESS:
        if not _poll(one, select.POLLOUT, timeout):
            raise silence(timeout)
        interrupt.check()
        code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
