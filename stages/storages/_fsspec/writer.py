"""Writing through a driver, with an end to every wait."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from pipeline.errors import Aborted, StorageError, StorageUnavailable
from pipeline.stage import Writer
from stages.storages._fsspec.errors import is_missing
from stages.storages._fsspec.session import Session, Sessions, interrupt
from stages.storages._fsspec.upload import Upload

_ABORT_SECONDS = 3.0
"""How long `abort` waits for the traces to be removed; the session goes on with that."""


class FsspecWriter(Writer):
    """An upload in the thread of a session, which is given back when it ended well.

    What a driver tries again by itself, it does; apart from that, what breaks fails.
    """

    def __init__(self, sessions: Sessions, session: Session, upload: Upload, name: str) -> None:
        self._sessions = sessions
        self._session = session
        self._upload = upload
        self._doing = f'write "{name}"'
        self._failed: StorageError | None = None
        self._lock = threading.Lock()
        # Both guarded by the lock: of commit and abort, only one happens.
        self._ended = False
        self._call_under_way: Future[None] | None = None

    def _start(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._ended:
                raise Aborted
            if self._failed:
                raise self._failed
            self._call_under_way = self._session.start(work)

    def _wait(self, more_seconds: float = 0) -> None:
        if self._call_under_way and not self._failed:
            try:
                self._session.wait(self._call_under_way, self._doing, more_seconds)
            except StorageError as error:
                self._failed = error

    def _call(self, work: Callable[[], None], more_seconds: float = 0) -> None:
        self._wait()
        self._start(work)
        self._wait(more_seconds)
        if self._failed:
            raise self._failed

    def write(self, chunk: bytes) -> None:
        # The driver sends this one while the caller makes the next.
        self._wait()
        self._start(lambda: self._upload.write(chunk))

    def flush(self) -> None:
        self._call(self._upload.flush)

    def commit(self) -> None:
        self._call(self._upload.finish)
        try:
            self._call(self._upload.publish, self._upload.copy_seconds)
        except StorageError as error:
            if not (_may_be_done(error) and self._is_done()):
                raise
        with self._lock:
            if self._ended:
                raise Aborted
            self._ended = True
        self._session.start(self._upload.disarm)
        self._sessions.give_back(self._session)

    def _is_done(self) -> bool:
        """Whether the object became visible although we were not told."""
        try:
            with self._sessions.session() as other:
                done = other.call(self._doing, lambda: self._upload.is_done(other.tree))
        except StorageError:
            return False
        return done

    def abort(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            if self._call_under_way:
                interrupt(self._call_under_way)
            removing = self._session.start(self._upload.give_up)
        concurrent.futures.wait([removing], _ABORT_SECONDS)
        if not removing.done() or removing.exception():
            self._session.usable = False
        self._sessions.give_back(self._session)

    def __del__(self) -> None:
        if not self._ended:
            with suppress(Exception):  # At the end of the interpreter there may be nothing left.
                self._session.start(self._upload.disarm)
                self._sessions.drop(self._session)


def _may_be_done(error: StorageError) -> bool:
    """Whether an error leaves open what the server did: a second try of the driver finds nothing
    left to publish.
    """
    cause = error.__cause__
    return isinstance(error, StorageUnavailable) or (cause is not None and is_missing(cause))
