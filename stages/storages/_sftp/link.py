"""SFTP sessions over shared SSH connections, from blocking code."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.errors import StorageError, StorageRefused, StorageUnavailable
from stages.storages import _loop
from stages.storages._sftp.errors import FAILURES, Lost, storage_error, was_closed
from stages.storages._sftp.lean import lighten_session
from stages.storages._sftp.patience import Patience
from stages.storages._sftp.quiet_asyncssh import asyncssh
from stages.storages._sftp.session import Session
from stages.storages._sftp.ssh import LOST_BY, Connector, server_name

T = TypeVar("T")

_CLOSE_SECONDS = 2.0
_NO_SUBSYSTEM = 0xFFFFFFFF
"""asyncssh's code for a session that was opened but did not get its subsystem."""


class CannotGoOn(StorageUnavailable):
    """The connection was lost, and another one does not help."""


class Link:
    """The connections of one storage; connects when a session is asked for.

    A session whose requests stay unanswered for half of `timeout` is dropped like one whose
    connection broke; what can be done again is then tried until the time is up (see `Patience`).
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._connections: list[Any] = []
        self._closing = asyncio.Event()
        self._opening = asyncio.Lock()
        self.server = server_name(connector.spec)
        self._connect_timeout = connector.spec.connect_timeout
        self._timeout = connector.spec.timeout
        self.loop = _loop.acquire()

    # From any thread

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return self.loop.submit(work)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it."""
        return self.wait(self.submit(work))

    def wait(self, future: concurrent.futures.Future[T]) -> T:
        """The result of a future from `submit`.

        Raises:
            StorageUnavailable: it was cancelled, as `close` does.
        """
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise was_closed(self.server) from None
        except StorageError:
            raise
        except Exception as error:
            # What is pulled away under a connection that is being opened makes it fail in any way.
            if self._closing.is_set():
                raise was_closed(self.server) from error
            raise

    def patience(self) -> Patience:
        return Patience(self._timeout)

    def close(self) -> None:
        """Drop all connections; what still uses them gets an error."""
        try:
            self.run(self._close())
        finally:
            _loop.release(self.loop)

    async def _close(self) -> None:
        self._closing.set()
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
            try:
                await asyncio.wait_for(connection.wait_closed(), _CLOSE_SECONDS)
            except asyncio.TimeoutError:
                connection.abort()

    # On the loop's thread

    async def perform(self, doing: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """Do something that may be done twice: again when the connection breaks.

        Args:
            doing: what it is, for messages, such as `list "a"`.
            work: does it.

        Raises:
            StorageError: there is no connection to be had, it was refused, or `work` raised it.
        """
        session, result = await self.start(doing, work)
        await session.close()
        return result

    async def start(self, doing: str, work: Callable[[Session], Awaitable[T]]) -> tuple[Session, T]:
        """Like `perform`; the session stays, for the caller to go on with."""
        session = await self.open_session()
        patience = self.patience()
        while True:
            try:
                return session, await work(session)
            except FAILURES as error:
                broken = session.error(error, doing)
                session.abort()
                if not isinstance(broken, Lost):
                    raise broken from error
            except BaseException:
                session.abort()
                raise
            session = await self.go_on(patience, session, broken, self.open_session)

    async def go_on(
        self,
        patience: Patience,
        session: Session,
        broken: StorageUnavailable,
        reopen: Callable[[], Awaitable[T]],
    ) -> T:
        """After a connection broke, try to open another until that works or the time is up.

        Args:
            patience: says when the time is up.
            session: the one that broke.
            broken: the error that it ended with.
            reopen: opens one; called again when it raises `StorageUnavailable`.
        """
        patience.strain(session.heard)
        while (delay := patience.next_delay()) is not None:
            await self._pause(delay)
            try:
                return await asyncio.wait_for(reopen(), patience.attempt)
            except CannotGoOn:
                raise
            except StorageUnavailable as error:
                broken = error
            except asyncio.TimeoutError:
                broken = StorageUnavailable(f'"{self.server}" did not answer')
        hint = f"gave up after {patience.seconds:g} s without progress"
        raise StorageUnavailable(broken.message, hint) from broken

    async def _pause(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
        self._check_open()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise was_closed(self.server)

    async def open_session(self) -> Session:
        """A session over a connection we have, or over a new one.

        A connection may have died while nobody used it, and a server limits the sessions of each.

        Raises:
            StorageError: there is none to be had.
        """
        async with self._opening:
            self._check_open()
            for connection in list(self._connections):
                session = await self._try(connection)
                if session is not None:
                    return session
            connection = await self._connector.connect()
            if self._closing.is_set():  # Meanwhile, by another thread.
                connection.abort()
            self._check_open()
            self._connections.append(connection)
            try:
                return await self._start(connection)
            except FAILURES as error:
                loss = connection.get_extra_info(LOST_BY)
                raise storage_error(error, self.server, "start an SFTP session", loss) from error

    async def _try(self, connection: Any) -> Session | None:
        try:
            return await self._start(connection)
        except asyncssh.ChannelOpenError:
            if not connection.is_closed():
                return None  # It has all the sessions it may have.
        except FAILURES:
            pass  # Dead: the new connection tells what is wrong, if it still is.
        connection.abort()
        self._connections.remove(connection)
        return None

    async def _start(self, connection: Any) -> Session:
        try:
            sftp = await asyncio.wait_for(
                connection.start_sftp_client(path_errors="surrogateescape"), self._connect_timeout
            )
        except asyncssh.ChannelOpenError as error:
            if error.code == _NO_SUBSYSTEM:
                hint = "is SFTP switched on for this user?"
                raise StorageRefused(f'"{self.server}" offers no SFTP', hint) from error
            raise
        except asyncssh.SFTPBadMessage as error:
            hint = "does the login shell of the user print something?"
            raise StorageRefused(f'"{self.server}" does not speak SFTP', hint) from error
        lighten_session(sftp)
        return Session(self.server, connection, sftp, self._timeout / 2)
