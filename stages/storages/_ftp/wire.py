"""The control connection of FTP, and the data connections it opens (RFC 959, 2228, 2428, 4217)."""

from __future__ import annotations

import ftplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import StorageRefused
from pipeline.stage import CHUNK
from stages.storages._ftp.errors import code_of, is_lost
from stages.storages._sockets import (
    Breaker,
    connect,
    end_sending,
    idle_timeout,
    keep_alive,
    readable,
    receive,
    send,
    send_ahead,
    start_tls,
    unacknowledged,
)

_LINE_BLOCK = 8192
_REPLY_SECONDS = 5.0
"""How long a server whose data connection broke may take to say why."""

_SEND_AHEAD = 1 << 20
"""Bytes of an upload that wait in the kernel: they would be lost when the connection breaks."""
_LOOK_SECONDS = 3.0
"""How often a stuck upload looks whether the control connection is still there."""
_PASSIVE_ATTEMPTS = 3
_NO_PORT = "425"
"""What a server says when the port it picked for a data connection is taken by another session."""


class Wire(ftplib.FTP):
    """ftplib's commands and replies, on sockets that can be broken and know no total time limit.

    Every failure is one of `errors.FAILURES`.

    Args:
        host: name or address of the server.
        port: TCP port.
        connect_timeout: seconds for each step until one is logged in, and for data connections.
        timeout: seconds without progress after which a connection is given up.
    """

    def __init__(self, host: str, port: int, connect_timeout: float, timeout: float) -> None:
        super().__init__()
        self.host, self.port = host, port
        self.breaker = Breaker()
        self.data: socket.socket | None = None
        """The data connection of the transfer under way."""
        self.context: ssl.SSLContext | None = None
        """Encrypts control and data connections; None while they are in the clear."""
        self.is_spent = False
        """Whether the server takes no more commands on this connection."""
        self._connect_timeout = connect_timeout
        self._idle_timeout = timeout
        self._received = bytearray()
        self._awaits_reply = False
        self._extended_passive = False

    @property
    def control(self) -> socket.socket:
        """The socket of the control connection."""
        if self.sock is None:
            raise EOFError
        return self.sock

    @property
    def usable(self) -> bool:
        """Whether the next command would get its own reply."""
        broken = self._awaits_reply or self.is_spent or self.breaker.tripped
        return self.sock is not None and not broken and self.data is None

    # Connecting

    def greet(self, implicit: ssl.SSLContext | None) -> None:
        """Connect and take the server's welcome.

        Args:
            implicit: for a server that expects TLS before anything else.
        """
        self.sock = connect(self.host, self.port, self._connect_timeout, self.breaker)
        self.af = self.sock.family
        keep_alive(self.sock)
        if implicit is not None:
            self.encrypt(implicit)
        self._awaits_reply = True
        while self._awaits_reply:  # A preliminary reply asks for patience.
            self.welcome = self.getresp()

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        if self._received:
            # Somebody on the way put words into the server's mouth.
            raise ftplib.error_proto("it sent more than its reply before TLS began")
        self.sock = start_tls(self.control, context, self.host, self.breaker)
        self.context = context

    def logged_in(self) -> None:
        """From here on, the server may take its time for what it does."""
        self.control.settimeout(self._idle_timeout)

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Wait no longer than this for replies."""
        before = self.control.gettimeout()
        self.control.settimeout(min(seconds, self._idle_timeout))
        try:
            yield
        finally:
            if self.sock is not None and self.sock.fileno() >= 0:
                self.sock.settimeout(before)

    def close(self) -> None:
        """Drop all connections; only for the thread that uses them, or when none does."""
        self.breaker.close_all()
        self.sock = self.data = None

    # Lines

    def putline(self, line: str) -> None:
        if "\r" in line or "\n" in line:
            raise StorageRefused("FTP cannot transmit names or passwords that have line breaks")
        raw = line.encode("utf-8", "surrogateescape")
        # 255 starts a command of telnet, which FTP is spoken over, unless it is doubled.
        self._awaits_reply = True
        self.control.sendall(raw.replace(b"\xff", b"\xff\xff") + b"\r\n")

    def putcmd(self, line: str) -> None:
        self.putline(line)

    def getline(self) -> str:
        while b"\n" not in self._received:
            if len(self._received) > self.maxline:
                raise ftplib.error_proto("it sent a line that does not end")
            block = self._more()
            if not block:
                raise EOFError
            self._received += block
        line, _, rest = self._received.partition(b"\n")
        self._received = rest
        return line.rstrip(b"\r").decode("utf-8", "surrogateescape")

    def getmultiline(self) -> str:
        lines = [self.getline()]
        code = lines[0][:3]
        if not code.isdecimal():
            raise ftplib.error_proto(lines[0])
        while lines[0][3:4] == "-" and lines[-1][:4].rstrip() != code:
            lines.append(self.getline())
        return "\n".join(lines)

    def _more(self) -> bytes:
        """The next bytes of a reply; the time runs only while an upload's data does not move."""
        left = self._unacknowledged()
        while True:
            try:
                return self.control.recv(_LINE_BLOCK)
            except TimeoutError:
                before, left = left, self._unacknowledged()
                if left == before:
                    raise TimeoutError("it did not answer in time") from None

    def _unacknowledged(self) -> int:
        return unacknowledged(self.data) if self.data is not None else 0

    def getresp(self) -> str:
        try:
            reply = super().getresp()
        except ftplib.Error as error:
            self._awaits_reply = False
            self.is_spent = is_lost(error) or isinstance(error, ftplib.error_proto)
            raise
        self._awaits_reply = reply[:1] == "1"
        return reply

    # Transfers

    def makepasv(self) -> tuple[str, int]:
        # The address in the reply is not believed: behind NAT it is wrong, and a server could make
        # us connect to others.
        peer = self.control.getpeername()
        for _ in range(_PASSIVE_ATTEMPTS):
            try:
                return str(peer[0]), self._passive_port(peer)
            except ftplib.error_temp as error:
                if code_of(error) != _NO_PORT:
                    raise
        return str(peer[0]), self._passive_port(peer)

    def _passive_port(self, peer: tuple[str, int]) -> int:
        if self.af == socket.AF_INET and not self._extended_passive:
            try:
                return ftplib.parse227(self.sendcmd("PASV"))[1]
            except ftplib.error_perm:
                self._extended_passive = True
        return int(ftplib.parse229(self.sendcmd("EPSV"), peer)[1])

    def start_transfer(self, command: str, offset: int = 0) -> socket.socket:
        """Open a data connection and give the command that uses it; ends with `end_transfer`."""
        host, port = self.makepasv()
        data = connect(host, port, self._connect_timeout, self.breaker)
        try:
            if offset:
                self.sendcmd(f"REST {offset}")
            if self.sendcmd(command)[0] == "2":
                self.getresp()  # Some servers have two replies to tell.
            if self.context is not None:
                with self._explained():
                    data = start_tls(data, self.context, self.host, self.breaker, self.control)
            idle_timeout(data, self._idle_timeout)
        except BaseException:
            self.breaker.close(data)
            raise
        self.data = data
        return data

    def end_transfer(self) -> None:
        """Close the data connection and take the reply that says whether all went well."""
        self._close_data()
        if self._awaits_reply:
            self.voidresp()

    def _close_data(self) -> None:
        if self.data is not None:
            self.breaker.close(self.data)
            self.data = None

    def start_upload(self, command: str, offset: int = 0) -> None:
        """Open a data connection for `upload`; ends with `end_upload`."""
        data = self.start_transfer(command, offset)
        idle_timeout(data, min(_LOOK_SECONDS, self._idle_timeout))
        send_ahead(data, _SEND_AHEAD)

    def upload(self, piece: memoryview) -> None:
        """Send bytes on the open data connection."""
        data = self.data
        if data is None:
            raise EOFError
        with self._explained():
            moved = time.monotonic()
            while piece:
                self._listen()
                try:
                    piece = piece[send(data, piece) :]
                    moved = time.monotonic()
                except TimeoutError:
                    if time.monotonic() - moved >= self._idle_timeout:
                        raise

    def _listen(self) -> None:
        """Notice when the control connection breaks, or brings the bad news it can only bring now.

        Not every server that lost it ends the transfer; some just read no more.
        """
        if not readable(self.control):
            return
        # No reply has come when those were bytes that TLS has for itself.
        with suppress(TimeoutError), self.patience(_REPLY_SECONDS):
            if self.getresp()[0] != "1":
                raise EOFError

    def end_upload(self) -> None:
        """Say that this was all, and wait until the server has it."""
        if self.data is not None:
            with self._explained():
                end_sending(self.data, self._idle_timeout)
            if self._awaits_reply:
                # The data connection stays until then: closing it early can cost its last bytes.
                self.voidresp()
            self._close_data()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """When a data connection breaks, the control connection often tells why."""
        try:
            yield
        except (TimeoutError, ssl.SSLCertVerificationError):
            raise
        except OSError as error:
            if not self.breaker.tripped:
                with suppress(OSError, EOFError), self.patience(_REPLY_SECONDS):
                    self.getresp()
            raise error

    def download(self, command: str, offset: int = 0) -> Iterator[bytes]:
        """All bytes that a command sends, in chunks."""
        data = self.start_transfer(command, offset)
        buffer = memoryview(bytearray(CHUNK))
        while chunk := receive(data, buffer):
            yield chunk
        self.end_transfer()
