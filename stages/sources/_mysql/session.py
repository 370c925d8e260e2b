"""What the artifacts of a run share: connections that see the same moment."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from pipeline.context import Teardown
from pipeline.errors import Aborted
from schemas.mysql import MysqlSource
from stages.sources._mysql import catalog, snapshot
from stages.sources._mysql.catalog import Choice, Contents
from stages.sources._mysql.link import Link, interrupt
from stages.sources._mysql.login import Login
from stages.sources._mysql.replica import Pause


class Session:
    """Connections with a snapshot, from `open` to `close`.

    Raises:
        SourceError: from `open`: it is not to be had; nothing is left behind.
    """

    def __init__(self, spec: MysqlSource, login: Login) -> None:
        self._spec = spec
        self._login = login
        self._stack = contextlib.ExitStack()
        self._every: list[Link] = []
        self._joining: socket.socket | None = None
        """Where a link is made just now."""
        self._interrupted = False
        self._without_transactions: set[str] = set()
        self._warnings: list[str] = []
        self.links: Sequence[Link] = ()
        self.contents: dict[str, Contents] = {}
        """By the name of the database: what it had when the snapshot was taken."""
        self.facts: dict[str, str] = {}
        self.max_packet = 0

    @property
    def main(self) -> Link:
        """The connection for everything but rows."""
        return self.links[0]

    def open(self, databases: Sequence[str], teardown: Teardown) -> None:
        """Connect, take the snapshot, and look at what there is."""
        try:
            with teardown.calling(self.interrupt):
                self._open(databases)
        except BaseException:
            self.close()
            teardown.check()
            raise

    def _open(self, databases: Sequence[str]) -> None:
        spec = self._spec
        if spec.stop_slave:
            pause = Pause(lambda: Link(self._login, spec.idle_timeout, spec.lock_wait))
            self._stack.callback(pause.end)
            pause.begin()
            self.facts |= pause.facts
        links = [self._connect() for _ in range(spec.parallel)]
        spare = self._connect()
        self._without_transactions = catalog.engines_without_transactions(spare)
        self.max_packet = int(spare.variables("max_allowed_packet")["max_allowed_packet"])
        taken = snapshot.take(links, spare, spec.lock, spec.lock_wait)
        for link in [*links, spare]:
            if link not in taken.links and link is not taken.lock:
                link.close()
        self.links = taken.links
        self.facts |= taken.facts
        self._warnings += taken.warnings
        choice = Choice(spec)
        self.contents = {name: catalog.contents(self.main, name, choice) for name in databases}

    def _join(self, sock: socket.socket) -> None:
        self._joining = sock
        if self._interrupted:
            raise Aborted

    def _connect(self) -> Link:
        link = Link(self._login, self._spec.idle_timeout, self._spec.lock_wait, self._join)
        self._every.append(link)
        self._stack.callback(link.close)
        if self._interrupted:
            link.interrupt()
        return link

    def warnings_for(self, databases: Sequence[str]) -> list[str]:
        """What is not as it should be with these databases."""
        return [*self._warnings, *self._outside(databases)]

    def _outside(self, databases: Sequence[str]) -> list[str]:
        """Tables that no snapshot shows, unless nobody can write to them."""
        if self._spec.lock == "full":
            return []
        found = [
            f"{table.shown} ({table.engine})"
            for name in databases
            for table in self.contents[name].tables
            if table.engine.upper() in self._without_transactions and table.has_rows
        ]
        if not found:
            return []
        named = ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
        return [
            f"not of the same moment as the rest, as their engines have no transactions: {named}; "
            "`lock: full` would make them so"
        ]

    def interrupt(self) -> None:
        """End whatever waits for the server; from any thread."""
        self._interrupted = True
        joining = self._joining
        if joining is not None:
            interrupt(joining)
        for link in list(self._every):
            link.interrupt()

    def close(self) -> None:
        """Close the connections, which ends transactions and locks; start replication again.

        Raises:
            SourceError: replication could not be started again.
        """
        self._stack.close()
