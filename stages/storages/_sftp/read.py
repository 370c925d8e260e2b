"""Reading over SFTP, with requests ahead; after a break it goes on from the byte reached."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Iterator
from typing import Any

from pipeline.stage import CHUNK
from stages.storages._names import ended_early, is_missing
from stages.storages._sftp.errors import FAILURES, MISSING, Lost
from stages.storages._sftp.link import Link
from stages.storages._sftp.part import ONE_REQUEST
from stages.storages._sftp.session import Session

_READ_AHEAD = 8
"""Chunks asked for before they are wanted."""


class Reader:
    """Reads one object once; for one thread.

    Args:
        link: where sessions come from.
        name: of the object.
        path: on the server.
    """

    def __init__(self, link: Link, name: str, path: str) -> None:
        self._link = link
        self._name = name
        self._path = path
        self._doing = f'read "{name}"'
        self._patience = link.patience()
        self._session: Session
        self._file: Any
        self._size = 0
        self._asked = 0
        """Offset of the first byte that was not asked for yet."""
        self._answers: deque[tuple[int, concurrent.futures.Future[bytes]]] = deque()

    def chunks(self, offset: int) -> Iterator[bytes]:
        """The object from an offset to its end; raises what `Storage.open` raises."""
        self._session, (self._file, self._size) = self._link.run(
            self._link.start(self._doing, self._open)
        )
        try:
            if offset > self._size:
                raise ended_early(self._name, offset)
            self._asked = offset
            while offset < self._size:
                chunk = self._next(offset)
                offset += len(chunk)
                yield chunk
            self._link.run(self._session.close())
        finally:
            self._forget_answers()
            self._link.loop.call_soon(self._session.abort)

    def _next(self, offset: int) -> bytes:
        while True:
            try:
                self._ask()
                expected, answer = self._answers.popleft()
                chunk = self._link.wait(answer)
            except Lost as error:
                self._go_on(offset, error)
                continue
            if len(chunk) != expected:
                raise ended_early(self._name, self._size)
            self._patience.progress()
            return chunk

    def _ask(self) -> None:
        block = self._session.sftp.limits.max_read_len
        most = max(CHUNK // block * block, CHUNK % block)
        while self._asked < self._size and len(self._answers) < _READ_AHEAD:
            length = min(most, self._size - self._asked)
            work = self._read(self._session, self._file, self._asked, length)
            self._answers.append((length, self._link.submit(work)))
            self._asked += length

    async def _read(self, session: Session, file: Any, offset: int, length: int) -> bytes:
        block = session.sftp.limits.max_read_len
        blocks = (
            self._read_block(file, at, min(block, offset + length - at))
            for at in range(offset, offset + length, block)
        )
        try:
            return b"".join(await asyncio.gather(*blocks))
        except FAILURES as error:
            raise session.error(error, self._doing) from error

    async def _read_block(self, file: Any, offset: int, length: int) -> bytes:
        found: bytes = await file.read(length, offset)
        if found and len(found) < length:  # A server may return less than it was asked for.
            found += await self._read_block(file, offset + len(found), length - len(found))
        return found

    def _forget_answers(self) -> None:
        for _, answer in self._answers:
            answer.cancel()
        self._answers.clear()

    def _go_on(self, offset: int, error: Lost) -> None:
        self._forget_answers()
        self._link.run(self._recover(error))
        self._asked = offset

    async def _recover(self, error: Lost) -> None:
        self._session.abort()
        await self._link.go_on(self._patience, self._session, error, self._reopen)

    async def _reopen(self) -> None:
        session = await self._link.open_session()
        try:
            file, size = await self._open(session)
        except FAILURES as error:
            session.abort()
            raise session.error(error, self._doing) from error
        except BaseException:
            session.abort()
            raise
        if size != self._size:
            session.abort()
            raise ended_early(self._name, self._size)
        self._session, self._file = session, file

    async def _open(self, session: Session) -> tuple[Any, int]:
        try:
            file = await session.sftp.open(self._path, "rb", encoding=None, block_size=ONE_REQUEST)
            size: int = (await file.stat()).size
        except MISSING:
            raise is_missing(self._name) from None
        return file, size
