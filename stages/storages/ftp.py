"""A directory on an FTP server, in the clear or over TLS; data connections are passive."""

from __future__ import annotations

import ftplib
import posixpath
import threading
from collections.abc import Iterator, Sequence

from pipeline.errors import StorageRefused
from pipeline.naming import parse_part, part_name
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import FtpStorage
from stages.storages._ftp.client import Client, FileMissing, is_missing
from stages.storages._ftp.errors import FAILURES, is_absent, storage_error
from stages.storages._ftp.link import Link, Patience, Place
from stages.storages._ftp.listing import NotUnderstood
from stages.storages._ftp.probe import facts_of
from stages.storages._ftp.writer import WINDOW_BYTES, FtpWriter
from stages.storages._names import (
    check_name,
    check_part,
    check_prefix,
    exists_already,
    in_progress,
)
from stages.storages._names import is_missing as object_missing

_CREATE_ATTEMPTS = 20


class Ftp(Storage):
    """Objects are files below `path` on the server.

    An object that exists is not overwritten, as far as FTP lets one see to that: its rename
    replaces what is there, so the name is looked up when the object is created and again right
    before the rename. Somebody else who uses the name between those two commands loses his file.

    A connection that breaks during an upload is made again, and the upload goes on with what the
    server does not have yet (see `_ftp/writer.py`).
    """

    # The window, the chunk that is being sent, and small chunks that are being joined.
    memory = WINDOW_BYTES + 3 * CHUNK

    def __init__(self, spec: FtpStorage, _patience: Patience | None = None) -> None:
        self._spec = spec
        self._patience = _patience or Patience(seconds=spec.timeout)
        self._lock = threading.Lock()
        self._current: Link | None = None

    @property
    def _link(self) -> Link:
        with self._lock:
            if self._current is None:
                self._current = Link(self._spec)
            return self._current

    def close(self) -> None:
        with self._lock:
            link, self._current = self._current, None
        if link:
            link.close()

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        link, part = self._link, part_name(name, token)
        client = link.take()
        try:
            place = Place(link.root, name, part, link.locate(part), link.locate(name))
            with link.errors(f'write "{name}"'):
                self._open_part(client, place)
            return FtpWriter(link, client, place, self._patience)
        except BaseException:
            link.give_back(client)
            raise

    def _open_part(self, client: Client, place: Place) -> None:
        if client.exists(place.final_path):
            raise exists_already(place.name)
        if client.exists(place.part_path):
            raise in_progress(place.name)
        for _ in range(_CREATE_ATTEMPTS):
            try:
                client.store(place.part_path, 0)
                return
            except ftplib.error_perm as error:
                if not is_missing(error):
                    raise
            try:
                client.make_directories(posixpath.dirname(place.part_path))
            except ftplib.error_perm as error:
                # Whoever removes the last object of a directory removes the directory too.
                if not is_absent(error):
                    raise
        client.store(place.part_path, 0)

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        link = self._link
        with link.client(f'read "{name}"') as client:
            path = link.locate(name)
            try:
                size = client.size_of(path)
            except FileMissing:
                raise object_missing(name) from None
            left = None if size is None else size - offset
            if left is None or left > 0:
                for chunk in self._chunks(client, name, path, offset):
                    left = None if left is None else left - len(chunk)
                    yield chunk
        if left:
            raise StorageRefused(f'object "{name}" ended early', f"it had {size} bytes")

    def _chunks(self, client: Client, name: str, path: str, offset: int) -> Iterator[bytes]:
        started = False
        try:
            for chunk in client.download(f"RETR {path}", offset):
                started = True
                yield chunk
        except ftplib.error_perm as error:
            if started or not is_missing(error):
                raise
            raise object_missing(name) from None

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
        with link.client(f'list "{prefix}"') as client:
            try:
                return self._walk(link, client, prefix)
            except NotUnderstood:
                raise StorageRefused(
                    f'"{link.server}" lists directories in a format that is not known',
                    "what works is MLSD, or LIST in the format of Unix or Windows",
                ) from None

    def _walk(self, link: Link, client: Client, prefix: str) -> Sequence[ObjectInfo]:
        found, directories, seen = [], [prefix], set()
        while directories:
            directory = directories.pop()
            try:
                entries = client.list_directory(link.locate(directory))
            except FileMissing:
                continue
            for entry in entries:
                name = posixpath.join(directory, entry.name)
                if not entry.is_directory:
                    found.append(ObjectInfo(name, entry.size))
                elif not entry.name.startswith(".") and entry.identity not in seen:
                    # Some servers show a link to a directory as one: there may be circles.
                    seen.update({entry.identity} - {""})
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
        link, first = self._link, None
        with link.client("delete objects") as client:
            for name in names:
                try:
                    client.remove(link.locate(name))
                except FAILURES as error:
                    if not client.usable:
                        raise
                    first = first or storage_error(error, link.server, f'delete "{name}"')
            for name in {posixpath.dirname(name): name for name in names}.values():
                client.remove_empty_parents(link.root, name)
        if first:
            raise first

    def probe(self) -> Sequence[str]:
        hasty = Ftp(self._spec, Patience(seconds=0))
        try:
            return facts_of(hasty, hasty._link)
        finally:
            hasty.close()


COMPONENT = Ftp
