"""A real OpenSSH server and storages on it, as fixtures of a base class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from schemas.storages import SftpStorage
from stages.storages._sftp.ssh import Keepalive
from stages.storages.sftp import Sftp
from tests.contracts.storage_subject import NAME, put, read
from tests.servers.base import HOST
from tests.servers.sshd import USER, Sshd

MakeStorage = Callable[..., Sftp]


@pytest.mark.integration
class SftpTests:
    """Derive a `Test...` class; its tests share one server."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Sshd]:
        with Sshd() as sshd:
            yield sshd

    @pytest.fixture
    def storage_on(self) -> Iterator[MakeStorage]:
        """Makes storages on a server, by default with key and trusted host key; closes them."""
        with ExitStack() as stack:

            def make(server: Sshd, keepalive: Keepalive | None = None, **changes: Any) -> Sftp:
                values = {
                    "host": HOST,
                    "port": server.port,
                    "user": USER,
                    "key_file": str(server.key),
                    "host_key": server.host_key,
                    "path": str(server.data / "backups"),
                }
                spec = SftpStorage(type="sftp", **{**values, **changes})
                storage = Sftp(spec, keepalive)
                stack.callback(storage.close)
                return storage

            yield make


def works(storage: Sftp) -> bool:
    """Whether an object can be written, read and deleted there."""
    put(storage, NAME, [b"content"])
    content = read(storage, NAME)
    storage.delete([NAME])
    return content == b"content"
