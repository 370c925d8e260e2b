"""Connections to one FTP server: how to get them, share them, and drop them all."""

from __future__ import annotations

import ftplib
import posixpath
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from weakref import WeakSet

from pipeline.errors import ConfigError, StorageRefused, StorageUnavailable
from schemas.storages import FtpStorage
from stages._tls import ssl_context, tls_mode
from stages.storages._ftp.client import Client, LoginRefused
from stages.storages._ftp.errors import (
    FAILURES,
    code_of,
    is_lost,
    login_error,
    reason_of,
    storage_error,
)

_PORT, _IMPLICIT_PORT = 21, 990
_KEPT = 4
"""Idle connections that are kept for the next one who needs one."""
_ALIVE_SECONDS = 5.0
_NO_TLS = ("500", "502", "503", "504", "530", "533", "534", "431")


@dataclass(frozen=True)
class Patience:
    """How long a broken upload is tried to go on with, as long as nothing more arrives."""

    seconds: float = 60.0
    first_delay: float = 0.2
    longest_delay: float = 5.0


@dataclass(frozen=True)
class Place:
    """Where an object goes."""

    root: str
    name: str
    part: str
    """Name of the unfinished object, relative to the root like `name`."""
    part_path: str
    final_path: str


class Link:
    """The connections of one storage; each is used by one thread at a time."""

    def __init__(self, spec: FtpStorage) -> None:
        self.spec = spec
        self.port = spec.port or (_IMPLICIT_PORT if spec.implicit_tls else _PORT)
        self.server = f"{spec.host}:{self.port}"
        self.mode = tls_mode(spec.tls, spec.host)
        self.closed = False
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._root: str | None = None
        self._idle: list[Client] = []
        self._clients: WeakSet[Client] = WeakSet()

    @property
    def root(self) -> str:
        """The storage's directory on the server, absolute; known once there was a connection."""
        return self._root or "/"

    def locate(self, name: str) -> str:
        """The path of an object."""
        return posixpath.join(self.root, name) if name else self.root

    # Connecting

    def new_client(self) -> Client:
        """A client that is not connected yet, so that it can be broken before it is.

        Raises:
            StorageUnavailable: the link was closed.
        """
        spec = self.spec
        client = Client(spec.host, self.port, spec.connect_timeout, spec.timeout)
        with self._lock:
            if self.closed:
                raise StorageUnavailable(f'the connection to "{self.server}" was closed')
            self._clients.add(client)
        return client

    def connect(self, client: Client) -> None:
        """Connect and log in.

        Raises:
            StorageRefused: no TLS where there must be, a certificate that is not trusted, or a
            login that was refused. StorageUnavailable: the server did not answer.
        """
        try:
            self._greet(client)
            secret = self.spec.password
            client.log_in(self.spec.user, secret.get_secret_value() if secret else "")
            client.get_ready(encrypted=client.context is not None)
            if self._root is None:
                path = self.spec.path
                home = "" if path.startswith("/") else client.home()
                self._root = posixpath.join(home, path)
        except LoginRefused as error:
            client.close()
            raise login_error(error.reply, self.server, self.spec.user) from None
        except FAILURES as error:
            client.close()
            raise self._connect_error(error) from error
        except BaseException:
            client.close()
            raise

    def _greet(self, client: Client) -> None:
        context = self._tls_context()
        client.greet(context if self.spec.implicit_tls else None)
        if context is None or self.spec.implicit_tls:
            return
        try:
            client.voidcmd("AUTH TLS")
        except ftplib.Error as error:
            if code_of(error) not in _NO_TLS:
                raise
            if self.mode != "prefer":
                raise StorageRefused(
                    f'"{self.server}" offers no TLS',
                    "where nobody can listen in, set tls.mode to off",
                ) from None
            return
        client.encrypt(context)

    def _tls_context(self) -> ssl.SSLContext | None:
        # One for all connections: sessions can be taken up again within a context only.
        with self._lock:
            if self._context is None:
                try:
                    self._context = ssl_context(self.spec.tls, self.spec.host)
                except ConfigError as error:
                    raise StorageRefused(error.message, error.hint) from None
            return self._context

    def _connect_error(self, error: BaseException) -> Exception:
        if isinstance(error, TimeoutError):
            seconds = f"{self.spec.connect_timeout:g} s"
            return StorageUnavailable(
                f'"{self.server}" did not answer within {seconds}', self._tls_hint()
            )
        if isinstance(error, ftplib.error_proto):
            return StorageRefused(f'"{self.server}" does not speak FTP')
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return StorageRefused(f'"{self.server}" does not speak TLS', self._tls_hint())
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            return StorageUnavailable(f'"{self.server}" cannot be reached: {reason_of(error)}')
        return storage_error(error, self.server, "connect")

    def _tls_hint(self) -> str | None:
        if self.spec.implicit_tls:
            return "with explicit TLS, as on port 21, leave implicit_tls out"
        if self.port == _IMPLICIT_PORT:
            return "servers on port 990 expect implicit_tls"
        return None

    # Sharing

    def take(self) -> Client:
        """A client that is connected, to be given back with `give_back`.

        Raises:
            StorageError: there is none to be had.
        """
        while True:
            with self._lock:
                client = self._idle.pop() if self._idle else None
            if client is None:
                client = self.new_client()
                self.connect(client)
                return client
            # A server closes connections that nobody used for a while.
            with suppress(*FAILURES), client.patience(_ALIVE_SECONDS):
                client.voidcmd("NOOP")
            if client.usable:
                return client
            client.close()

    def give_back(self, client: Client) -> None:
        """Keep a client for others if it can still be used, else close it."""
        with self._lock:
            if client.usable and not self.closed and len(self._idle) < _KEPT:
                self._idle.append(client)
                return
        client.close()

    @contextmanager
    def client(self, doing: str) -> Iterator[Client]:
        """A client for the length of a block, whose errors come out as storage errors."""
        client = self.take()
        try:
            with self.errors(doing):
                yield client
        finally:
            self.give_back(client)

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Have the failures of a block come out as storage errors."""
        try:
            yield
        except FAILURES as error:
            if self.closed and is_lost(error):
                raise StorageUnavailable(f'the connection to "{self.server}" was closed') from None
            raise storage_error(error, self.server, doing) from error

    def close(self) -> None:
        """Drop all connections; what still uses them gets an error."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
            clients = list(self._clients)
        for client in idle:
            with suppress(*FAILURES):
                client.putcmd("QUIT")  # The answer is of no interest.
            client.close()
        for client in clients:
            client.breaker.trip()
