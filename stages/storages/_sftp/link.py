"""SFTP sessions over shared SSH connections, from blocking code."""

from __future__ import annotations

import asyncio
import concurrent.futures
import posixpath
from collections.abc import Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import StorageError, StorageRefused, StorageUnavailable
from stages.storages import _loop
from stages.storages._sftp.quiet_asyncssh import asyncssh
from stages.storages._sftp.ssh import LOST_BY, Connector, reason_of, server_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")

_CLOSE_SECONDS = 2.0
_NO_SUBSYSTEM = 0xFFFFFFFF
"""asyncssh's code for a session that was opened but did not get its subsystem."""
_DIRECTORY_MODE = 0o750

_UNAVAILABLE = (
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncio.TimeoutError,
    asyncio.IncompleteReadError,
    asyncio.CancelledError,
    OSError,
)
"""What the library raises when the server is gone."""
FAILURES = (asyncssh.Error, OSError, asyncio.TimeoutError, EOFError)
"""Everything the library raises."""
MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


class Session:
    """One SFTP session: a channel, and a process on the server, of its own."""

    def __init__(self, server: str, connection: Any, sftp: Any) -> None:
        self._server = server
        self.connection = connection
        self.sftp = sftp

    def error(self, error: BaseException, doing: str) -> StorageError:
        """What an error of the library means to a storage.

        Args:
            error: as raised by asyncssh.
            doing: what was tried, such as `read "a/b"`.
        """
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            hint = "check owner and mode there"
            return StorageRefused(f'"{self._server}" did not permit to {doing}', hint)
        if not isinstance(error, _UNAVAILABLE):
            return StorageRefused(f'"{self._server}" refused to {doing}: {reason_of(error)}')
        if isinstance(error, asyncio.CancelledError):
            why = "it was closed"
        else:
            # The connection often knows more than what was under way on it.
            why = reason_of(self.connection.get_extra_info(LOST_BY) or error)
        return StorageUnavailable(
            f'lost the connection to "{self._server}", could not {doing}: {why}'
        )

    def abort(self) -> None:
        """Drop the channel with all that is still queued on it; nothing, once it is closed."""
        writer = self.sftp._handler._writer  # The library has no public way to drop the queue.
        if writer is not None:
            writer.channel.abort()

    async def close(self) -> None:
        """End it in order, so that the server counts it no more; bounded, and never raises."""
        with suppress(*FAILURES):  # What it was for is done.
            self.sftp.exit()
            await asyncio.wait_for(self.sftp.wait_closed(), _CLOSE_SECONDS)

    async def exists(self, path: str) -> bool:
        try:
            await self.sftp.lstat(path)
        except MISSING:
            return False
        return True

    async def free_space(self, path: str) -> int | None:
        """Bytes we may still write there; None when the server does not say."""
        try:
            space = await self.sftp.statvfs(path)
        except asyncssh.SFTPError:
            return None
        return int(space.bavail * space.frsize)

    async def make_directories(self, path: str) -> None:
        """Make a directory and those above it; existing ones are fine."""
        if path in ("", "/") or await self.exists(path):
            return
        await self.make_directories(posixpath.dirname(path))
        try:
            await self.sftp.mkdir(path, asyncssh.SFTPAttrs(permissions=_DIRECTORY_MODE))
        except asyncssh.SFTPFailure:
            if not await self.exists(path):  # Else somebody was faster.
                raise

    async def remove_empty_parents(self, root: str, name: str) -> None:
        """Remove the directories above an object that hold nothing any more, but never the root."""
        parts = name.split("/")[:-1]
        with suppress(asyncssh.SFTPError):  # Not empty: the usual end.
            while parts:
                await self.sftp.rmdir(posixpath.join(root, *parts))
                parts.pop()


class Link:
    """The connections of one storage; connects when a session is asked for."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._connections: list[Any] = []
        self._closed = False
        self._opening = asyncio.Lock()
        self.server = server_name(connector.spec)
        self._timeout = connector.spec.connect_timeout
        self.loop = _loop.acquire()

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
            raise StorageUnavailable(f'the connection to "{self.server}" was closed') from None

    @asynccontextmanager
    async def session(self, doing: str) -> AsyncIterator[Session]:
        """A session for the length of a block, whose errors come out as storage errors."""
        session = await self.open_session()
        try:
            yield session
            await session.close()
        except FAILURES as error:
            raise session.error(error, doing) from error
        finally:
            session.abort()

    async def open_session(self) -> Session:
        """A session over a connection we have, or over a new one.

        A connection may have died while nobody used it, and a server limits the sessions of each.

        Raises:
            StorageError: there is none to be had.
        """
        async with self._opening:
            if self._closed:
                raise StorageUnavailable("the connection was closed")
            for connection in list(self._connections):
                session = await self._try(connection)
                if session is not None:
                    return session
            connection = await self._connector.connect()
            self._connections.append(connection)
            try:
                return await self._start(connection)
            except FAILURES as error:
                session = Session(self.server, connection, None)
                raise session.error(error, "start an SFTP session") from error

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
                connection.start_sftp_client(path_errors="surrogateescape"), self._timeout
            )
        except asyncssh.ChannelOpenError as error:
            if error.code == _NO_SUBSYSTEM:
                hint = "is SFTP switched on for this user?"
                raise StorageRefused(f'"{self.server}" offers no SFTP', hint) from error
            raise
        except asyncssh.SFTPBadMessage as error:
            hint = "does the login shell of the user print something?"
            raise StorageRefused(f'"{self.server}" does not speak SFTP', hint) from error
        return Session(self.server, connection, sftp)

    def close(self) -> None:
        """Drop all connections; what still uses them gets an error."""
        try:
            self.run(self._close())
        finally:
            _loop.release(self.loop)

    async def _close(self) -> None:
        self._closed = True
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
            try:
                await asyncio.wait_for(connection.wait_closed(), _CLOSE_SECONDS)
            except asyncio.TimeoutError:
                connection.abort()
