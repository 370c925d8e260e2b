"""A directory on an SSH server, over SFTP; requests are pipelined both ways."""

from __future__ import annotations

import asyncio
import posixpath
import threading
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from pipeline.errors import StorageError
from pipeline.naming import parse_part, part_name
from pipeline.report import format_size
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import SftpStorage
from stages.storages._names import check_name, check_part, check_prefix
from stages.storages._sftp.errors import FAILURES, MISSING, Lost
from stages.storages._sftp.link import Link
from stages.storages._sftp.part import NewPart, Place
from stages.storages._sftp.read import Reader
from stages.storages._sftp.session import Session
from stages.storages._sftp.ssh import Connector
from stages.storages._sftp.window import WINDOW_BYTES
from stages.storages._sftp.writer import SftpWriter

_AT_ONCE = 16
"""Requests of one operation on many names that are in flight together."""
_DIRECTORY = 2
_REGULAR = 1


class Sftp(Storage):
    """Objects are files below `path` on the server.

    A connection that breaks is made again, for `timeout`: an upload goes on with what the server
    has not acknowledged, a download from the byte reached (see `_sftp/upload.py`).
    """

    # The window, once more when it is encrypted and waits for the kernel, the chunk whose end is
    # still in the window, and small chunks that are being joined.
    memory = 2 * WINDOW_BYTES + 2 * CHUNK

    def __init__(self, spec: SftpStorage) -> None:
        self._spec = spec
        self._root = spec.path
        self._connector = Connector(spec)
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
        session, file = await link.start(f'write "{place.name}"', NewPart(place))
        block = min(session.sftp.limits.max_write_len, CHUNK)
        return SftpWriter(link, session, file, place, block)

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        yield from Reader(self._link, name, self._locate(name)).chunks(offset)

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
        async def walk(session: Session) -> Sequence[ObjectInfo]:
            return await self._list_directory(session, prefix, asyncio.Semaphore(_AT_ONCE))

        return await link.perform(f'list "{prefix}"', walk)

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

        async def remove(session: Session, name: str) -> StorageError | None:
            async with gate:
                try:
                    await session.sftp.remove(self._locate(name))
                except MISSING:
                    return None
                except FAILURES as error:
                    denial = session.error(error, f'delete "{name}"')
                    if isinstance(denial, Lost):
                        raise
                    return denial
                return None

        async def remove_all(session: Session) -> list[StorageError | None]:
            errors = await asyncio.gather(*(remove(session, name) for name in names))
            # One of each directory, and not at once: they share parents.
            for name in {posixpath.dirname(name): name for name in names}.values():
                await session.remove_empty_parents(self._root, name)
            return errors

        for error in await link.perform("delete objects", remove_all):
            if error:
                raise error

    def probe(self) -> Sequence[str]:
        link = self._link
        facts = [f'directory "{self._root}" on "{link.server}" as "{self._spec.user}"']
        facts += link.run(link.perform("ask the server about itself", self._facts))
        if not self._spec.host_key_check:
            facts.append("warning: the host key is not checked; anyone on the way can pose as it")
        return facts

    async def _facts(self, session: Session) -> Sequence[str]:
        told = session.connection.get_extra_info
        facts = [
            f"server: {told('server_version').removeprefix('SSH-2.0-')}",
            f"cipher: {told('send_cipher')}",
        ]
        # The directory may not be there yet, but one above it is.
        for path in (self._root, *map(str, PurePosixPath(self._root).parents)):
            free = await session.free_space(path)
            if free is not None:
                return [*facts, f"free space: {format_size(free)}"]
        return facts


COMPONENT = Sftp
