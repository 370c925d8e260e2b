"""A connection to one server: commands through redis-py, then the raw stream of a replica."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from pipeline.context import StageContext
from schemas.redis import RedisSource
from stages._tls import ssl_context, tls_mode
from stages.sources._low_water import LowWater
from stages.sources._redis.errors import refused, translated
from stages.sources._redis.rdb import announced_size, transfer


@dataclass(frozen=True)
class Node:
    """Where a server listens."""

    host: str
    port: int
    socket: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.socket or f"{host}:{self.port}"


_driver: Any = redis
"""Its classes are not typed."""


class _OverTls(redis.Connection):
    """With a context of ours: redis-py would build its own, with other rules."""

    context: ssl.SSLContext

    def _connect(self) -> socket.socket:
        plain: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        try:
            return self.context.wrap_socket(plain, server_hostname=self.host)
        except (OSError, ValueError):
            plain.close()
            raise


class Link:
    """An open connection; made by `linked`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.announced: int | None = None
        """Bytes of the dump, once the server has told."""

    def ask(self, *command: str) -> Any:
        """The reply to a command.

        Raises:
            redis.ResponseError: the server refused it.
        """
        self._connection.send_command(*command)
        return self._connection.read_response()

    def try_asking(self, *command: str) -> Any:
        """The same; None when the server refused it or does not know it."""
        with contextlib.suppress(redis.ResponseError):
            return self.ask(*command)
        return None

    def info(self) -> dict[str, str]:
        """What `INFO` tells; all that the user may see."""
        text: bytes = self.ask("INFO")
        lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
        return {key: value for key, colon, value in lines if colon}

    def dump(self) -> tuple[list[str], Iterator[bytes]]:
        """Become a replica: id and offset of the data (nothing on old servers), and the file.

        Raises:
            SourceError: the server refused, or the connection ended.
        """
        self.try_asking("REPLCONF", "capa", "eof")
        self.try_asking("REPLCONF", "rdb-only", "1")  # Redis 7: it keeps no backlog for us
        for command in (("PSYNC", "?", "-1"), ("SYNC",)):
            self._connection.send_command(*command)
            # All replies were read, so the parser holds nothing back: the socket is ours now.
            line = self._line()
            position = line.decode("ascii", "replace").split()[1:]
            if line.startswith(b"+FULLRESYNC"):
                return position, self._transfer(self._line())
            if not line.startswith(b"-"):
                return [], self._transfer(line)
            if command[0] == "SYNC" or not _may_know_sync(line):
                break
        raise refused(line.decode("utf-8", "replace"))

    def _transfer(self, head: bytes) -> Iterator[bytes]:
        self.announced = announced_size(head)
        sock = self._connection._sock
        is_plain = not isinstance(sock, ssl.SSLSocket)
        return transfer(head, LowWater(sock).receive_into if is_plain else self._receive)

    def _receive(self, room: memoryview) -> int:
        received: int = self._connection._sock.recv_into(room)
        return received

    def _line(self) -> bytes:
        """A line of the server; empty ones are signs of life while it prepares a dump."""
        line, letter = b"", memoryview(bytearray(1))
        while not line.endswith(b"\n") or line == b"\n":
            if line == b"\n":
                line = b""
            if not self._receive(letter):
                raise ConnectionError("closed by the server")
            line += letter
        return line.rstrip(b"\r\n")


def _may_know_sync(line: bytes) -> bool:
    """Whether it was PSYNC that the server does not know (before 2.8), or that we may not use."""
    return line.startswith(b"-NOPERM") or b"unknown command" in line.lower()


@contextmanager
def linked(spec: RedisSource, node: Node, context: StageContext) -> Iterator[Link]:
    """Connect and log in.

    Raises:
        SourceError: it failed, or whatever is done with the link failed at the other end.
    """
    context.teardown.check()
    with translated(str(node), context):
        connection = _connection(spec, node)
        try:
            with context.teardown.calling(lambda: _wake(connection)):
                connection.connect()
                context.teardown.check()  # in case it was still on its way when it was woken
                yield Link(connection)
        finally:
            connection.disconnect()


def _wake(connection: Any) -> None:
    sock = connection._sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _connection(spec: RedisSource, node: Node) -> Any:
    """Not yet open."""
    common: dict[str, Any] = {
        "username": spec.user,
        "password": spec.password.get_secret_value() if spec.password else None,
        "socket_timeout": spec.timeout,
        "socket_connect_timeout": spec.connect_timeout,
        "protocol": 2,
        "driver_info": None,
    }
    if node.socket:
        return _driver.UnixDomainSocketConnection(path=node.socket, **common)
    address = {"host": node.host, "port": node.port, **common}
    encryption = ssl_context(spec.tls, node.host)
    if encryption is None or (tls_mode(spec.tls, node.host) == "prefer" and _is_plain(spec, node)):
        return _driver.Connection(**address)
    over_tls: Any = _OverTls
    connection = over_tls(**address)
    connection.context = encryption
    return connection


def _is_plain(spec: RedisSource, node: Node) -> bool:
    """Whether the port speaks in the clear; one with TLS ends the connection.

    The other way round would take long: a plain port waits for the rest of what it takes for a
    command.
    """
    with socket.create_connection((node.host, node.port), spec.connect_timeout) as sock:
        sock.sendall(b"PING\r\n")
        try:
            return sock.recv(1) in (b"+", b"-")
        except ConnectionError:
            return False
