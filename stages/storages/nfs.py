"""A directory on an NFS server, version 3, spoken to directly: nothing is mounted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.errors import StorageRefused
from pipeline.naming import parse_part, part_name
from pipeline.report import format_size
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import NfsStorage
from stages.storages._names import check_name, check_part, check_prefix
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.calls import MAX_BLOCK
from stages.storages._nfs.client import Client
from stages.storages._nfs.list import Listing
from stages.storages._nfs.read import Reader
from stages.storages._nfs.session import Session
from stages.storages._nfs.target import Place, Target
from stages.storages._nfs.tree import Tree
from stages.storages._nfs.window import HELD_BYTES, Window
from stages.storages._nfs.writer import NfsWriter

_PROBE_PAGE = 4 << 10


class Nfs(Storage):
    """Objects are files below `path` of an export.

    An upload outlives dropped connections and restarts of the server: what its disk did not confirm
    is sent again, from memory. An object that exists is not overwritten, see `NfsWriter`.
    """

    # What the server's disk has not confirmed, a block that is being filled, and its chunk.
    memory = HELD_BYTES + MAX_BLOCK + CHUNK

    def __init__(self, spec: NfsStorage) -> None:
        self._spec = spec
        self._root = [part for part in spec.path.split("/") if part]
        self._client = Client(spec)

    def close(self) -> None:
        self._client.close()

    def _tree(self, session: Session) -> Tree:
        return Tree(self._client, session, self._root)

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        directory, _, final = name.rpartition("/")
        place = Place(self._root, name, directory, final, part_name(final, token))
        client, doing = self._client, f'write "{name}"'
        session = client.take_session()
        try:
            with client.translated(doing):
                target = Target(client, session, place)
                block = client.export(session).limits.write
                window = Window(session, target.create(), block, target.find_handle)
        except BaseException:
            session.close()
            raise
        return NfsWriter(client, session, target, window, doing)

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        with self._client.session(f'read "{name}"') as session:
            reader = Reader(self._client, session, self._tree(session), name)
            yield from reader.chunks(offset)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        found = self._files(prefix)
        visible = (info for info in found if not info.name.rpartition("/")[2].startswith("."))
        return sorted(visible, key=lambda info: info.name)

    def unfinished(self, prefix: str) -> Sequence[str]:
        return sorted(info.name for info in self._files(prefix) if parse_part(info.name))

    def _files(self, prefix: str) -> Sequence[ObjectInfo]:
        """All regular files below a directory, hidden ones included, hidden directories not."""
        check_prefix(prefix)
        with self._client.session(f'list "{prefix}"') as session:
            return [*Listing(self._tree(session), session).files(prefix)]

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        self._remove(names)

    def sweep(self, names: Sequence[str]) -> None:
        for name in names:
            check_part(name)
        self._remove(names)

    def _remove(self, names: Sequence[str]) -> None:
        with self._client.session("delete objects") as session:
            failed = self._tree(session).remove(names)
            for name, error in failed:
                with self._client.translated(f'delete "{name}"'):
                    raise error

    def probe(self) -> Sequence[str]:
        client, spec = self._client, self._spec
        with client.session("ask the server about itself") as session:
            export = client.export(session)
            directory = self._tree(session).make_directory("")
            free = session.call(nfs.free_space(directory))
            warnings = list(self._check_listing(session, directory))
        return [
            f'directory "{"/".join(self._root)}" of export "{spec.export}" on "{client.server}" '
            f"as {client.user}",
            f"block size: {format_size(export.limits.write)} written, "
            f"{format_size(export.limits.read)} read",
            f"free space: {format_size(free)}",
            *warnings,
        ]

    def _check_listing(self, session: Session, directory: bytes) -> Iterator[str]:
        """The storage's directory may belong to others, unlike those that we make in it."""
        try:
            with self._client.translated('list ""'):
                session.call(nfs.read_directory(directory, 0, bytes(8), _PROBE_PAGE))
        except StorageRefused as error:
            yield f"warning: cannot list objects: {error}"


COMPONENT = Nfs
