"""The half of a writer that runs on the loop: sends blocks, and goes on when a connection breaks.

What a server has acknowledged it has, or at least has in the memory of its kernel: a new connection
finds it in the file. Blocks carry their offset, so sending one again, even while the old connection
still brings it, writes the same bytes to the same place. A server that crashed may have lost what
it acknowledged before it was synced: then the file is too short, and the upload cannot go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pipeline.errors import StorageError, StorageRefused
from stages.storages._sftp.errors import FAILURES, Lost, was_closed
from stages.storages._sftp.link import CannotGoOn, Link
from stages.storages._sftp.part import Place, Publishing, find_part
from stages.storages._sftp.quiet_asyncssh import asyncssh
from stages.storages._sftp.session import Session
from stages.storages._sftp.window import Window

_SYNC_FACTOR = 10
"""A sync may take so much longer than other requests: servers with much memory and slow disks."""
_ALMOST_FULL = 1 << 20
"""Free bytes on the server that explain a failed WRITE."""


class Upload:
    """An open `.name.token.part` on the server, and how to get it open again.

    All is to be called on the loop's thread.

    Args:
        link: where sessions come from.
        session: a session of its own.
        file: open there, empty.
        place: where the object goes.
        window: the blocks to send; stopped when the upload fails.
    """

    def __init__(
        self, link: Link, session: Session, file: Any, place: Place, window: Window
    ) -> None:
        self._link = link
        self._session = session
        self._file = file
        self._place = place
        self._window = window
        self._doing = f'write "{place.name}"'
        self._patience = link.patience()
        self._publishing = Publishing(link.server, place)
        self._next = 0
        """Offset of the first block that was not sent yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._recovery: asyncio.Task[None] | None = None

    def send(self) -> None:
        """Send what is in the window and was not sent yet, without waiting for the answers."""
        if self._recovery is None:
            for offset, block in self._window.since(self._next):
                self._start(self._write(self._session, self._file, offset, block))
                self._next = offset + len(block)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._link.loop.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = was_closed(self._link.server) if task.cancelled() else task.exception()
        if error is not None:
            self._window.stop(error)

    async def _write(self, session: Session, file: Any, offset: int, block: memoryview) -> None:
        try:
            await file.write(block, offset)
        except asyncssh.SFTPFailure:
            self._fail(session, await self._explain(session))
        except FAILURES as error:
            self._fail(session, session.error(error, self._doing))
        else:
            self._patience.progress()
            self._window.acknowledge(offset)

    def _fail(self, session: Session, error: StorageError) -> None:
        if not isinstance(error, Lost):
            self._window.stop(error)
        elif session is self._session and self._recovery is None:
            self._recovery = self._start(self._recover(error))

    async def _explain(self, session: Session) -> StorageError:
        """SFTP version 3 has one code for every failed write; a full disk can be seen."""
        message = f'"{self._link.server}" could not store all of "{self._place.name}"'
        try:
            free = await session.free_space(self._place.root)
        except FAILURES as error:
            return session.error(error, self._doing)
        if free is not None and free < _ALMOST_FULL:
            return StorageRefused(message, "no space left on the server")
        return StorageRefused(
            message, "it does not say why; often its disk is full or a quota is reached"
        )

    # Going on

    async def _recover(self, error: Lost) -> None:
        await self._go_on(error)
        self._recovery = None
        self._next = 0
        self.send()

    async def _go_on(self, error: Lost) -> None:
        self._session.abort()
        await self._link.go_on(self._patience, self._session, error, self._reopen)

    async def _reopen(self) -> None:
        session = await self._link.open_session()
        try:
            # When the rename may be done, there may be no such file.
            file = None if self._publishing.may_be_done else await self._find(session)
        except FAILURES as error:
            session.abort()
            raise session.error(error, self._doing) from error
        except BaseException:
            session.abort()
            raise
        self._session, self._file = session, file

    async def _find(self, session: Session) -> Any:
        file = await find_part(session, self._place)
        size = (await file.stat()).size
        if size < self._window.reached:
            raise CannotGoOn(
                f'"{self._link.server}" holds {size} bytes of "{self._place.name}", and had '
                f"acknowledged {self._window.reached}",
                "it lost some; did it crash?",
            )
        return file

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something that can be done again; when the connection breaks, over the next one."""
        while True:
            try:
                await work()
            except FAILURES as error:
                broken = self._session.error(error, self._doing)
                if not isinstance(broken, Lost):
                    raise broken from error
                await self._go_on(broken)
            else:
                self._patience.progress()
                return

    # Ending

    async def sync(self) -> None:
        """Have the data reach the server's disk, where the server can do that (OpenSSH can)."""
        await self._insist(self._sync)

    async def _sync(self) -> None:
        with self._session.slow(_SYNC_FACTOR), suppress(asyncssh.SFTPOpUnsupported):
            await self._file.fsync()

    async def publish(self) -> None:
        """Give the object its name, when all of it is there."""
        await self._insist(self._publish)
        await self._session.close()

    async def _publish(self) -> None:
        if self._file is not None:
            await self._file.close()
            self._file = None
        await self._publishing(self._session, self._window.end)

    def drop(self) -> None:
        """Stop sending, and let go of the session."""
        for task in list(self._tasks):
            task.cancel()
        self._session.abort()

    async def clean_up(self) -> None:
        """Remove what is there of the object."""
        self.drop()

        async def remove(session: Session) -> None:
            await self._publishing.take_back(session, self._window.end)

        await self._link.perform(f'remove "{self._place.part}"', remove)
