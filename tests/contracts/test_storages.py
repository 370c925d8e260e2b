"""Every storage, run through the suite of `tests/contracts/storage.py`."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from schemas.storages import LocalStorage, MemoryStorage, SftpStorage
from stages.storages import memory
from stages.storages._sftp.ssh import Keepalive
from stages.storages.local import Local
from stages.storages.sftp import Sftp
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_subject import Stall, Subject
from tests.servers.base import HOST
from tests.servers.proxy import Proxy
from tests.servers.sshd import USER, Sshd

Servers = dict[str, Sshd]
MakeSubject = Callable[[ExitStack, Servers], Subject]


def memory_storage(stack: ExitStack, _: Servers) -> Subject:
    spec = MemoryStorage(type="memory", path=secrets.token_hex(4))
    storage = memory.Memory(spec)
    stack.callback(memory.clear)
    return Subject(spec, storage, lambda: memory.Memory(spec), lambda: _never(storage))


def local_storage(stack: ExitStack, _: Servers) -> Subject:
    root = Path(tempfile.mkdtemp(prefix="nxs-local-"))
    stack.callback(shutil.rmtree, root)
    spec = LocalStorage(type="local", path=str(root / "not" / "there"), fsync=False)
    storage = Local(spec)
    return Subject(spec, storage, lambda: Local(spec), lambda: _never(storage))


def sftp_storage(stack: ExitStack, servers: Servers) -> Subject:
    if "sshd" not in servers:
        servers["sshd"] = Sshd()
        servers["sshd"].start()
    server = servers["sshd"]
    spec = SftpStorage(
        type="sftp",
        host=HOST,
        port=server.port,
        user=USER,
        key_file=str(server.key),
        host_key=server.host_key,
        path=str(server.data / secrets.token_hex(8) / "deep"),
    )
    storage = Sftp(spec)
    stack.callback(storage.close)
    return Subject(spec, storage, lambda: Sftp(spec), lambda: _behind_proxy(spec))


def _never(storage: memory.Memory | Local) -> AbstractContextManager[Stall]:
    return nullcontext((storage, lambda: None))


@contextmanager
def _behind_proxy(spec: SftpStorage) -> Iterator[Stall]:
    with Proxy(spec.port) as proxy:
        # Without keepalive: nothing but `abort` may end the wait.
        silent = Keepalive(interval=0)
        storage = Sftp(spec.model_copy(update={"port": proxy.port}), silent)
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Servers by name, started by the first test that needs them."""
    started: Servers = {}
    yield started
    for server in started.values():
        server.stop()


LASTING = [
    pytest.param(local_storage, id="local"),
    pytest.param(sftp_storage, id="sftp", marks=pytest.mark.integration),
]
STORAGES = [pytest.param(memory_storage, id="memory"), *LASTING]


@pytest.fixture(params=LASTING)
def lasting(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Subject]:
    make: MakeSubject = request.param
    with ExitStack() as stack:
        yield make(stack, servers)


@pytest.fixture(params=STORAGES)
def subject(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Subject]:
    make: MakeSubject = request.param
    with ExitStack() as stack:
        yield make(stack, servers)


class TestStorageContract(StorageContract):
    """The suite, for every storage."""


class TestLastingStorageContract(LastingStorageContract):
    """What only those can keep that are not memory."""
