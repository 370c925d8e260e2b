"""A collection on a WebDAV server, over HTTP or HTTPS."""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterator, Sequence

from pipeline.errors import StorageError, StorageRefused
from pipeline.naming import parse_part, part_name
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import WebdavStorage
from stages.storages._names import check_name, check_part, check_prefix
from stages.storages._webdav.link import Link
from stages.storages._webdav.probe import facts_of
from stages.storages._webdav.read import Reader
from stages.storages._webdav.session import Patience, Session
from stages.storages._webdav.tree import Place, children, claim, remove, remove_if_empty
from stages.storages._webdav.upload import HELD_BACK
from stages.storages._webdav.writer import WebdavWriter

_TRIED_OUT = "nxs-backup-probe-"
"""What collections are called that `check --connect` makes for itself."""


class Webdav(Storage):
    """Objects are resources below the collection at `url`.

    An object that exists is not overwritten: servers are told so (`If-None-Match`, `Overwrite: F`),
    and are asked before as well, as not all of them listen.

    Collections stay when their last object is deleted: WebDAV removes them only together with
    whatever somebody may just have put there.
    """

    # The chunk that is being sent, and what is held back of the one before.
    memory = CHUNK + 2 * HELD_BACK

    def __init__(self, spec: WebdavStorage, _patience: Patience | None = None) -> None:
        self._spec = spec
        self._patience = _patience or Patience()
        self._lock = threading.Lock()
        self._current: Link | None = None

    @property
    def _link(self) -> Link:
        with self._lock:
            if self._current is None:
                self._current = Link(self._spec, self._patience)
            return self._current

    def close(self) -> None:
        with self._lock:
            link, self._current = self._current, None
        if link:
            link.close()

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        link, place = self._link, Place(name, part_name(name, token))
        session = Session(link)
        try:
            claim(session, place, f'write "{name}"')
            return WebdavWriter(link, session, place)
        except BaseException:
            session.close()
            raise

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        with self._link.session() as session:
            yield from Reader(session, name, offset).chunks()

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        found = self._files(prefix)
        return sorted(
            (info for info in found if not posixpath.basename(info.name).startswith(".")),
            key=lambda info: info.name,
        )

    def unfinished(self, prefix: str) -> Sequence[str]:
        return sorted(info.name for info in self._files(prefix) if parse_part(info.name))

    def _files(self, prefix: str) -> Sequence[ObjectInfo]:
        """All objects below a collection, those of hidden collections not.

        Collection by collection, as most servers refuse to list a whole tree at once.
        """
        check_prefix(prefix)
        found, directories = [], [prefix]
        with self._link.session() as session:
            while directories:
                directory = directories.pop()
                for child in children(session, directory, f'list "{prefix}"'):
                    name = posixpath.join(directory, child.name)
                    if not child.is_collection:
                        found.append(ObjectInfo(name, child.size or 0))
                    elif not child.name.startswith("."):
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
        failed: StorageError | None = None
        with self._link.session() as session:
            for name in names:
                try:
                    remove(session, name)
                except StorageRefused as error:
                    failed = failed or error
            for directory in {posixpath.dirname(name) for name in names}:
                if directory.startswith(_TRIED_OUT) and failed is None:
                    remove_if_empty(session, directory)
        if failed:
            raise failed

    def probe(self) -> Sequence[str]:
        hasty = Webdav(self._spec, Patience(seconds=0))
        try:
            return facts_of(hasty._link)
        finally:
            hasty.close()


COMPONENT = Webdav
