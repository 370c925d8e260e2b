"""Listing directories of an SMB server, many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.stage import ObjectInfo
from stages.storages._smb import calls as smb
from stages.storages._smb.calls import DIRECTORY_ATTRIBUTE, REPARSE_ATTRIBUTE
from stages.storages._smb.errors import MISSING
from stages.storages._smb.names import decode_name
from stages.storages._smb.session import Session
from stages.storages._smb.tree import AT_ONCE, Tree
from stages.storages._smb.types import Call, Entry, Opened, SmbError, Status

_END = frozenset({Status.NO_MORE_FILES, Status.NO_SUCH_FILE})
_LEFT = MISSING | {Status.DELETE_PENDING}
"""What a directory answers that was removed meanwhile."""


@dataclass
class _Scan:
    """A directory that is being read: opened first, then page by page."""

    name: str
    opening: Call[Opened]
    file_id: bytes = b""
    page: Call[list[Entry]] | None = None


class Listing:
    """Reads everything below a directory.

    Args:
        tree: where.
        session: used for all requests.
    """

    def __init__(self, tree: Tree, session: Session) -> None:
        self._tree = tree
        self._session = session
        self._page_size = session.link.limits.transact
        self._todo: deque[str] = deque()

    def files(self, prefix: str) -> Iterator[ObjectInfo]:
        """All files, hidden ones included, those of hidden directories not."""
        self._todo.append(prefix)
        for directory, entries in self._pages():
            inside = f"{directory}/" if directory else ""
            for entry in entries:
                name = decode_name(entry.name)
                if not entry.attributes & DIRECTORY_ATTRIBUTE:
                    yield ObjectInfo(inside + name, entry.size)
                # What is linked to is listed where it is; a link may even lead in circles.
                elif not name.startswith(".") and not entry.attributes & REPARSE_ATTRIBUTE:
                    self._todo.append(inside + name)

    def _pages(self) -> Iterator[tuple[str, list[Entry]]]:
        """Read the directories that are to do, also those that are added meanwhile."""
        under_way: deque[_Scan] = deque()
        while self._todo or under_way:
            while self._todo and len(under_way) < AT_ONCE:
                name = self._todo.popleft()
                opening = self._session.submit(self._tree.open_directory(name))
                under_way.append(_Scan(name, opening))
            scan = under_way.popleft()
            entries = self._advance(scan)
            if entries is None:
                continue
            under_way.append(scan)
            yield scan.name, entries

    def _advance(self, scan: _Scan) -> list[Entry] | None:
        """Take a step: the entries that it brought, or None when it was the last."""
        try:
            if scan.page is None:
                scan.file_id = self._session.result(scan.opening).file_id
                entries: list[Entry] = []
            else:
                entries = self._session.result(scan.page)
            scan.page = self._session.submit(
                smb.list_directory(scan.file_id, not entries, self._page_size)
            )
        except SmbError as error:
            if error.status not in _LEFT | _END:
                raise
            if scan.file_id:
                self._session.call(smb.close(scan.file_id))
            return None
        return entries
