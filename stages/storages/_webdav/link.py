"""What the sessions of one storage share: where the server is, who we are, idle connections."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from pipeline.errors import ConfigError, StorageRefused, StorageUnavailable
from schemas.storages import WebdavStorage
from stages._tls import ssl_context
from stages.storages._webdav.login import Login
from stages.storages._webdav.names import Address
from stages.storages._webdav.session import Patience, Session
from stages.storages._webdav.wire import Wire

_KEPT = 4
"""Idle connections that are kept for the next one who needs one."""


class Link:
    """Connections of one storage; each is used by one session at a time."""

    def __init__(self, spec: WebdavStorage, patience: Patience) -> None:
        self.spec = spec
        self.patience = patience
        self.address = Address.parse(spec.url)
        """Where the collection is; a server that moved it may tell another place."""
        self.login = Login(spec)
        self.closed = False
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._idle: list[Wire] = []
        self._wires: WeakSet[Wire] = WeakSet()

    @property
    def server(self) -> str:
        return self.address.server

    def new_wire(self) -> Wire:
        """A connection that is not made yet, so that it can be broken before it is.

        Raises:
            StorageUnavailable: the link was closed.
        """
        wire = Wire(self.address, self.spec.connect_timeout, self.spec.timeout)
        with self._lock:
            if self.closed:
                raise StorageUnavailable(f'the connection to "{self.server}" was closed')
            self._wires.add(wire)
        return wire

    def tls(self) -> ssl.SSLContext | None:
        """What connections are encrypted with; None for http.

        Raises:
            StorageRefused: a file with certificates cannot be used.
        """
        if not self.address.encrypted:
            return None
        with self._lock:
            if self._context is None:
                try:
                    self._context = ssl_context(self.spec.tls, self.address.host)
                except ConfigError as error:
                    raise StorageRefused(error.message, error.hint) from None
            return self._context

    def take_idle(self) -> Wire | None:
        """A connection that is still good, as far as one can see."""
        while True:
            with self._lock:
                wire = self._idle.pop() if self._idle else None
            if wire is None or (wire.usable and wire.address == self.address):
                return wire
            wire.close()

    def give_back(self, wire: Wire) -> None:
        """Keep a connection for others if it can still be used, else close it."""
        with self._lock:
            if wire.usable and not self.closed and len(self._idle) < _KEPT:
                self._idle.append(wire)
                return
        wire.close()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session for the length of a block."""
        session = Session(self)
        try:
            yield session
        finally:
            session.close()

    def close(self) -> None:
        """Drop all connections; what still uses them gets an error."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
            wires = list(self._wires)
        for wire in idle:
            wire.close()
        for wire in wires:
            wire.breaker.trip()
