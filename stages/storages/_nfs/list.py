"""Listing directories of an NFS server, many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.stage import ObjectInfo
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.errors import GONE, MISSING
from stages.storages._nfs.session import Session
from stages.storages._nfs.tree import AT_ONCE, Node, Tree
from stages.storages._nfs.types import Call, Entry, Found, NfsError, Page, Status

_PAGE_SIZE = 128 << 10
_MAX_RESTARTS = 10
_NO_PLUS = frozenset({Status.NOTSUPP, Status.TOOSMALL})


@dataclass
class _Scan:
    """A directory that is being read, page by page."""

    name: str
    handle: bytes
    with_attributes: bool = True
    entries: list[Entry] = field(default_factory=list)
    cookie: int = 0
    verifier: bytes = bytes(8)
    restarts: int = 0

    def next_page(self) -> Call[Page]:
        read = nfs.read_directory_plus if self.with_attributes else nfs.read_directory
        return read(self.handle, self.cookie, self.verifier, _PAGE_SIZE)

    def take(self, page: Page) -> bool:
        """Add a page; whether it was the last."""
        if not (page.entries or page.is_last):
            raise NfsError(Status.SERVERFAULT)  # It would give the same page again, for ever.
        self.entries += [entry for entry in page.entries if entry.name not in (".", "..")]
        self.cookie, self.verifier = page.cookie, page.verifier
        return page.is_last

    def recover(self, error: NfsError) -> None:
        """Go on in another way after a page was refused, or raise."""
        if self.with_attributes and error.status in _NO_PLUS:
            self.with_attributes = False
        elif error.status == Status.BAD_COOKIE and self.restarts < _MAX_RESTARTS:
            self.restarts += 1
        else:
            raise error
        self.entries, self.cookie, self.verifier = [], 0, bytes(8)


class Listing:
    """Reads everything below a directory.

    Args:
        tree: where.
        session: used for all calls.
        with_attributes: whether to ask the server for names and attributes at once.
    """

    def __init__(self, tree: Tree, session: Session, with_attributes: bool = True) -> None:
        self._tree = tree
        self._session = session
        self._with_attributes = with_attributes
        self._todo: deque[_Scan] = deque()

    def files(self, prefix: str) -> Iterator[ObjectInfo]:
        """All regular files, hidden ones included, those of hidden directories not."""
        try:
            self._add(prefix, self._tree.directory(prefix))
        except NfsError as error:
            if error.status not in MISSING:
                raise
        for scan in self._scans():
            prefix = f"{scan.name}/" if scan.name else ""
            for name, node in self._nodes(scan):
                if node.attributes.kind == nfs.REGULAR:
                    yield ObjectInfo(prefix + name, node.attributes.size)
                elif node.attributes.kind == nfs.DIRECTORY and not name.startswith("."):
                    self._add(prefix + name, node.handle)

    def _add(self, name: str, handle: bytes) -> None:
        self._todo.append(_Scan(name, handle, self._with_attributes))

    def _scans(self) -> Iterator[_Scan]:
        """Read the directories that are to do, also those that are added meanwhile."""
        under_way: deque[tuple[_Scan, Call[Page]]] = deque()
        while self._todo or under_way:
            while self._todo and len(under_way) < AT_ONCE:
                scan = self._todo.popleft()
                under_way.append((scan, self._session.submit(scan.next_page())))
            scan, call = under_way.popleft()
            if self._is_complete(scan, call):
                yield scan
            else:
                self._todo.appendleft(scan)

    def _is_complete(self, scan: _Scan, call: Call[Page]) -> bool:
        try:
            return scan.take(self._session.result(call))
        except NfsError as error:
            if error.status in MISSING | GONE and scan.name:
                return True  # Removed while we read it.
            scan.recover(error)
            return False

    def _nodes(self, scan: _Scan) -> Iterator[tuple[str, Node]]:
        """The entries of a directory, with what the server left out; not those that are gone."""
        unknown = []
        for entry in scan.entries:
            if entry.handle is None or entry.attributes is None:
                unknown.append(entry.name)
            else:
                yield entry.name, Node(entry.handle, entry.attributes)
        calls = (nfs.lookup(scan.handle, name) for name in unknown)
        for name, call in zip(unknown, self._session.in_flight(calls, AT_ONCE), strict=True):
            node = self._completed(scan, name, call)
            if node:
                yield name, node

    def _completed(self, scan: _Scan, name: str, call: Call[Found]) -> Node | None:
        try:
            return self._tree.complete(scan.handle, name, self._session.result(call))
        except NfsError as error:
            if error.status in MISSING | GONE:
                return None
            raise
