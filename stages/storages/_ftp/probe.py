"""What `check --connect` finds out about an FTP server and about what the user may do there."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone

from pipeline.errors import ObjectMissing, StorageError, StorageRefused
from pipeline.naming import run_token
from pipeline.stage import Storage
from stages.storages._ftp.link import Link

_LISTENING = "anyone on the way can read the password and the backups, and change them"


class Probe:
    """One object through its whole life; what only some need is a warning when it is refused.

    Args:
        storage: what is probed; its objects come and go below a directory of their own.
        link: its connections.
    """

    def __init__(self, storage: Storage, link: Link) -> None:
        self._storage = storage
        self._link = link
        self._directory = f"nxs-backup-probe-{secrets.token_hex(6)}"
        self._name = f"{self._directory}/probe"
        self._content = secrets.token_bytes(1000)
        self._can: list[str] = []
        self._warnings: list[str] = []

    def run(self) -> list[str]:
        """The facts, one line each.

        Raises:
            StorageError: an object cannot be written, or comes back as something else.
        """
        try:
            self._write()
            self._try("listed", self._list)
            self._try("read", self._read)
            self._try("deleted", self._delete)
        except BaseException:
            with suppress(StorageError):  # The first error is the one to tell.
                self._storage.delete([self._name])
            raise
        can = ", ".join(self._can)
        where = f'directory "{self._link.root}" on "{self._link.server}"'
        return [f"{where}: objects can be {can}", *self._connection(), *self._warnings]

    def _write(self) -> None:
        half = len(self._content) // 2
        try:
            self._write_in([self._content[:half], self._content[half:]])
        except StorageError:
            self._write_in([self._content])
            self._warnings.append(
                "warning: the server does not let an upload go on (REST with STOR, or APPE); a "
                "connection that breaks fails the backup"
            )
        self._can.append("written")

    def _write_in(self, pieces: Sequence[bytes]) -> None:
        token = run_token("00000000", datetime.now(timezone.utc), secrets.token_hex(3))
        writer = self._storage.create(self._name, token)
        try:
            for piece in pieces:
                writer.write(piece)
                writer.flush()
            writer.commit()
        except BaseException:
            writer.abort()
            raise

    def _try(self, done: str, action: Callable[[], None]) -> None:
        try:
            action()
        except (Changed, ObjectMissing):
            raise
        except StorageRefused as refusal:
            self._warnings.append(f"warning: objects cannot be {done}: {refusal}")
        else:
            self._can.append(done)

    def _list(self) -> None:
        found = [(info.name, info.size) for info in self._storage.list(self._directory)]
        if found != [(self._name, len(self._content))]:
            raise StorageRefused("a listing does not show what was written")

    def _read(self) -> None:
        if b"".join(self._storage.open(self._name)) != self._content:
            raise Changed(f'object "{self._name}" came back changed')

    def _delete(self) -> None:
        self._storage.delete([self._name])

    def _connection(self) -> list[str]:
        with self._link.client("ask the server about itself") as client:
            sock = client.control
            if not isinstance(sock, ssl.SSLSocket):
                return [f"warning: the connection is not encrypted; {_LISTENING}"]
            cipher = sock.cipher()
            facts = [f"encrypted: {sock.version()}, {cipher[0] if cipher else 'unknown cipher'}"]
        asked_for = self._link.spec.tls and self._link.spec.tls.mode  # Else: loopback.
        if asked_for and asked_for != "verify":
            facts.append(f"warning: the certificate is not checked; {_LISTENING}")
        return facts


class Changed(StorageRefused):
    """The server has something else than what was written."""
