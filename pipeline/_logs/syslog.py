"""The system's log: its local socket, or a server.

Formats: RFC 5424 (messages), RFC 5426 (over UDP), RFC 6587 (over TCP, octets counted).
The local socket gets what syslog(3) of the C library sends, which has no host name.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

from pipeline.logs import Record, Render
from schemas.log import FACILITIES, SyslogSpec

IDENT = "nxs-backup"
_TIMEOUT = 5.0
_PAUSE = 10.0
"""Seconds between two attempts to reach a server that is away."""
_LONGEST = 8000
"""Bytes of a message: what receivers accept without being told to."""


class Syslog:
    """Sends a message for each record; connects when there is one to send."""

    name = "syslog"

    def __init__(self, spec: SyslogSpec, render: Render, host: str) -> None:
        self._spec = spec
        self._render = render
        self._host = _word(host)
        self._facility = FACILITIES[spec.facility]
        self._socket: socket.socket | None = None
        self._not_before = 0.0

    def write(self, record: Record) -> None:
        """Send a message.

        Raises:
            OSError: it was not sent.
        """
        data = self._message(record)
        is_new = self._socket is None
        try:
            self._usable().sendall(data)
        except OSError:
            self.close()
            if is_new:
                raise
            self._usable().sendall(data)  # the other side was started anew

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _usable(self) -> socket.socket:
        """The socket, connected; what the other side has closed it would only swallow."""
        if self._socket is not None and _is_closed(self._socket):
            self.close()
        if self._socket is None:
            if time.monotonic() < self._not_before:
                raise OSError(errno.EHOSTUNREACH, "It did not answer a moment ago")
            try:
                self._socket = _connected(self._spec)
            except OSError:
                self._not_before = time.monotonic() + _PAUSE
                raise
        return self._socket

    def _message(self, record: Record) -> bytes:
        text = self._render(record).encode("utf-8", "replace")
        priority = f"<{self._facility * 8 + record.priority}>"
        if self._spec.scheme == "unix":
            local = record.time.astimezone()
            stamp = f"{local:%b} {local.day:2} {local:%H:%M:%S}"  # RFC 3164, section 4.1.2
            return _cut(f"{priority}{stamp} {IDENT}[{os.getpid()}]: ".encode() + text)
        stamp = record.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        kind = record.event.name.replace(" ", "_")
        head = f"{priority}1 {stamp} {self._host} {IDENT} {os.getpid()} {kind} - "
        # Without a byte order mark, which receivers take for a part of the text.
        message = _cut(head.encode() + text)
        return b"%d %b" % (len(message), message) if self._spec.scheme == "tcp" else message


def _is_closed(connected: socket.socket) -> bool:
    """Whether the other side of a TCP connection has closed it; nobody sends us anything."""
    if connected.type != socket.SOCK_STREAM:
        return False
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0)) and not connected.recv(1, socket.MSG_PEEK)


def _cut(message: bytes) -> bytes:
    """What fits, and ends with a whole character."""
    if len(message) <= _LONGEST:
        return message
    return message[:_LONGEST].decode("utf-8", "ignore").encode()


def _word(text: str) -> str:
    """A field of the header: printable ASCII without blanks."""
    return "".join(char for char in text if "!" <= char <= "~")[:255] or "-"


def _connected(spec: SyslogSpec) -> socket.socket:
    if spec.scheme == "unix":
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        return _joined(found, spec.path)
    kind = socket.SOCK_STREAM if spec.scheme == "tcp" else socket.SOCK_DGRAM
    failure = OSError("has no address")
    for family, _, number, _, address in socket.getaddrinfo(spec.host, spec.port, type=kind):
        try:
            return _joined(socket.socket(family, kind, number), address)
        except OSError as error:
            failure = error
    raise failure


def _joined(made: socket.socket, address: object) -> socket.socket:
    try:
        made.settimeout(_TIMEOUT)
        made.connect(address)  # type: ignore[arg-type]
    except OSError:
        made.close()
        raise
    return made
