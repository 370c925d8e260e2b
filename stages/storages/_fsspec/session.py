"""Drivers cannot be interrupted: each instance has a thread of its own, which can be left behind.

Most drivers say nothing about threads (the one for FTP has a single connection), so an instance is
used by its thread only, from its making to its end. Whoever waits for a call gives up when it takes
too long or is told to stop; the thread is then left to end by itself, when the call does.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

from pipeline.errors import Aborted, StorageError, StorageUnavailable
from stages.storages._fsspec.errors import storage_error
from stages.storages._fsspec.tree import Tree

T = TypeVar("T")

_KEPT = 4
"""Idle sessions that are kept for the next one who needs one."""
_ALIVE_SECONDS = 10.0
"""A session that was idle for longer is tried before it is used: servers close connections."""
_CLOSE_SECONDS = 3.0


class Session:
    """A file system, and the one thread that uses it; for one caller at a time.

    Args:
        connect: makes the file system; called in the thread, before the first call.
        server: what the file system is called in messages.
        timeout: seconds a call may take.
    """

    def __init__(self, connect: Callable[[], Tree], server: str, timeout: float) -> None:
        self.usable = True
        self.idle_since = 0.0
        self._server = server
        self._timeout = timeout
        self._connect = connect
        self._tree: Tree | None = None
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fsspec-session", daemon=True)
        self._thread.start()

    # In the thread

    @property
    def tree(self) -> Tree:
        """The file system; only for what runs in the thread."""
        if self._tree is None:
            self._tree = self._connect()
        return self._tree

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            _do(*job)
            del job  # What it held ends in this thread, not while we wait for the next one.
        if self._tree is not None:
            self._tree.release()
            self._tree = None

    # In other threads

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Have something done in the thread, after everything that was started before."""
        future: Future[T] = Future()
        self._jobs.put((future, work))
        return future

    def wait(self, future: Future[T], doing: str, more_seconds: float = 0) -> T:
        """The result of what was started.

        Args:
            future: from `start`.
            doing: what it does, for messages, such as `read "a/b"`.
            more_seconds: that it may take, beyond what every call may.

        Raises:
            Aborted: it was interrupted.
            StorageError: it failed. StorageUnavailable: it took too long.
        """
        seconds = self._timeout + more_seconds
        done, _ = concurrent.futures.wait([future], seconds)
        if not done:
            self.usable = False
            raise StorageUnavailable(
                f'"{self._server}" stands still, could not {doing} in {seconds:.4g} s'
            )
        try:
            return future.result()
        except (StorageError, Aborted):
            raise
        except Exception as error:
            found = storage_error(error, self._server, doing)
            if isinstance(found, StorageUnavailable):
                self.usable = False
            raise found from error

    def call(self, doing: str, work: Callable[[], T]) -> T:
        """Do something in the thread, and wait for it; the errors are those of `wait`."""
        return self.wait(self.start(work), doing)

    def end(self) -> None:
        """Let the thread end after everything that was started."""
        self._jobs.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(max(0.0, seconds))


def interrupt(future: Future[Any]) -> None:
    """End the wait for something that was started; it is not begun, or left to end by itself."""
    with suppress(InvalidStateError):
        future.set_exception(Aborted())


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if future.done():  # Interrupted before it began.
        return
    # Interrupted meanwhile, nobody waits for it any more.
    with suppress(InvalidStateError):
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)


class Sessions:
    """The sessions of one storage."""

    def __init__(self, connect: Callable[[], Tree], server: str, timeout: float) -> None:
        self._make = partial(Session, connect, server, timeout)
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[Session] = []
        self._ending: WeakSet[Session] = WeakSet()

    def take(self) -> Session:
        """A session, to be given back with `give_back`."""
        while True:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            if session is None:
                return self._make()
            if time.monotonic() - session.idle_since < _ALIVE_SECONDS or _is_alive(session):
                return session
            self.drop(session)

    def give_back(self, session: Session) -> None:
        """Keep a session for others if it can still be used, else let it end."""
        with self._lock:
            if session.usable and not self._closed and len(self._idle) < _KEPT:
                session.idle_since = time.monotonic()
                self._idle.append(session)
                return
        self.drop(session)

    def drop(self, session: Session) -> None:
        """Let a session end, after what was started there."""
        with self._lock:
            self._ending.add(session)
        session.end()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session for the length of a block."""
        session = self.take()
        try:
            yield session
        finally:
            self.give_back(session)

    def close(self) -> None:
        """Let all sessions end that nobody uses, and wait for those that can."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            self.drop(session)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for session in list(self._ending):
            session.join(deadline - time.monotonic())


def _is_alive(session: Session) -> bool:
    try:
        session.call("look at its directory", lambda: session.tree.info(""))
    except StorageError:
        return False
    return True
