"""An SMB server as a storage sees it: where it listens, who we are, and a pool of sessions."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import StorageUnavailable
from schemas.storages import SmbStorage
from stages.storages._smb.errors import FAILURES, storage_error
from stages.storages._smb.link import Link
from stages.storages._smb.login import Login, log_in
from stages.storages._smb.session import Session
from stages.storages._tcp import Host, Interrupt, Stream

_KEPT = 4
"""Connections that are kept while nobody uses them."""


class Client:
    """One share of one server; may be used by many threads.

    Args:
        spec: who and where.
    """

    def __init__(self, spec: SmbStorage) -> None:
        self._spec = spec
        self.server = spec.host
        self.user = spec.user
        self._login = Login(
            host=spec.host,
            share=spec.share,
            user=spec.user,
            password=spec.password.get_secret_value() if spec.password else "",
            signing=spec.signing,
            encrypt=spec.encrypt,
        )
        self._host = Host(spec.host)
        self._lock = threading.Lock()
        self._idle: list[Session] = []
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    def take_session(self) -> Session:
        """A session for one thread, which returns it with `give_back`, or closes it."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.new_session()

    def new_session(self, previous: int = 0) -> Session:
        """A session of its own; the server closes the one numbered `previous`, and its files."""
        session = Session(self.server, self._spec.timeout, self._connect, previous)
        with self._lock:
            self._sessions.add(session)
        return session

    def give_back(self, session: Session) -> None:
        """Let others use a session on which nothing is under way any more."""
        with self._lock:
            if session.is_usable and len(self._idle) < _KEPT:
                self._idle.append(session)
                return
        session.close()

    @contextmanager
    def session(self, doing: str) -> Iterator[Session]:
        """A session for the length of a block, whose errors come out as storage errors."""
        session = self.take_session()
        try:
            with self.translated(doing):
                yield session
        except BaseException:
            session.close()
            raise
        self.give_back(session)

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Have failed requests come out as storage errors.

        Args:
            doing: what is tried, such as `read "a/b"`.
        """
        try:
            yield
        except FAILURES as error:
            raise storage_error(error, self.server, self.user, doing) from error

    def close(self) -> None:
        """Drop all connections; what still uses them gets an error."""
        with self._lock:
            idle, self._idle = self._idle, []
            used = set(self._sessions) - set(idle)
        for session in idle:
            session.close()
        for session in used:
            session.end(lambda: StorageUnavailable(f'the connection to "{self.server}" was closed'))

    def _connect(self, interrupt: Interrupt, previous: int) -> Link:
        """A connection to the share; raises OSError, Malformed or StorageError."""
        # Half of the time: another attempt must fit in before a session gives up.
        patience = self._spec.timeout / 2
        timeout = min(self._spec.connect_timeout, patience)
        link = Link(Stream(self._host.connect(self._spec.port, timeout, interrupt), patience))
        try:
            log_in(link, self._login, previous)
        except BaseException:
            link.close()
            raise
        return link
