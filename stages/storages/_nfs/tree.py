"""Directories and files on an NFS server, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import StorageRefused
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.client import Client
from stages.storages._nfs.errors import GONE, MISSING
from stages.storages._nfs.session import Session
from stages.storages._nfs.types import Attributes, Found, NfsError, Status

_DIRECTORY_MODE = 0o750
AT_ONCE = 16
"""Calls of one operation on many names that are under way together."""


@dataclass(frozen=True)
class Node:
    """A file or directory on the server."""

    handle: bytes
    attributes: Attributes


@dataclass
class Identity:
    """What a file is known by, for as long as somebody works with it.

    Attributes:
        node: as it was found last.
        export: the handle of the export at that time.
    """

    node: Node
    export: bytes


class Tree:
    """What lies below the storage's directory, as one session sees it.

    Its methods raise `NfsError` and what else a session raises. Nothing is remembered of what was
    looked up: other clients come and go.

    Args:
        client: knows the export.
        session: used for all calls.
        root: names that lead from the export to the storage's directory.
    """

    def __init__(self, client: Client, session: Session, root: Sequence[str]) -> None:
        self._client = client
        self._session = session
        self._root = list(root)

    def directory(self, name: str) -> bytes:
        """The handle of a directory; "" is the storage's own."""
        return self._descend(name, self._step)

    def make_directory(self, name: str) -> bytes:
        """The same; it is made when it is missing, and those above it."""
        return self._descend(name, self._step_or_make)

    def _descend(self, name: str, step: Callable[[bytes, str], bytes]) -> bytes:
        export = self._client.export(self._session)
        parts = self._root + (name.split("/") if name else [])
        handle = export.handle
        for number, part in enumerate(parts):
            try:
                handle = step(handle, part)
            except NfsError as error:
                if number or error.status not in GONE:
                    raise
                # The export was set up anew since we mounted it.
                self._client.forget(export)
                handle = step(self._client.export(self._session).handle, part)
        return handle

    def _step_or_make(self, directory: bytes, name: str) -> bytes:
        try:
            return self._step(directory, name)
        except NfsError as error:
            if error.status != Status.NOENT:
                raise
        self._make(directory, name)
        return self._step(directory, name)

    def _step(self, directory: bytes, name: str) -> bytes:
        node = self.find(directory, name)
        if node.attributes.kind == nfs.LINK:
            raise StorageRefused(
                f'"{name}" is a symbolic link on the server', "give the path that it leads to"
            )
        if node.attributes.kind != nfs.DIRECTORY:
            raise NfsError(Status.NOTDIR)
        return node.handle

    def _make(self, directory: bytes, name: str) -> None:
        try:
            self._session.call(nfs.make_directory(directory, name, _DIRECTORY_MODE))
        except NfsError as error:
            if error.status != Status.EXIST:  # Somebody was faster, or our answer was lost.
                raise

    def find(self, directory: bytes, name: str) -> Node:
        """Look a name up in a directory."""
        return self.complete(directory, name, self._session.call(nfs.lookup(directory, name)))

    def complete(self, directory: bytes, name: str, found: Found) -> Node:
        """Ask for what the server left out."""
        if found.handle is None:
            return self.find(directory, name)
        attributes = found.attributes
        return Node(
            found.handle, attributes or self._session.call(nfs.get_attributes(found.handle))
        )

    def identify(self, node: Node) -> Identity:
        return Identity(node, self._client.export(self._session).handle)

    def is_same(self, file: Identity, node: Node) -> bool:
        """Whether a node that was found later is this file; it is known by that one then.

        A server may give a file several handles, and a new file the number of a removed one.
        """
        export = self._client.export(self._session).handle
        if node.handle != file.node.handle:
            if node.attributes.number != file.node.attributes.number:
                return False
            # All handles are new when the export is, else the old one tells.
            if export == file.export and not self._is_alive(file.node):
                return False
        file.node, file.export = node, export
        return True

    def _is_alive(self, node: Node) -> bool:
        try:
            found = self._session.call(nfs.get_attributes(node.handle))
        except NfsError as error:
            if error.status not in GONE:
                raise
            return False
        return found.number == node.attributes.number

    def locate(self, name: str) -> Node | None:
        """An object or a part of one; None when there is no regular file of that name."""
        directory, _, base = name.rpartition("/")
        try:
            node = self.find(self.directory(directory), base)
        except NfsError as error:
            if error.status in MISSING:
                return None
            raise
        return node if node.attributes.kind == nfs.REGULAR else None

    def remove(self, names: Iterable[str]) -> list[tuple[str, NfsError]]:
        """Remove files, and the directories that are empty then; gives what failed, and why."""
        failed: list[tuple[str, NfsError]] = []
        by_directory: dict[str, list[str]] = {}
        for name in names:
            directory, _, base = name.rpartition("/")
            by_directory.setdefault(directory, []).append(base)
        for directory, bases in by_directory.items():
            failed += self._remove_from(directory, bases)
            self.remove_empty(directory)
        return failed

    def _remove_from(self, directory: str, bases: list[str]) -> list[tuple[str, NfsError]]:
        try:
            handle = self.directory(directory)
        except NfsError as error:
            if error.status in MISSING:
                return []
            raise
        calls = (nfs.remove(handle, base) for base in bases)
        failed = []
        for base, call in zip(bases, self._session.in_flight(calls, AT_ONCE), strict=True):
            try:
                self._session.result(call)
            except NfsError as error:
                if error.status not in MISSING | GONE:
                    failed.append((f"{directory}/{base}" if directory else base, error))
        return failed

    def remove_empty(self, directory: str) -> None:
        """Remove a directory and those above it that hold nothing, but never the storage's own."""
        parts = directory.split("/") if directory else []
        with suppress(NfsError):  # Not empty: the usual end.
            while parts:
                last = parts.pop()
                self._session.call(nfs.remove_directory(self.directory("/".join(parts)), last))
