"""A directory on an SSH server, over SFTP; requests are pipelined both ways."""

from __future__ import annotations

import asyncio
import concurrent.futures
import posixpath
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pipeline.errors import StorageError
from pipeline.naming import parse_part, part_name
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import SftpStorage
from stages.storages._names import (
    check_name,
    check_part,
    check_prefix,
    ended_early,
    exists_already,
    in_progress,
    is_missing,
)
from stages.storages._probe import readable_size, round_trip
from stages.storages._sftp.link import FAILURES, MISSING, Link, Session
from stages.storages._sftp.quiet_asyncssh import asyncssh
from stages.storages._sftp.ssh import Connector, Keepalive
from stages.storages._sftp.writer import WINDOW_BYTES, Place, SftpWriter

_FILE_MODE = 0o600
_READ_AHEAD = 8
"""Chunks asked for before they are wanted."""
_AT_ONCE = 16
"""Requests of one operation on many names that are in flight together."""
_CREATE_ATTEMPTS = 30
_DIRECTORY = 2
_REGULAR = 1


class Sftp(Storage):
    """Objects are files below `path` on the server."""

    # Blocks are held until acknowledged, and once more while they wait to be encrypted.
    memory = 2 * WINDOW_BYTES

    def __init__(self, spec: SftpStorage, _keepalive: Keepalive | None = None) -> None:
        self._spec = spec
        self._root = spec.path
        self._connector = Connector(spec, _keepalive or Keepalive())
        self._lock = threading.Lock()
        self._current: Link | None = None

    @property
    def _link(self) -> Link:
        with self._lock:
            if self._current is None:
                self._current = Link(self._connector)
            return self._current

    def _locate(self, name: str) -> str:
        return posixpath.join(self._root, name) if name else self._root

    def close(self) -> None:
        with self._lock:
            link, self._current = self._current, None
        if link:
            link.close()

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        part = part_name(name, token)
        place = Place(self._root, name, part, self._locate(part), self._locate(name))
        link = self._link
        return link.run(self._create(link, place))

    async def _create(self, link: Link, place: Place) -> SftpWriter:
        session = await link.open_session()
        try:
            file = await self._open_part(session, place)
        except FAILURES as error:
            session.abort()
            raise session.error(error, f'write "{place.name}"') from error
        except BaseException:
            session.abort()
            raise
        block = min(session.sftp.limits.max_write_len, WINDOW_BYTES // 4)
        return SftpWriter(link, session, file, place, block)

    async def _open_part(self, session: Session, place: Place) -> Any:
        if await session.exists(place.final_path):
            raise exists_already(place.name)
        for _ in range(_CREATE_ATTEMPTS):
            # Whoever removes the last object of a directory removes the directory too.
            with suppress(*MISSING):
                return await self._open_new(session, place)
            with suppress(*MISSING):
                await session.make_directories(posixpath.dirname(place.part_path))
        return await self._open_new(session, place)

    async def _open_new(self, session: Session, place: Place) -> Any:
        try:
            return await session.sftp.open(
                place.part_path,
                "xb",
                asyncssh.SFTPAttrs(permissions=_FILE_MODE),
                block_size=0,  # One request for each call: the window is ours.
            )
        except asyncssh.SFTPFailure:
            if await session.exists(place.part_path):
                raise in_progress(place.name) from None
            raise

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        link = self._link
        session, file, size = link.run(self._open(link, name))
        reads: deque[tuple[int, concurrent.futures.Future[bytes]]] = deque()
        asked = offset
        try:
            if offset > size:
                raise ended_early(name, offset)
            while asked < size or reads:
                while asked < size and len(reads) < _READ_AHEAD:
                    length = min(CHUNK, size - asked)
                    reads.append((length, link.submit(self._read(session, file, asked, length))))
                    asked += length
                length, future = reads.popleft()
                chunk = link.wait(future)
                if len(chunk) != length:
                    raise ended_early(name, size)
                yield chunk
            link.run(session.close())
        finally:
            for _, future in reads:
                future.cancel()
            link.loop.call_soon(session.abort)

    async def _open(self, link: Link, name: str) -> tuple[Session, Any, int]:
        session = await link.open_session()
        try:
            file = await session.sftp.open(self._locate(name), "rb", encoding=None)
            size = (await file.stat()).size
        except MISSING:
            session.abort()
            raise is_missing(name) from None
        except FAILURES as error:
            session.abort()
            raise session.error(error, f'read "{name}"') from error
        return session, file, size

    async def _read(self, session: Session, file: Any, offset: int, length: int) -> bytes:
        try:
            return bytes(await file.read(length, offset))
        except FAILURES as error:
            raise session.error(error, "read an object") from error

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        found = self._files(prefix)
        visible = (info for info in found if not posixpath.basename(info.name).startswith("."))
        return sorted(visible, key=lambda info: info.name)

    def unfinished(self, prefix: str) -> Sequence[str]:
        return sorted(info.name for info in self._files(prefix) if parse_part(info.name))

    def _files(self, prefix: str) -> Sequence[ObjectInfo]:
        """All regular files below a directory, hidden ones included, hidden directories not."""
        check_prefix(prefix)
        link = self._link
        return link.run(self._walk(link, prefix))

    async def _walk(self, link: Link, prefix: str) -> Sequence[ObjectInfo]:
        async with link.session(f'list "{prefix}"') as session:
            return await self._list_directory(session, prefix, asyncio.Semaphore(_AT_ONCE))

    async def _list_directory(
        self, session: Session, directory: str, gate: asyncio.Semaphore
    ) -> Sequence[ObjectInfo]:
        async with gate:
            try:
                path = self._locate(directory)
                entries = [entry async for entry in session.sftp.scandir(path)]
            except MISSING:
                return []
        found, below = [], []
        for entry in entries:
            name = posixpath.join(directory, entry.filename)
            if entry.attrs.type == _REGULAR:
                found.append(ObjectInfo(name, entry.attrs.size))
            elif entry.attrs.type == _DIRECTORY and not entry.filename.startswith("."):
                below.append(self._list_directory(session, name, gate))
        for nested in await asyncio.gather(*below):
            found += nested
        return found

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        link = self._link
        link.run(self._remove(link, names))

    def sweep(self, names: Sequence[str]) -> None:
        for name in names:
            check_part(name)
        link = self._link
        link.run(self._remove(link, names))

    async def _remove(self, link: Link, names: Sequence[str]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)
        async with link.session("delete objects") as session:

            async def remove(name: str) -> StorageError | None:
                async with gate:
                    try:
                        await session.sftp.remove(self._locate(name))
                    except MISSING:
                        return None
                    except FAILURES as error:
                        return session.error(error, f'delete "{name}"')
                    return None

            errors = await asyncio.gather(*(remove(name) for name in names))
            # One of each directory, and not at once: they share parents.
            for name in {posixpath.dirname(name): name for name in names}.values():
                await session.remove_empty_parents(self._root, name)
        for error in errors:
            if error:
                raise error

    def probe(self) -> Sequence[str]:
        round_trip(self)
        link = self._link
        facts = [f'directory "{self._root}" on "{link.server}" can be written, read and cleared']
        facts += link.run(self._facts(link))
        if not self._spec.host_key_check:
            facts.append("warning: the host key is not checked; anyone on the way can pose as it")
        return facts

    async def _facts(self, link: Link) -> Sequence[str]:
        async with link.session("ask the server about itself") as session:
            told = session.connection.get_extra_info
            facts = [
                f"server: {told('server_version').removeprefix('SSH-2.0-')}",
                f"cipher: {told('send_cipher')}",
            ]
            free = await session.free_space(self._root)
            if free is not None:
                facts.append(f"free space: {readable_size(free)}")
            return facts


COMPONENT = Sftp
