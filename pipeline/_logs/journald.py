"""The journal of systemd, with the fields of each event.

Format: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ (fields), sd-daemon(3) (prefixes on stderr).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping

from pipeline.logs import Record, Render, plain

IDENT = "nxs-backup"
SOCKET = "/run/systemd/journal/socket"
SOCKET_VARIABLE = "NXS_BACKUP_JOURNAL_SOCKET"
"""Where the socket is instead; for tests of ours, not for users."""
_TIMEOUT = 5.0


class Journal:
    """Sends a datagram for each record: `MESSAGE`, `PRIORITY`, and `NXS_...` for its fields."""

    name = "journald"

    def __init__(self, render: Render, path: str = SOCKET) -> None:
        self._render = render
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_TIMEOUT)

    def write(self, record: Record) -> None:
        """Send a datagram.

        Raises:
            OSError: it was not sent.
        """
        fields = b"".join(_field(name, text) for name, text in self._fields(record))
        self._socket.sendto(fields, self._path)

    def close(self) -> None:
        self._socket.close()

    def _fields(self, record: Record) -> Iterator[tuple[str, str]]:
        yield "MESSAGE", self._render(record)
        yield "PRIORITY", str(record.priority)
        yield "SYSLOG_IDENTIFIER", IDENT
        yield "NXS_EVENT", record.event.name
        fields = {"run": record.run, **record.event.to_fields()}
        for name, value in fields.items():
            # The journal knows a field with several values, each of which can be searched for.
            for each in value if isinstance(value, tuple) else (value,):
                text = each if isinstance(each, str) else json.dumps(plain(each))
                yield f"NXS_{name.upper()}", text


def _field(name: str, text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%b=%b\n" % (name.encode(), data)


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether what is written to a descriptor ends up in the journal, see systemd.exec(5)."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
