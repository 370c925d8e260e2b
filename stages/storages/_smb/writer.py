"""An upload to an SMB server, from its first byte to its name, or to nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import Aborted, StorageError
from pipeline.stage import Writer
from stages.storages._smb.client import Client
from stages.storages._smb.session import Session
from stages.storages._smb.target import Target
from stages.storages._smb.window import Window

ABORT_SECONDS = 3.0
"""How long `abort` may try to remove what it leaves behind."""


class SmbWriter(Writer):
    """An unfinished file on the server, and the window of what its disk has not confirmed.

    `commit` renames the file, which the server refuses when the name is taken.

    Args:
        client: where the session is from.
        session: of this writer alone.
        target: the file, over that session.
        doing: what is tried here, for messages.
    """

    def __init__(self, client: Client, session: Session, target: Target, doing: str) -> None:
        self._client = client
        self._session = session
        self._target = target
        self._window = Window(session, target)
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
        # The server closes our file first: as long as it is open, it cannot be removed.
        session = self._client.new_session(self._session.number)
        timer = threading.Timer(ABORT_SECONDS, session.end, [Aborted])
        timer.start()
        try:
            target = self._target.over(session)
            session.persist(target.remove)
            timer.cancel()
            timer.join()
            self._client.give_back(session)
        except BaseException:
            session.close()
            raise
        finally:
            timer.cancel()
            timer.join()
