"""NFS, run through the suite of `tests/contracts/storage.py` on a real server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from schemas.storages import NfsStorage
from stages.storages.nfs import Nfs
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_faults import FaultsContract, Rig, populate
from tests.contracts.storage_subject import Stall, Subject
from tests.servers.base import GID, HOST, UID, small_disk
from tests.servers.nfs import REASON, Ganesha, can_run
from tests.servers.proxy import Proxy

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not can_run(), reason=REASON),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Ganesha]:
    with Ganesha() as ganesha:
        yield ganesha


@pytest.fixture
def subject(server: Ganesha) -> Iterator[Subject]:
    spec = NfsStorage(
        type="nfs",
        host=HOST,
        export=server.export,
        path=f"{secrets.token_hex(8)}/deep",
        nfs_port=server.port,
        mount_port=server.mount_port,
        uid=UID,
        gid=GID,
    )
    storage = Nfs(spec)
    yield Subject(spec, storage, lambda: Nfs(spec), lambda: _behind_proxy(spec))
    storage.close()


@pytest.fixture
def lasting(subject: Subject) -> Subject:
    return subject


@contextmanager
def _behind_proxy(spec: NfsStorage) -> Iterator[Stall]:
    assert spec.nfs_port
    with Proxy(spec.nfs_port) as proxy:
        # Nothing but `abort` may end the wait.
        storage = Nfs(spec.model_copy(update={"nfs_port": proxy.port, "timeout": 3600.0}))
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


class TestNfsContract(StorageContract):
    """The suite."""


class TestLastingNfsContract(LastingStorageContract):
    """What outlives a process."""


@pytest.fixture
def rig(server: Ganesha) -> Iterator[Rig]:
    path = secrets.token_hex(8)
    with ExitStack() as stack:

        def storage(on: Ganesha = server, **changes: Any) -> Nfs:
            values = {
                "host": HOST,
                "export": on.export,
                "path": path,
                "nfs_port": on.port,
                "mount_port": on.mount_port,
                "uid": UID,
                "gid": GID,
            }
            made = Nfs(NfsStorage(type="nfs", **{**values, **changes}))
            stack.callback(made.close)
            return made

        @contextmanager
        def full() -> Iterator[Nfs]:
            other = Ganesha()
            with small_disk(other):
                yield storage(other)

        network = stack.enter_context(Proxy(server.port))
        closed = server.data / "closed"
        closed.mkdir(mode=0o700)
        stack.callback(closed.rmdir)
        yield Rig(
            server=server,
            network=network,
            patient=storage(nfs_port=network.port),
            hasty=storage(nfs_port=network.port, timeout="1s"),
            direct=storage(),
            full=full,
            populate=lambda count: populate(server.data / path / "shop" / "crm", count),
            refused={
                "missing export": storage(export="/not/there"),
                "closed directory": storage(path="closed"),
            },
        )


class TestNfsFaults(FaultsContract):
    """What goes wrong on the way, and at the other end."""
