"""A real FTP server and storages on it, as fixtures of a base class; uploads that are disturbed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pipeline.stage import CHUNK, Writer
from schemas.storages import FtpStorage
from stages.storages._ftp.link import Patience
from stages.storages.ftp import Ftp
from tests.contracts.storage_subject import NAME, TOKEN, put, read
from tests.servers.base import HOST
from tests.servers.ftp import PASSWORD, USER, Ftpd
from tests.servers.ftp_proxy import FtpProxy

HASTY = Patience(seconds=0.5, first_delay=0.1, longest_delay=0.1)
PATIENT = Patience(seconds=30, first_delay=0.05, longest_delay=0.2)
IN_THE_CLEAR = {"mode": "off"}
MakeStorage = Callable[..., Ftp]
_CONTENT = os.urandom(CHUNK)


@pytest.mark.integration
class FtpTests:
    """Derive a `Test...` class; its tests share one server."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Ftpd]:
        with Ftpd() as ftpd:
            yield ftpd

    @pytest.fixture(scope="class")
    @classmethod
    def storage_on(cls) -> Iterator[MakeStorage]:
        """Makes storages on a server, by default with checked explicit TLS.

        They are closed together, see `Ftpd`.
        """
        with ExitStack() as stack:

            def make(server: Ftpd, patience: Patience | None = None, **changes: Any) -> Ftp:
                values = {
                    "host": HOST,
                    "port": server.port,
                    "user": USER,
                    "password": PASSWORD,
                    "path": str(server.data / "backups"),
                    "tls": {"ca": str(server.ca)},
                }
                spec = FtpStorage.model_validate({"type": "ftp", **values, **changes})
                storage = Ftp(spec, patience)
                stack.callback(storage.close)
                return storage

            yield make


@contextmanager
def proxy_before(server: Ftpd, rate: int | None = None) -> Iterator[FtpProxy]:
    """A proxy that storages reach at `FAR_HOST`, at the server's own port."""
    with FtpProxy(server.port, server.passive_ports, rate) as proxy:
        yield proxy


def works(storage: Ftp) -> bool:
    put(storage, NAME, [b"content"])
    content = read(storage, NAME)
    storage.delete([NAME])
    return content == b"content"


def chunk(number: int) -> bytes:
    """A chunk that differs from all others."""
    return number.to_bytes(16, "big") + _CONTENT[16:]


def upload(writer: Writer, count: int, events: Mapping[int, Callable[[], None]]) -> str:
    """Write so many chunks, with something happening before some of them: their SHA-256."""
    digest = hashlib.sha256()
    for number in range(count):
        events.get(number, lambda: None)()
        digest.update(chunk(number))
        writer.write(chunk(number))
    return digest.hexdigest()


def stored_digest(server: Ftpd, name: str = NAME) -> str:
    """SHA-256 of what the server really has."""
    digest = hashlib.sha256()
    with open(server.data / "backups" / name, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def upload_disturbed(
    server: Ftpd, storage: Ftp, count: int, events: Mapping[int, Callable[[], None]]
) -> None:
    """An upload that things happen to, and that arrives whole all the same."""
    writer = storage.create(NAME, TOKEN)
    try:
        digest = upload(writer, count, events)
        writer.commit()
    finally:
        writer.abort()
    assert stored_digest(server) == digest
    assert storage.unfinished("") == []
    storage.delete([NAME])
