"""Sockets that another thread can break, and that are given up when idle, never when slow."""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
import threading
from contextlib import suppress

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))
"""Seconds of silence, seconds between probes, and their number. No command can be sent during a
transfer; this keeps firewalls from forgetting the control connection meanwhile."""


class Breaker:
    """The sockets of one client; `trip` wakes whoever waits on them, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Held while a descriptor is used that others might close.
        self._sockets: set[socket.socket] = set()
        self.tripped = False

    def guard(self, sock: socket.socket) -> None:
        """Take charge of a socket.

        Raises:
            ConnectionAbortedError: too late, `trip` was called; the socket is closed.
        """
        with self._lock:
            if not self.tripped:
                self._sockets.add(sock)
                return
        sock.close()
        raise ConnectionAbortedError("the connection was closed")

    def wrapped(self, before: socket.socket, after: ssl.SSLSocket) -> None:
        """A socket has become a TLS socket; raises like `guard`."""
        with self._lock:
            self._sockets.discard(before)
        self.guard(after)

    def close(self, sock: socket.socket) -> None:
        """Close a socket; may be called again."""
        with self._lock:
            self._sockets.discard(sock)
            sock.close()

    def trip(self) -> None:
        """Break all connections, now and later. They are reset: nothing may look complete."""
        with self._lock:
            self.tripped = True
            for sock in self._sockets:
                with suppress(OSError):  # Dead already.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    # Not the method of a TLS socket: that one forgets that there was TLS.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close_all(self) -> None:
        """Close everything; only for the thread that uses the sockets, or when none does."""
        self.trip()
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()


def connect(host: str, port: int, timeout: float, breaker: Breaker) -> socket.socket:
    """A TCP connection.

    Args:
        host: name or address; all addresses of a name are tried.
        port: TCP port.
        timeout: in seconds, for each address, and left set on the socket.
        breaker: ends the attempt when it is tripped.

    Raises:
        OSError: no address answered.
    """
    failure = OSError("it has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        breaker.guard(sock)
        try:
            sock.settimeout(timeout)
            sock.connect(address)
            return sock
        except OSError as error:
            breaker.close(sock)
            failure = error
    raise failure


def start_tls(
    sock: socket.socket, context: ssl.SSLContext, host: str, breaker: Breaker, like: object = None
) -> ssl.SSLSocket:
    """Encrypt a connection.

    Args:
        sock: a socket in the charge of `breaker`; not to be used any more.
        context: decides whom to trust.
        host: whom the certificate must name.
        breaker: ends the handshake when it is tripped.
        like: a TLS socket whose session is taken up again. Servers ask that of a data connection:
            it proves that whoever opened it is also who gave the command.

    Raises:
        OSError: no common ground, or the certificate is not to be trusted.
    """
    session = like.session if isinstance(like, ssl.SSLSocket) else None
    secure = context.wrap_socket(
        sock, server_hostname=host, session=session, do_handshake_on_connect=False
    )
    breaker.wrapped(sock, secure)
    try:
        secure.do_handshake()
    except BaseException:
        breaker.close(secure)
        raise
    return secure


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel ask whether the other side is still there."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def idle_timeout(sock: socket.socket, seconds: float) -> None:
    """Have each `send` and `receive` fail when nothing at all moves for so long.

    The kernel keeps the time for a plain socket, and whole chunks go in one call; Python's own
    timeout means a system call, and a wait, for every piece.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, limit)
    sock.settimeout(None)


def send_ahead(sock: socket.socket, limit: int) -> None:
    """Have no more bytes than this wait in the kernel before they go on their way."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)


def send(sock: socket.socket, data: memoryview) -> int:
    """Send some of the bytes: how many.

    Raises:
        TimeoutError: not one could be sent.
        OSError: the connection is lost.
    """
    try:
        return sock.send(data)
    except (BlockingIOError, TimeoutError):
        raise TimeoutError("it took no data any more") from None


def receive(sock: socket.socket, buffer: memoryview) -> bytes:
    """The next bytes, as many as `buffer` holds, or until nothing more comes; none at the end.

    Args:
        buffer: for bytes that come in pieces.

    Raises:
        TimeoutError: nothing came.
        OSError: the connection is lost.
    """
    filled = 0
    try:
        if not isinstance(sock, ssl.SSLSocket):
            return sock.recv(len(buffer), socket.MSG_WAITALL)
        # TLS comes in records of 16 KiB at most, each with a call of its own.
        while filled < len(buffer) and (size := sock.recv_into(buffer[filled:])):
            filled += size
    except (BlockingIOError, TimeoutError):
        if not filled:
            raise TimeoutError("it sent no data any more") from None
    return bytes(buffer[:filled])


def readable(sock: socket.socket, seconds: float = 0) -> bool:
    """Whether something comes within so many seconds, if only the end."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def end_sending(sock: socket.socket, seconds: float) -> None:
    """Say that no more data follows.

    The answer of the other side to the end of TLS is not waited for: some never give one, and what
    counts is its reply on the control connection.

    Raises:
        OSError: the connection is lost, or took nothing for so many seconds.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(0)
        while _wants_to_write_more(sock):
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            if not poll.poll(seconds * 1000):
                raise TimeoutError("it took no data any more")
    socket.socket.shutdown(sock, socket.SHUT_WR)


def _wants_to_write_more(sock: ssl.SSLSocket) -> bool:
    """Send, or go on sending, the end of TLS."""
    try:
        sock.unwrap()
    except ssl.SSLWantWriteError:
        return True
    except ssl.SSLWantReadError:
        pass  # Ours is sent; only the answer is missing.
    return False


def unacknowledged(sock: socket.socket) -> int:
    """Bytes in the kernel that the other side's kernel has not acknowledged (SIOCOUTQ, tcp(7))."""
    count: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return count
