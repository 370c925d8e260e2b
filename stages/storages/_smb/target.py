"""An object that is being written on an SMB server: its unfinished file, and the name it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import StorageRefused
from stages.storages._names import exists_already, in_progress, was_removed
from stages.storages._smb import calls as smb
from stages.storages._smb.calls import Access, Disposition, Option
from stages.storages._smb.errors import MISSING, NO_DIRECTORY
from stages.storages._smb.session import Session
from stages.storages._smb.tree import Tree
from stages.storages._smb.types import Opened, SmbError, Status

_ACCESS = Access.WRITE_DATA | Access.READ_ATTRIBUTES | Access.DELETE
_OPTIONS = Option.NON_DIRECTORY | Option.SEQUENTIAL
_CREATE_ATTEMPTS = 100
_CREATE_PAUSE = 0.02
_LEFT = MISSING | {Status.DELETE_PENDING}


@dataclass(frozen=True)
class Place:
    """Where an object goes.

    Attributes:
        root: names that lead from the share to the storage's directory.
        name: of the object, relative to the root.
        part: its name while it is unfinished, in the same directory.
    """

    root: Sequence[str]
    name: str
    part: str


class Target:
    """Both names, as one session sees them.

    Its methods raise what a session raises.

    Args:
        session: used for all requests.
        place: where.
        server: its name, for messages.
    """

    def __init__(self, session: Session, place: Place, server: str) -> None:
        self._session = session
        self._place = place
        self._server = server
        self._tree = Tree(session, place.root)
        self._directory = place.name.rpartition("/")[0]
        self.file_id = b""
        """What the connection knows the open file by."""
        self._number = 0
        self._generation = 0
        """That of the connection over which it was opened."""
        self._asked_for = 0
        """That of the connection over which we asked for it to be made."""
        self._is_renaming = False
        """Whether it may have its final name, for all we know."""

    def over(self, session: Session) -> Target:
        """The same, over another session."""
        other = Target(session, self._place, self._server)
        other._number, other._is_renaming = self._number, self._is_renaming
        return other

    def create(self) -> None:
        """Make the unfinished file, and leave it open.

        Raises:
            StorageRefused: one of the names is taken.
        """
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                if attempt:
                    self._session.persist(lambda: self._tree.make_directory(self._directory))
                return self._session.persist(self._create)
            except SmbError as error:
                # Whoever removes the last object of a directory removes the directory too.
                if error.status not in NO_DIRECTORY | {Status.DELETE_PENDING}:
                    raise
                self._session.interrupt.sleep(_CREATE_PAUSE * (attempt > 0))
        return self._session.persist(self._create)

    def _create(self) -> None:
        if self._tree.find(self._place.name):
            raise exists_already(self._place.name)
        before, self._asked_for = self._asked_for, self._session.generation
        try:
            opened = self._open_part(Disposition.CREATE)
        except SmbError as error:
            if error.status != Status.OBJECT_NAME_COLLISION:
                raise
            if not before:
                raise in_progress(self._place.name) from None
            # Ours: the answer to an earlier attempt was lost with its connection.
            opened = self._open_part(Disposition.OPEN)
            if opened.size:
                raise in_progress(self._place.name) from None
        self._know(opened)
        self._number = self._session.call(smb.get_number(opened.file_id))

    def _open_part(self, disposition: Disposition) -> Opened:
        path = self._tree.path(self._place.part)
        return self._session.call(smb.open_file(path, _ACCESS, disposition, _OPTIONS))

    def _know(self, opened: Opened) -> None:
        self.file_id, self._generation = opened.file_id, self._session.generation

    def open_again(self, kept: int) -> None:
        """Open the unfinished file over another connection.

        Args:
            kept: the server promised to keep so many bytes of it.

        Raises:
            StorageRefused: it is gone, or is another one, or has lost bytes.
        """
        try:
            opened = self._open_part(Disposition.OPEN)
            number = self._session.call(smb.get_number(opened.file_id))
        except SmbError as error:
            if error.status not in _LEFT:
                raise
            raise was_removed(self._place.name) from None
        if number != self._number:
            raise was_removed(self._place.name)
        if opened.size < kept:
            raise self._lost_bytes(opened.size, kept)
        self._know(opened)

    def publish(self, size: int) -> None:
        """Give the file, which must have this size, its name; it is closed then.

        Raises:
            StorageRefused: the name is taken, or the file is not what we wrote.
        """
        self._session.persist(lambda: self._publish(size))

    def _publish(self, size: int) -> None:
        if self._generation != self._session.generation:
            if self._is_renaming and self._has_name(size):
                return  # Only the answer was lost.
            self.open_again(size)
        found, is_deleted = self._session.call(smb.get_state(self.file_id))
        if is_deleted:
            raise was_removed(self._place.name)
        if found != size:
            raise self._lost_bytes(found, size)
        self._is_renaming = True
        try:
            self._session.call(smb.rename(self.file_id, self._tree.path(self._place.name)))
        except SmbError as error:
            self._is_renaming = False  # The server said no: what has the name is not ours.
            if error.status != Status.OBJECT_NAME_COLLISION:
                raise
            raise exists_already(self._place.name) from None
        self._session.call(smb.flush(self.file_id))  # Now for the sake of its name.
        self._session.call(smb.close(self.file_id))

    def remove(self) -> None:
        """Remove the file, whichever of the names it has; it must not be open any more."""
        failed = self._tree.remove([self._place.part])
        if self._is_renaming and self._has_name():
            failed += self._tree.remove([self._place.name])
        for _, error in failed:
            raise error

    def _has_name(self, size: int | None = None) -> bool:
        """Whether what has the object's name is the file that we wrote, for certain."""
        if not self._number:
            return False  # Some file systems give every file the number 0.
        found = self._tree.find(self._place.name)
        return found is not None and found[0] == self._number and size in (None, found[1])

    def _lost_bytes(self, size: int, sent: int) -> StorageRefused:
        return StorageRefused(
            f'"{self._server}" holds {size} bytes of "{self._place.name}", {sent} were sent'
        )
