"""An NFS server as a storage sees it: where it listens, the export, and a pool of sessions."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import StorageRefused, StorageUnavailable
from schemas.storages import NfsStorage
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.calls import NFS
from stages.storages._nfs.errors import FAILURES, mount_error, reason_of, storage_error
from stages.storages._nfs.mount import MOUNT, MountError, get_port, mount
from stages.storages._nfs.rpc import MAX_GROUPS, RpcRejected, Service, auth_sys
from stages.storages._nfs.session import Session
from stages.storages._nfs.tcp import Connection, Host
from stages.storages._nfs.types import Limits
from stages.storages._nfs.xdr import Malformed
from stages.storages._tcp import Interrupt

_KEPT = 4
"""Connections that are kept while nobody uses them."""
_LOOK_SECONDS = 0.1
"""How often who waits for another thread to mount looks whether it was told to end."""


@dataclass(frozen=True)
class Export:
    """An exported directory, as the server gave it to us."""

    handle: bytes
    limits: Limits


class Client:
    """One export of one server; may be used by many threads.

    Args:
        spec: who and where; the user is the one of this process unless it says otherwise.
    """

    def __init__(self, spec: NfsStorage) -> None:
        self._spec = spec
        self.server = spec.host
        uid = os.geteuid() if spec.uid is None else spec.uid
        gid = os.getegid() if spec.gid is None else spec.gid
        own_groups = os.getgroups() if spec.uid is None else []
        groups = own_groups if spec.gids is None else spec.gids
        self._credentials = auth_sys(uid, gid, groups[:MAX_GROUPS])
        self.user = f"uid {uid}, gid {gid}"
        self._host = Host(spec.host)
        self._lock = threading.Lock()
        self._idle: list[Session] = []
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._mounting = threading.Lock()
        self._export: Export | None = None

    # Sessions

    def take_session(self) -> Session:
        """A session for one thread, which returns it with `give_back`, or closes it."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            session = Session(self.server, self._credentials, self._spec.timeout, self._connect)
            self._sessions.add(session)
            return session

    def give_back(self, session: Session) -> None:
        """Let others use a session on which nothing is under way any more."""
        with self._lock:
            if session.is_idle and len(self._idle) < _KEPT:
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
        """Have failed calls come out as storage errors.

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
            self._export = None
        for session in idle:
            session.close()
        for session in used:
            session.end(lambda: StorageUnavailable(f'the connection to "{self.server}" was closed'))

    # The export

    def export(self, session: Session) -> Export:
        """The export, mounted by the first session that needs it.

        Raises:
            StorageError: we cannot have it.
        """
        known = self._export
        if known:
            return known
        while not self._mounting.acquire(timeout=_LOOK_SECONDS):
            session.interrupt.check()
        try:
            if self._export is None:
                handle = self._mount(session.interrupt)
                self._export = Export(handle, session.call(nfs.get_limits(handle)))
            return self._export
        finally:
            self._mounting.release()

    def forget(self, export: Export) -> None:
        """Mount it anew next time: the server does not know its handle any more."""
        if self._export is export:
            self._export = None

    def _mount(self, interrupt: Interrupt) -> bytes:
        port = self._spec.mount_port or self._find_port(MOUNT, interrupt)
        export = self._spec.export
        try:
            connection = self._open(port, interrupt)
            try:
                return mount(connection, export, self._credentials)
            finally:
                connection.close()
        except OSError as error:
            interrupt.check()
            raise StorageUnavailable(
                f'the mount service of "{self.server}" cannot be reached: {reason_of(error)}'
            ) from error
        except MountError as error:
            raise mount_error(error, self.server, export) from error
        except FAILURES as error:
            doing = f'mount "{export}"'
            raise storage_error(error, self.server, self.user, doing) from error

    # Connections

    def _connect(self, interrupt: Interrupt) -> Connection:
        """A connection to NFS; raises OSError or StorageError."""
        return self._open(self._spec.nfs_port or self._find_port(NFS, interrupt), interrupt)

    def _open(self, port: int, interrupt: Interrupt) -> Connection:
        # Half of the time: another attempt must fit in before a session gives up.
        patience = self._spec.timeout / 2
        timeout = min(self._spec.connect_timeout, patience)
        return Connection(self._host.call(port, timeout, interrupt), patience)

    def _find_port(self, service: Service, interrupt: Interrupt) -> int:
        """Ask the portmapper; each time, because a server that starts again may move."""
        hint = "is rpcbind running there? else set nfs_port and mount_port"
        try:
            connection = self._open(self._spec.portmapper_port, interrupt)
            try:
                port = get_port(connection, service)
            finally:
                connection.close()
        except OSError as error:
            interrupt.check()
            message = f'the portmapper of "{self.server}" cannot be reached: {reason_of(error)}'
            raise StorageUnavailable(message, hint) from error
        except (RpcRejected, Malformed) as error:
            message = f'the portmapper of "{self.server}" does not say where NFS is: {error}'
            raise StorageRefused(message, hint) from error
        if not port:
            raise StorageUnavailable(
                f'"{self.server}" does not offer NFS version 3 over TCP', "is it switched on there?"
            )
        return port
