"""An upload to an NFS server, from its first byte to its name, or to nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import Aborted, StorageError
from pipeline.stage import Writer
from stages.storages._nfs.client import Client
from stages.storages._nfs.session import Session
from stages.storages._nfs.target import Target
from stages.storages._nfs.window import Window

ABORT_SECONDS = 3.0
"""How long `abort` may try to remove what it leaves behind."""


class NfsWriter(Writer):
    """An unfinished file on the server, and the window of what its disk has not confirmed.

    `commit` links the file to its name, which fails when that exists, and removes the other name.
    Only where the file system has no hard links it looks first and then renames: an object that
    another client commits under the same name just in between would be replaced.

    Args:
        client: where the session is from.
        session: of this writer alone.
        target: the file, over that session.
        window: the same.
        doing: what is tried here, for messages.
    """

    def __init__(
        self, client: Client, session: Session, target: Target, window: Window, doing: str
    ) -> None:
        self._client = client
        self._session = session
        self._target = target
        self._window = window
        self._doing = doing
        self._error: StorageError | None = None
        self._working = threading.Lock()
        self._lock = threading.Lock()
        self._aborted = False
        self._committed = False

    def write(self, chunk: bytes) -> None:
        with self._work():
            self._window.add(chunk)

    def flush(self) -> None:
        with self._work():
            self._window.drain()

    def commit(self) -> None:
        with self._work():
            self._window.drain()
            self._target.publish(self._window.size)
            with self._lock:
                self._committed = not self._aborted
        self._client.give_back(self._session)

    @contextmanager
    def _work(self) -> Iterator[None]:
        """Have failures come out as storage errors, for good."""
        with self._working:
            if self._aborted or self._committed:
                raise Aborted
            if self._error:
                raise self._error
            try:
                with self._client.translated(self._doing):
                    yield
                if self._aborted:
                    raise Aborted
            except BaseException as error:
                self._session.close()
                self._error = error if isinstance(error, StorageError) else self._error
                raise

    def abort(self) -> None:
        with self._lock:
            if self._committed or self._aborted:
                return
            self._aborted = True
        self._session.end(Aborted)
        if self._working.acquire(blocking=False):  # Else who works there closes it now.
            self._session.close()
            self._working.release()
        # Never raises, by contract: `sweep` finds what a dead connection keeps.
        with suppress(Exception):
            self._clean_up()

    def _clean_up(self) -> None:
        """Over another connection, and within a short time."""
        with self._client.session("remove an unfinished object") as session:
            timer = threading.Timer(ABORT_SECONDS, session.end, [Aborted])
            timer.start()
            try:
                self._target.over(self._client, session).remove()
            finally:
                timer.cancel()
                timer.join()
