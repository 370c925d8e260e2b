"""Any file system that has a driver for fsspec. What each can do is in `_fsspec/kinds.py`."""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial

from pipeline.errors import StorageError
from pipeline.naming import parse_part, part_name
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import FsspecStorage
from stages.storages._fsspec.begin import begin
from stages.storages._fsspec.driver import connect, facts_of, protocols_of, server_of
from stages.storages._fsspec.kinds import kind_of
from stages.storages._fsspec.reader import Reader
from stages.storages._fsspec.session import Session, Sessions
from stages.storages._fsspec.tree import Entry
from stages.storages._fsspec.upload import Place, Upload
from stages.storages._fsspec.writer import FsspecWriter
from stages.storages._names import check_name, check_part, check_prefix

_READ_BLOCK = 4 * CHUNK
_BLOCKS_IN_MEMORY = 4
"""Drivers copy a block while they send it."""
_MOST_BLOCKS = {
    **dict.fromkeys(("s3", "s3a"), 10_000),
    **dict.fromkeys(("abfs", "abfss", "az"), 50_000),
}


class Fsspec(Storage):
    """Objects are files below a directory, or objects of a bucket.

    How an object becomes visible depends on the file system, and `check --connect` tells it. An
    object that exists is not overwritten, as far as the driver lets one see to that: the name is
    looked up when the object is created and again right before it gets its name. S3, Google, Azure,
    SMB and local files refuse by themselves; elsewhere, somebody else who uses the name between the
    look and the rename loses his file.

    An upload that breaks fails: drivers cannot take it up again. What a killed run has sent to an
    object store is invisible, but stays there until the service's rule for incomplete uploads
    removes it.
    """

    def __init__(self, spec: FsspecStorage) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._current: Sessions | None = None
        self.memory = _BLOCKS_IN_MEMORY * max(spec.block_size, _READ_BLOCK)
        most_blocks = _MOST_BLOCKS.get(protocols_of(spec.url)[-1])
        self.max_object_size = most_blocks and most_blocks * spec.block_size

    @property
    def _sessions(self) -> Sessions:
        with self._lock:
            if self._current is None:
                spec = self._spec
                self._current = Sessions(partial(connect, spec), server_of(spec), spec.timeout)
            return self._current

    def close(self) -> None:
        with self._lock:
            sessions, self._current = self._current, None
        if sessions:
            sessions.close()

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        sessions, place = self._sessions, Place(name, part_name(name, token))
        session = sessions.take()
        beginning = session.start(lambda: begin(session.tree, place, self._spec.block_size))
        try:
            upload = session.wait(beginning, f'write "{name}"')
        except BaseException:
            session.start(lambda: _take_back(beginning))
            sessions.give_back(session)
            raise
        return FsspecWriter(sessions, session, upload, name)

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        doing = f'read "{name}"'
        with self._sessions.session() as session:
            reader = session.call(doing, lambda: _open(session, name, offset))
            try:
                chunk = session.call(doing, reader.read)
                while chunk:
                    ahead = session.start(reader.read)
                    yield chunk
                    chunk = session.wait(ahead, doing)
            finally:
                session.start(reader.close)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        found = self._files(prefix)
        visible = (info for info in found if not posixpath.basename(info.name).startswith("."))
        return sorted(visible, key=lambda info: info.name)

    def unfinished(self, prefix: str) -> Sequence[str]:
        return sorted(info.name for info in self._files(prefix) if parse_part(info.name))

    def _files(self, prefix: str) -> Sequence[ObjectInfo]:
        """All files below a directory, hidden ones included, hidden directories not."""
        check_prefix(prefix)
        found, directories = [], [prefix]
        with self._sessions.session() as session:
            while directories:
                directory = directories.pop()
                look = partial(_entries, session, directory)
                entries = session.call(f'list "{directory}"', look)
                for entry in entries:
                    name = posixpath.join(directory, entry.name)
                    if not entry.is_directory:
                        found.append(ObjectInfo(name, entry.size))
                    elif not entry.name.startswith("."):
                        directories.append(name)
        return found

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        self._remove(names)

    def sweep(self, names: Sequence[str]) -> None:
        for name in names:
            check_part(name)
        self._remove(names)

    def _remove(self, names: Sequence[str]) -> None:
        first = None
        with self._sessions.session() as session:
            for name in names:
                try:
                    session.call(f'delete "{name}"', partial(_remove, session, name))
                except StorageError as error:
                    if not session.usable:
                        raise
                    first = first or error
            for name in {posixpath.dirname(name): name for name in names}.values():
                session.call("delete objects", partial(_remove_empty_parents, session, name))
        if first:
            raise first

    def probe(self) -> Sequence[str]:
        with self._sessions.session() as session:
            session.call("look at the directory", lambda: session.tree.info(""))
            return session.call("connect", lambda: facts_of(session.tree, self._spec))


def _take_back(beginning: Future[Upload]) -> None:
    """Give up what began after nobody waited for it any more."""
    if beginning.exception() is None:
        beginning.result().give_up()


def _open(session: Session, name: str, offset: int) -> Reader:
    block_size = _READ_BLOCK if kind_of(type(session.tree.fs)).sized else None
    return Reader(session.tree, name, offset, block_size)


def _entries(session: Session, directory: str) -> Sequence[Entry]:
    return session.tree.entries(directory)


def _remove(session: Session, name: str) -> None:
    session.tree.remove(name)


def _remove_empty_parents(session: Session, name: str) -> None:
    session.tree.remove_empty_parents(name)


COMPONENT = Fsspec
