"""SFTP, run through the suites of `tests/contracts/`, against OpenSSH."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.storages import SftpStorage
from stages.storages.sftp import Sftp
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_faults import FaultsContract, Rig, populate
from tests.contracts.storage_subject import Stall, Subject
from tests.servers.base import GID, HOST, IS_ROOT, UID, small_disk
from tests.servers.proxy import Proxy
from tests.servers.sshd import PASSWORD, USER, Sshd, make_key

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as started:
        yield started


def spec_on(server: Sshd, path: Path, **changes: Any) -> SftpStorage:
    values = {
        "host": HOST,
        "port": server.port,
        "user": USER,
        "key_file": str(server.key),
        "host_key": server.host_key,
        "path": str(path),
    }
    return SftpStorage.model_validate({"type": "sftp", **values, **changes})


@pytest.fixture
def subject(server: Sshd) -> Iterator[Subject]:
    spec = spec_on(server, server.data / secrets.token_hex(8) / "deep")
    storage = Sftp(spec)
    yield Subject(spec, storage, lambda: Sftp(spec), lambda: _behind_proxy(spec))
    storage.close()


@pytest.fixture
def lasting(subject: Subject) -> Subject:
    return subject


@contextmanager
def _behind_proxy(spec: SftpStorage) -> Iterator[Stall]:
    with Proxy(spec.port) as proxy:
        # Nothing but `abort` may end the wait.
        storage = Sftp(spec.model_copy(update={"port": proxy.port, "timeout": 3600.0}))
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


class TestSftpContract(StorageContract):
    """The suite."""


class TestLastingSftpContract(LastingStorageContract):
    """What outlives a process."""


@pytest.fixture
def rig() -> Iterator[Rig]:
    # A server of its own: it is killed.
    with ExitStack() as stack:
        server = stack.enter_context(Sshd())

        def storage(on: Sshd = server, path: str = "backups", **changes: Any) -> Sftp:
            made = Sftp(spec_on(on, on.data / path, **changes))
            stack.callback(made.close)
            return made

        @contextmanager
        def full() -> Iterator[Sftp]:
            other = Sshd()
            with small_disk(other):
                yield storage(other)

        closed = server.data / "closed"
        closed.mkdir(mode=0o500)
        if IS_ROOT:
            os.chown(closed, UID, GID)
        network = stack.enter_context(Proxy(server.port))
        stranger = make_key(server.client_dir / "stranger")
        other_key = make_key(server.client_dir / "other")
        pinned = " ".join(other_key.with_name("other.pub").read_text().split()[:2])
        yield Rig(
            server=server,
            network=network,
            patient=storage(port=network.port),
            hasty=storage(port=network.port, timeout="1s", connect_timeout="1s"),
            direct=storage(),
            full=full,
            populate=lambda count: populate(server.data / "backups" / "shop" / "crm", count),
            refused={
                "wrong password": storage(key_file=None, password="wrong password"),
                "wrong key": storage(key_file=str(stranger)),
                "wrong user": storage(user="nobody-at-all", key_file=None, password=PASSWORD),
                "another host key": storage(host_key=pinned),
                "unknown host key": storage(host_key=None, known_hosts="/dev/null"),
                "closed directory": storage(path="closed"),
            },
            secrets=(PASSWORD, "wrong password"),
        )


class TestSftpFaults(FaultsContract):
    """What goes wrong on the way, and at the other end."""
