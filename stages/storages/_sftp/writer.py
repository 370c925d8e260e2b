"""Writing over SFTP: a window of WRITE requests in flight.

One request at a time would wait a round trip for each; a window keeps the connection full. Blocks
stay here until the server has acknowledged them, so that everything from the first unacknowledged
offset on could be sent again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import Writer
from stages.storages._names import exists_already, was_removed
from stages.storages._sftp.link import FAILURES, MISSING, Link, Session
from stages.storages._sftp.quiet_asyncssh import asyncssh

T = TypeVar("T")

WINDOW = 64
"""Requests in flight at most."""
WINDOW_BYTES = 8 << 20
"""Bytes in flight at most: four times what OpenSSH lets a client send ahead."""
ABORT_SECONDS = 3.0
"""How long `abort` may try to remove what it leaves behind."""
_ALMOST_FULL = 1 << 20
"""Free bytes on the server that explain a failed WRITE."""


@dataclass(frozen=True)
class Place:
    """Where an object goes."""

    root: str
    name: str
    part: str
    """Name of the unfinished object, relative to the root like `name`."""
    part_path: str
    final_path: str


class SftpWriter(Writer):
    """An open `.name.token.part` on the server, and the window of blocks on their way there."""

    def __init__(self, link: Link, session: Session, file: Any, place: Place, block: int) -> None:
        self._link = link
        self._session = session
        self._file = file
        self._place = place
        self._block = block
        self._doing = f'write "{place.name}"'
        self._tail = bytearray()
        self._offset = 0
        self._synced = False
        # Everything below is shared with the loop's thread, and guarded by _changed.
        self._changed = threading.Condition()
        self._unacknowledged: dict[int, bytes] = {}
        self._in_flight = 0
        self._error: StorageError | None = None
        self._call: concurrent.futures.Future[Any] | None = None
        self._tasks: set[Any] = set()
        self._aborted = False
        self._committed = False

    def write(self, chunk: bytes) -> None:
        self._synced = False
        self._tail += chunk
        whole = len(self._tail) // self._block * self._block
        self._send(whole)

    def flush(self) -> None:
        self._send(len(self._tail))
        with self._changed:
            self._changed.wait_for(lambda: not self._unacknowledged or self._is_over())
            self._check()
        if not self._synced:
            self._wait_for(self._sync)
        self._synced = True

    def commit(self) -> None:
        self.flush()
        self._wait_for(self._publish)
        self._committed = True

    def abort(self) -> None:
        with self._changed:
            if self._committed or self._aborted:
                return
            self._aborted = True
            self._unacknowledged.clear()
            self._changed.notify_all()
            call = self._call
        if call:
            call.cancel()
        # Never raises, by contract: `sweep` finds what a dead connection keeps.
        with suppress(Exception):
            cleanup = self._link.submit(self._clean_up())
            try:
                cleanup.result(ABORT_SECONDS)
            finally:
                cleanup.cancel()

    def _is_over(self) -> bool:
        return self._aborted or self._error is not None

    def _check(self) -> None:
        if self._aborted or self._committed:
            raise Aborted
        if self._error:
            raise self._error

    def _send(self, size: int) -> None:
        """Send the first bytes of the tail, in blocks, as the window allows."""
        with self._changed:
            self._check()
        data, self._tail = self._tail[:size], self._tail[size:]
        blocks = (bytes(data[at : at + self._block]) for at in range(0, size, self._block))
        for block in blocks:
            with self._changed:
                self._changed.wait_for(lambda: self._has_room() or self._is_over())
                self._check()
                self._unacknowledged[self._offset] = block
                self._in_flight += len(block)
            if not self._link.loop.call_soon(self._start_write, self._offset, block):
                self._fail(self._session.error(asyncio.CancelledError(), self._doing))
            self._offset += len(block)

    def _has_room(self) -> bool:
        return len(self._unacknowledged) < WINDOW and self._in_flight + self._block <= WINDOW_BYTES

    def _start_write(self, offset: int, block: bytes) -> None:
        """On the loop's thread: send one block without waiting for the answer."""
        if not self._is_over():
            task = self._link.loop.loop.create_task(self._write_block(offset, block))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _write_block(self, offset: int, block: bytes) -> None:
        try:
            await self._file.write(block, offset)
        except asyncssh.SFTPFailure:
            self._fail(await self._explain())
        except (*FAILURES, asyncio.CancelledError) as error:
            self._fail(self._session.error(error, self._doing))
        else:
            with self._changed:
                self._unacknowledged.pop(offset, None)
                self._in_flight -= len(block)
                self._changed.notify_all()

    def _fail(self, error: StorageError) -> None:
        """Note the first error, for whoever waits or writes next."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    async def _explain(self) -> StorageError:
        """SFTP version 3 has one code for every failed write; a full disk can be seen."""
        message = f'"{self._link.server}" could not store all of "{self._place.name}"'
        try:
            free = await self._session.free_space(self._place.root)
        except FAILURES as error:
            return self._session.error(error, self._doing)
        if free is not None and free < _ALMOST_FULL:
            return StorageRefused(message, "no space left on the server")
        return StorageRefused(
            message, "it does not say why; often its disk is full or a quota is reached"
        )

    def _wait_for(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function on the loop; `abort` ends the wait."""
        try:
            with self._changed:
                self._check()
                self._call = call = self._link.submit(self._translated(work))
            return self._link.wait(call)
        except StorageError as error:
            self._fail(error)
            if self._aborted:
                raise Aborted from None
            raise
        finally:
            with self._changed:
                self._call = None

    async def _translated(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await work()
        except FAILURES as error:
            raise self._session.error(error, self._doing) from error

    async def _sync(self) -> None:
        """Have the data reach the server's disk, where the server can do that (OpenSSH can)."""
        with suppress(asyncssh.SFTPOpUnsupported):
            await self._file.fsync()

    async def _publish(self) -> None:
        sftp, place = self._session.sftp, self._place
        await self._file.close()
        try:
            stored = (await sftp.stat(place.part_path)).size
        except MISSING:
            raise was_removed(place.name) from None
        if stored != self._offset:
            raise StorageRefused(
                f'"{self._link.server}" holds {stored} bytes of "{place.name}", '
                f"{self._offset} were sent"
            )
        # Some servers let a plain rename replace its target; OpenSSH does not.
        if await self._session.exists(place.final_path):
            raise exists_already(place.name)
        await self._rename()
        await self._session.close()

    async def _rename(self) -> None:
        sftp, place = self._session.sftp, self._place
        try:
            await sftp.rename(place.part_path, place.final_path)
        except asyncssh.SFTPFailure:
            if await self._session.exists(place.final_path):
                raise exists_already(place.name) from None
            raise
        except FAILURES as error:
            lost = self._session.error(error, self._doing)
            if not isinstance(lost, StorageUnavailable) or not await self._was_renamed():
                raise

    async def _was_renamed(self) -> bool:
        """Look, over a new connection, what became of a rename that nobody answered."""
        async with self._link.session(self._doing) as session:
            if await session.exists(self._place.part_path):
                return False
            found = await session.sftp.stat(self._place.final_path)
            return bool(found.size == self._offset)

    def __del__(self) -> None:
        if not (self._aborted or self._committed):
            self._link.loop.call_soon(self._session.abort)

    async def _clean_up(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._session.abort()
        async with self._link.session(f'remove "{self._place.part}"') as session:
            with suppress(*MISSING):
                await session.sftp.remove(self._place.part_path)
            await session.remove_empty_parents(self._place.root, self._place.part)
