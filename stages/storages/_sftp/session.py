"""One SFTP session: what is asked over it, and when its silence has lasted too long."""

from __future__ import annotations

import asyncio
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.errors import StorageError
from stages.storages._sftp.errors import FAILURES, LOST, MISSING, storage_error, was_closed
from stages.storages._sftp.quiet_asyncssh import asyncssh
from stages.storages._sftp.ssh import LOST_BY

_CLOSE_SECONDS = 2.0
_LOOKS = 8
"""How often silence is looked for, in the time it may last."""
_DIRECTORY_MODE = 0o750


class Silent(Exception):
    """The server has not answered for too long."""


class Session:
    """A channel, and a process on the server, of its own.

    Everything that is asked fails when the server leaves it unanswered, and gives no other sign of
    life, for `silence` seconds. To be used, and made, on the loop's thread.

    Args:
        server: its name, for messages.
        connection: of asyncssh.
        sftp: a client of asyncssh over that connection.
        silence: seconds.
    """

    def __init__(self, server: str, connection: Any, sftp: Any, silence: float) -> None:
        self._server = server
        self.connection = connection
        self.sftp = sftp
        self._handler = sftp._handler
        # The library has no public way to drop what is queued, and none to see what moves.
        self._channel = self._handler._writer.channel
        self._may_last = silence
        self._interval = silence / _LOOKS
        self._silent: Silent | None = None
        self._signs: Any = None
        self.heard = time.monotonic()
        """When the server was last heard, or asked, whichever was later; a little out of date."""
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None
        self._look()

    def _look(self) -> None:
        handler, channel = self._handler, self._channel
        waiting = len(handler._requests)
        # Answers, data of answers, and room for more requests are what a server sends.
        signs = (handler._next_pktid - waiting, channel._recv_window, channel._send_window)
        now = time.monotonic()
        if not waiting or signs != self._signs:
            self._signs, self.heard = signs, now
        if now - self.heard < self._may_last:
            self._timer = self._loop.call_later(self._interval, self._look)
        else:
            self._silent = Silent(f"no answer for {now - self.heard:.3g} s")
            self.abort()
            self._ending = self._loop.create_task(handler._cleanup(None))

    @contextmanager
    def slow(self, factor: float) -> Iterator[None]:
        """Allow for more silence than usual, for the length of a block."""
        usual = self._may_last
        self._may_last = usual * factor
        try:
            yield
        finally:
            self._may_last = usual

    def error(self, error: BaseException, doing: str) -> StorageError:
        """What an error of the library means to a storage.

        Args:
            error: as raised by asyncssh.
            doing: what was tried, such as `read "a/b"`.
        """
        if isinstance(error, asyncio.CancelledError):
            return was_closed(self._server)
        loss = self._silent or self.connection.get_extra_info(LOST_BY)
        return storage_error(error, self._server, doing, loss)

    def abort(self) -> None:
        """Drop the channel with all that is still queued on it; nothing, once it is closed."""
        self._timer.cancel()
        self._channel.abort()

    async def close(self) -> None:
        """End it in order, so that the server counts it no more; bounded, and never raises."""
        self._timer.cancel()
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
        except LOST:
            raise
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
        try:
            while parts:
                await self.sftp.rmdir(posixpath.join(root, *parts))
                parts.pop()
        except LOST:
            raise
        except asyncssh.SFTPError:
            return  # Not empty: the usual end.
