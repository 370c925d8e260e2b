"""Directories and files on an SMB server, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from stages.storages._smb import calls as smb
from stages.storages._smb.calls import Access, Disposition, Option
from stages.storages._smb.errors import MISSING, NO_DIRECTORY
from stages.storages._smb.names import encode_path
from stages.storages._smb.session import Session
from stages.storages._smb.types import Call, Opened, SmbError, Status

AT_ONCE = 16
"""Requests of one operation on many names that are under way together."""
_LOOK = Access.READ_ATTRIBUTES
_IN_USE = frozenset({Status.SHARING_VIOLATION, Status.DELETE_PENDING})
_LEAVING_PAUSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds to wait for somebody else to close what was removed."""


class Tree:
    """What lies below the storage's directory, as one session sees it.

    Its methods raise `SmbError` and what else a session raises. Nothing is remembered of what was
    looked up: other clients come and go.

    Args:
        session: used for all requests.
        root: names that lead from the share to the storage's directory.
    """

    def __init__(self, session: Session, root: Sequence[str]) -> None:
        self._session = session
        self._root = list(root)

    def path(self, name: str) -> str:
        """Where an object or directory is on the share; "" is the storage's own directory."""
        return encode_path(self._root + (name.split("/") if name else []))

    def open_directory(self, name: str) -> Call[Opened]:
        """The request that opens a directory to read it."""
        return smb.open_file(
            self.path(name), Access.READ_DATA | _LOOK, Disposition.OPEN, Option.DIRECTORY
        )

    def make_directory(self, name: str) -> None:
        """Make a directory, unless it is there, and those above it."""
        self._make(self._root + (name.split("/") if name else []))

    def _make(self, parts: list[str]) -> None:
        path, how = encode_path(parts), Disposition.OPEN_OR_CREATE
        call = smb.open_file(path, _LOOK, how, Option.DIRECTORY)
        try:
            made = self._session.call(call)
        except SmbError as error:
            if error.status not in NO_DIRECTORY or not parts:
                raise
            self._make(parts[:-1])
            made = self._session.call(smb.open_file(path, _LOOK, how, Option.DIRECTORY))
        self._session.call(smb.close(made.file_id))

    def find(self, name: str) -> tuple[int, int] | None:
        """Number and size of what has this name; None when there is nothing."""
        call = smb.open_file(self.path(name), _LOOK, Disposition.OPEN, Option(0))
        try:
            found = self._session.call(call)
        except SmbError as error:
            if error.status not in MISSING:
                raise
            return None
        number = self._session.call(smb.get_number(found.file_id))
        self._session.call(smb.close(found.file_id))
        return number, found.size

    def remove(self, names: Iterable[str]) -> list[tuple[str, SmbError]]:
        """Remove files, and the directories that are empty then; gives what failed, and why."""
        failed: list[tuple[str, SmbError]] = []
        by_directory: dict[str, list[str]] = {}
        for name in names:
            by_directory.setdefault(name.rpartition("/")[0], []).append(name)
        for directory, inside in by_directory.items():
            failed += self._remove_all(inside)
            self.remove_empty(directory)
        return failed

    def _remove_all(self, names: Sequence[str]) -> list[tuple[str, SmbError]]:
        failed = self._open_and_close(names, Access.DELETE, Option.DELETE_ON_CLOSE, smb.ALONE)
        shared = [name for name, error in failed.items() if error.status in _IN_USE]
        if shared:
            failed = {name: error for name, error in failed.items() if name not in shared}
            failed |= self._remove_shared(shared)
        return [*failed.items()]

    def _remove_shared(self, names: Sequence[str]) -> dict[str, SmbError]:
        """A file that somebody has open goes when he closes it; nobody can open it any more.

        Those that a connection had open which is dead are waited for.
        """
        failed = self._open_and_close(names, Access.DELETE, Option.DELETE_ON_CLOSE)
        leaving = [name for name in names if name not in failed or _is_leaving(failed[name])]
        for pause in _LEAVING_PAUSES:
            self._session.interrupt.sleep(pause)
            still = self._open_and_close(leaving, _LOOK, Option(0))
            leaving = [name for name, error in still.items() if _is_leaving(error)]
            if not leaving:
                break
        return {name: error for name, error in failed.items() if not _is_leaving(error)}

    def _open_and_close(
        self, names: Sequence[str], access: Access, option: Option, share: int = smb.SHARE_ALL
    ) -> dict[str, SmbError]:
        """Of files; gives what failed, except for files that are not there."""
        failed: dict[str, SmbError] = {}
        opening = (
            smb.open_file(
                self.path(name), access, Disposition.OPEN, Option.NON_DIRECTORY | option, share
            )
            for name in names
        )
        closing: list[tuple[str, Call[None]]] = []
        for name, call in zip(names, self._session.in_flight(opening, AT_ONCE), strict=True):
            try:
                opened = self._session.result(call)
                closing.append((name, self._session.submit(smb.close(opened.file_id))))
            except SmbError as error:
                if error.status not in MISSING:
                    failed[name] = error
        for name, close in closing:
            try:
                self._session.result(close)
            except SmbError as error:
                failed[name] = error
        return failed

    def remove_empty(self, directory: str) -> None:
        """Remove a directory and those above it that hold nothing, but never the storage's own."""
        parts = directory.split("/") if directory else []
        option = Option.DIRECTORY | Option.DELETE_ON_CLOSE
        with suppress(SmbError):  # Not empty: the usual end.
            while parts:
                path = self.path("/".join(parts))
                call = smb.open_file(path, Access.DELETE, Disposition.OPEN, option)
                self._session.call(smb.close(self._session.call(call).file_id))
                parts.pop()


def _is_leaving(error: SmbError) -> bool:
    return error.status == Status.DELETE_PENDING
