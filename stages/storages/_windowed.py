"""Writers of storages whose servers confirm later what they have taken: NFS and SMB."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Generic, Protocol, TypeVar

from pipeline.errors import Aborted, StorageError
from pipeline.stage import Writer

ABORT_SECONDS = 3.0
"""How long `abort` may try to remove what it leaves behind."""


class Session(Protocol):
    """A connection, and those that take its place."""

    def end(self, make_error: Callable[[], Exception]) -> None:
        """Have every wait, now and later, end with an error."""

    def close(self) -> None:
        """Drop it."""


S = TypeVar("S", bound=Session)
S_contra = TypeVar("S_contra", bound=Session, contravariant=True)


class Pool(Protocol[S_contra]):
    """Where sessions come from."""

    def give_back(self, session: S_contra) -> None:
        """Keep a session for the next one who needs one."""

    def translated(self, doing: str) -> AbstractContextManager[None]:
        """Have failed requests come out as storage errors."""


class Target(Protocol):
    """The file that is written, under another name than it gets."""

    def publish(self, size: int) -> None:
        """Give it its name."""


class Window(Protocol):
    """What the server's disk has not confirmed."""

    size: int

    def add(self, chunk: bytes) -> None:
        """Write a chunk."""

    def drain(self) -> None:
        """Wait until everything is confirmed."""


class WindowWriter(Writer, Generic[S]):
    """An unfinished file on a server, and the window of what its disk has not confirmed.

    Args:
        pool: where the session is from.
        session: of this writer alone.
        target: the file, over that session.
        window: the same.
        doing: what is tried here, for messages.
    """

    def __init__(
        self, pool: Pool[S], session: S, target: Target, window: Window, doing: str
    ) -> None:
        self._pool = pool
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
        self._pool.give_back(self._session)

    @contextmanager
    def _work(self) -> Iterator[None]:
        """Have failures come out as storage errors, for good."""
        with self._working:
            if self._aborted or self._committed:
                raise Aborted
            if self._error:
                raise self._error
            try:
                with self._pool.translated(self._doing):
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

    @abstractmethod
    def _clean_up(self) -> None:
        """Remove the file, over another connection, and within `ABORT_SECONDS`."""


@contextmanager
def ended_in_time(session: Session) -> Iterator[None]:
    """End what a session is used for here when it takes longer than `ABORT_SECONDS`."""
    timer = threading.Timer(ABORT_SECONDS, session.end, [Aborted])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
