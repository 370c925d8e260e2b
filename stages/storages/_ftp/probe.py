"""What `check --connect` finds out about an FTP server."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Sequence
from datetime import datetime, timezone

from pipeline.errors import StorageError
from pipeline.naming import run_token
from pipeline.stage import Storage
from stages.storages._ftp.link import Link

_LISTENING = "anyone on the way can read the password and the backups, and change them"


def facts_of(storage: Storage, link: Link) -> list[str]:
    """Server, encryption, and whether an upload that breaks could go on; one line each.

    Raises:
        StorageError: the server does not let us in.
    """
    facts = [f'directory "{link.root}" on "{link.server}"', *_connection(link)]
    if not _takes_up_again(storage):
        facts.append(
            "warning: the server does not let an upload go on (REST with STOR, or APPE); a "
            "connection that breaks fails the backup"
        )
    return facts


def _connection(link: Link) -> Sequence[str]:
    with link.client("ask the server about itself") as client:
        sock = client.control
        if not isinstance(sock, ssl.SSLSocket):
            return [f"warning: the connection is not encrypted; {_LISTENING}"]
        cipher = sock.cipher()
        facts = [f"encrypted: {sock.version()}, {cipher[0] if cipher else 'unknown cipher'}"]
    asked_for = link.spec.tls and link.spec.tls.mode  # Else: loopback.
    if asked_for and asked_for != "verify":
        facts.append(f"warning: the certificate is not checked; {_LISTENING}")
    return facts


def _takes_up_again(storage: Storage) -> bool:
    """Whether a second piece can be added to the first; nothing of it becomes visible."""
    name = f"nxs-backup-probe-{secrets.token_hex(6)}/probe"
    token = run_token("00000000", datetime.now(timezone.utc), secrets.token_hex(3))
    writer = storage.create(name, token)
    try:
        writer.write(b"first")
        writer.flush()
        try:
            writer.write(b"second")
            writer.flush()
        except StorageError:
            return False
        return True
    finally:
        writer.abort()
