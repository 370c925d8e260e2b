"""A directory of a share on an SMB server, version 2 or 3: spoken to directly, not mounted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.errors import StorageRefused
from pipeline.naming import parse_part, part_name
from pipeline.report import format_size
from pipeline.stage import CHUNK, ObjectInfo, Storage, Writer
from schemas.storages import SmbStorage
from stages.storages._names import check_name, check_part, check_prefix
from stages.storages._smb import calls as smb
from stages.storages._smb.client import Client
from stages.storages._smb.link import Link
from stages.storages._smb.list import Listing
from stages.storages._smb.read import Reader
from stages.storages._smb.session import Session
from stages.storages._smb.target import Place, Target
from stages.storages._smb.tree import Tree
from stages.storages._smb.window import HELD_BYTES, MAX_BLOCK
from stages.storages._smb.writer import SmbWriter


class Smb(Storage):
    """Objects are files below `path` of a share.

    An upload outlives dropped connections and restarts of the server: what its disk did not confirm
    is sent again, from memory. An object that exists is not overwritten. Names that Windows has not
    are stored as Macs and Linux store them, see `_smb/names.py`.
    """

    # What the server's disk has not confirmed, chunks that are being joined, and one encrypted.
    memory = HELD_BYTES + 2 * MAX_BLOCK + CHUNK

    def __init__(self, spec: SmbStorage) -> None:
        self._spec = spec
        self._root = [part for part in spec.path.split("/") if part]
        self._client = Client(spec)

    def close(self) -> None:
        self._client.close()

    def create(self, name: str, token: str) -> Writer:
        check_name(name)
        place = Place(self._root, name, part_name(name, token))
        client, doing = self._client, f'write "{name}"'
        session = client.take_session()
        try:
            with client.translated(doing):
                target = Target(session, place, client.server)
                target.create()
                return SmbWriter(client, session, target, doing)
        except BaseException:
            session.close()
            raise

    def open(self, name: str, offset: int = 0) -> Iterator[bytes]:
        check_name(name)
        with self._client.session(f'read "{name}"') as session:
            yield from Reader(session, Tree(session, self._root), name).chunks(offset)

    def list(self, prefix: str) -> Sequence[ObjectInfo]:
        found = self._files(prefix)
        visible = (info for info in found if not info.name.rpartition("/")[2].startswith("."))
        return sorted(visible, key=lambda info: info.name)

    def unfinished(self, prefix: str) -> Sequence[str]:
        return sorted(info.name for info in self._files(prefix) if parse_part(info.name))

    def _files(self, prefix: str) -> Sequence[ObjectInfo]:
        """All files below a directory, hidden ones included, hidden directories not."""
        check_prefix(prefix)
        with self._client.session(f'list "{prefix}"') as session:
            tree = Tree(session, self._root)
            return session.persist(lambda: [*Listing(tree, session).files(prefix)])

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
            tree = Tree(session, self._root)
            failed = session.persist(lambda: tree.remove(names))
        for name, error in failed:
            with self._client.translated(f'delete "{name}"'):
                raise error

    def probe(self) -> Sequence[str]:
        with self._client.session("ask the server about itself") as session:
            return session.persist(lambda: self._probe(session))

    def _probe(self, session: Session) -> Sequence[str]:
        spec, link = self._spec, session.link
        tree = Tree(session, self._root)
        tree.make_directory("")
        facts = [
            f'directory "{"/".join(self._root)}" of share "{spec.share}" on "{spec.host}" '
            f'as "{spec.user}"',
            f"protocol: {link.dialect.label}, {_protection(link)}",
        ]
        if not link.is_encrypted:
            facts.append(_warning(link))
        try:
            with self._client.translated('list ""'):
                directory = session.call(tree.open_directory(""))
                free = session.call(smb.free_space(directory.file_id))
                session.call(smb.close(directory.file_id))
        except StorageRefused as error:
            return [*facts, f"warning: cannot list objects: {error}"]
        return [*facts, f"free space: {format_size(free)}"]


def _protection(link: Link) -> str:
    if link.is_encrypted and link.sealer:
        return f"encrypted with {link.sealer.algorithm.label}"
    return f"signed with {link.signer.algorithm.label}" if link.signer else "not protected"


def _warning(link: Link) -> str:
    who = "anyone on the way can read what backups do not encrypt themselves"
    more = "" if link.signer else ", and change it"
    return f"warning: {who}{more}; set encrypt: true, if the server can"


COMPONENT = Smb
