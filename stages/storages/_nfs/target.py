"""An object that is being written on an NFS server: its unfinished file, and the name it gets."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import StorageRefused
from stages.storages._names import exists_already, in_progress, was_removed
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.client import Client
from stages.storages._nfs.errors import GONE, MISSING
from stages.storages._nfs.session import Session
from stages.storages._nfs.tree import Identity, Node, Tree
from stages.storages._nfs.types import Found, NfsError, Status

_FILE_MODE = 0o600
_CREATE_ATTEMPTS = 100
_NO_LINKS = frozenset(
    {Status.NOTSUPP, Status.PERM, Status.MLINK, Status.XDEV, Status.INVAL, Status.SERVERFAULT}
)
"""What servers say for a file system without hard links."""


@dataclass(frozen=True)
class Place:
    """Where an object goes.

    Attributes:
        root: names that lead from the export to the storage's directory.
        name: of the object, relative to the root.
        directory: the part of it before the last slash.
        final: the part after.
        part: its name while it is unfinished, in the same directory.
    """

    root: Sequence[str]
    name: str
    directory: str
    final: str
    part: str


class Target:
    """Both names, as one session sees them.

    Its methods raise what a session raises.

    Args:
        client: knows the export.
        session: used for all calls.
        place: where.
    """

    def __init__(self, client: Client, session: Session, place: Place) -> None:
        self._client = client
        self._session = session
        self._place = place
        self._tree = Tree(client, session, place.root)
        self._file: Identity | None = None

    def over(self, client: Client, session: Session) -> Target:
        """The same, over another session."""
        other = Target(client, session, self._place)
        other._file = self._file
        return other

    def create(self) -> bytes:
        """Make the unfinished file, and give its handle.

        Raises:
            StorageRefused: one of the names is taken.
        """
        for _ in range(_CREATE_ATTEMPTS):
            try:
                return self._create()
            except NfsError as error:
                # Whoever removes the last object of a directory removes the directory too.
                if error.status not in GONE | {Status.NOENT}:
                    raise
        return self._create()

    def _create(self) -> bytes:
        place = self._place
        directory = self._tree.make_directory(place.directory)
        if self._look(directory, place.final):
            raise exists_already(place.name)
        try:
            found = self._create_file(directory)
        except NfsError as error:
            if error.status == Status.EXIST:
                raise in_progress(place.name) from None
            raise
        node = self._tree.complete(directory, place.part, found)
        self._file = self._tree.identify(node)
        self._session.call(nfs.settle(node.handle, _FILE_MODE))
        return node.handle

    def _create_file(self, directory: bytes) -> Found:
        # Exclusive, because only that can be said twice, as it is when an answer got lost.
        once = secrets.token_bytes(8)
        try:
            return self._session.call(nfs.create_exclusive(directory, self._place.part, once))
        except NfsError as error:
            if error.status != Status.NOTSUPP:
                raise
        return self._session.call(nfs.create_guarded(directory, self._place.part, _FILE_MODE))

    def find(self) -> Node:
        """The unfinished file as it is on the server now.

        Raises:
            StorageRefused: it is gone.
        """
        place = self._place
        try:
            node = self._tree.find(self._tree.directory(place.directory), place.part)
        except NfsError as error:
            if error.status not in MISSING | GONE:
                raise
            raise was_removed(place.name) from None
        if not self._is_ours(node):
            raise was_removed(place.name)
        return node

    def find_handle(self) -> bytes:
        return self.find().handle

    def publish(self, size: int) -> None:
        """Give the file, which must have this size, its name.

        Raises:
            StorageRefused: the name is taken, or the file is not what we wrote.
        """
        node = self.find()
        if node.attributes.size != size:
            raise StorageRefused(
                f'"{self._client.server}" holds {node.attributes.size} bytes of '
                f'"{self._place.name}", {size} were sent'
            )
        directory = self._tree.directory(self._place.directory)
        try:
            self.link(node.handle, directory)
        except NfsError as error:
            if error.status not in _NO_LINKS:
                raise
            # Renaming replaces what has the name already, so look whether there is anything.
            if self._look(directory, self._place.final):
                raise exists_already(self._place.name) from None
            self.rename(directory)

    def link(self, handle: bytes, directory: bytes) -> None:
        """Atomic: the name becomes that of our file, or is taken."""
        try:
            self._session.call(nfs.link(handle, directory, self._place.final))
        except NfsError as error:
            if error.status != Status.EXIST:
                raise
            # Unless an answer was lost, and this is the one to our repetition.
            if not self._has_name(directory):
                raise exists_already(self._place.name) from None
        with suppress(NfsError):  # The object is complete; `sweep` finds the other name.
            self._session.call(nfs.remove(directory, self._place.part))

    def rename(self, directory: bytes) -> None:
        """The other way, for file systems without hard links."""
        place = self._place
        try:
            self._session.call(nfs.rename(directory, place.part, place.final))
        except NfsError as error:
            # As above.
            if error.status not in MISSING or not self._has_name(directory):
                raise

    def remove(self) -> None:
        """Remove the file, whichever of the names it has."""
        place = self._place
        directory = self._tree.directory(place.directory)
        # First the part: from then on a link to it that is still on its way there must fail.
        with suppress(NfsError):
            self._session.call(nfs.remove(directory, place.part))
        if self._has_name(directory):
            self._session.call(nfs.remove(directory, place.final))
        self._tree.remove_empty(place.directory)

    def _look(self, directory: bytes, name: str) -> Node | None:
        try:
            return self._tree.find(directory, name)
        except NfsError as error:
            if error.status not in MISSING:
                raise
            return None

    def _has_name(self, directory: bytes) -> bool:
        """Whether what has the object's name is the file that we wrote."""
        node = self._look(directory, self._place.final)
        return node is not None and self._is_ours(node)

    def _is_ours(self, node: Node) -> bool:
        return self._file is not None and self._tree.is_same(self._file, node)
