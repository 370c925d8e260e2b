"""SMB, run through the suite of `tests/contracts/storage.py` on a real server."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from schemas.storages import SmbStorage
from stages.storages.smb import Smb
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_faults import FaultsContract, Rig, populate
from tests.contracts.storage_subject import Stall, Subject
from tests.servers.base import GID, HOST, IS_ROOT, UID, small_disk
from tests.servers.proxy import Proxy
from tests.servers.smb import PASSWORD, SHARE, USER, Smbd

pytestmark = pytest.mark.integration

SIGNED: Mapping[str, object] = {}
ENCRYPTED: Mapping[str, object] = {"encrypt": True}


def values_for(server: Smbd) -> dict[str, Any]:
    return {
        "type": "smb",
        "host": HOST,
        "port": server.port,
        "share": SHARE,
        "user": USER,
        "password": PASSWORD,
    }


@pytest.fixture(scope="module")
def server() -> Iterator[Smbd]:
    with Smbd() as started:
        yield started


@contextmanager
def _behind_proxy(spec: SmbStorage) -> Iterator[Stall]:
    with Proxy(spec.port) as proxy:
        # Nothing but `abort` may end the wait.
        storage = Smb(spec.model_copy(update={"port": proxy.port, "timeout": 3600.0}))
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


Make = Callable[[Mapping[str, object]], Subject]


@pytest.fixture
def make(server: Smbd) -> Iterator[Make]:
    """Makes storages in places of their own."""
    with ExitStack() as stack:

        def subject(protection: Mapping[str, object]) -> Subject:
            path = f"{secrets.token_hex(8)}/deep"
            spec = SmbStorage.model_validate({**values_for(server), "path": path, **protection})
            storage = Smb(spec)
            stack.callback(storage.close)
            return Subject(spec, storage, lambda: Smb(spec), lambda: _behind_proxy(spec))

        yield subject


class TestSmbContract(StorageContract):
    @pytest.fixture
    def subject(self, make: Make) -> Subject:
        return make(SIGNED)


class TestLastingSmb(LastingStorageContract):
    @pytest.fixture(params=[SIGNED, ENCRYPTED], ids=["signed", "encrypted"])
    def lasting(self, request: pytest.FixtureRequest, make: Make) -> Subject:
        return make(request.param)


@pytest.fixture
def rig(server: Smbd) -> Iterator[Rig]:
    path = secrets.token_hex(8)
    with ExitStack() as stack:

        def storage(on: Smbd = server, **changes: Any) -> Smb:
            values = {**values_for(on), "path": path, **changes}
            made = Smb(SmbStorage.model_validate(values))
            stack.callback(made.close)
            return made

        @contextmanager
        def full() -> Iterator[Smb]:
            other = Smbd()
            with small_disk(other):
                yield storage(other)

        network = stack.enter_context(Proxy(server.port))
        closed = server.data / "closed"
        closed.mkdir(mode=0o500)
        stack.callback(closed.rmdir)
        if IS_ROOT:
            os.chown(closed, UID, GID)
        weak = stack.enter_context(Smbd("server smb encrypt = off"))
        yield Rig(
            server=server,
            network=network,
            patient=storage(port=network.port),
            hasty=storage(port=network.port, timeout="1s"),
            direct=storage(),
            full=full,
            populate=lambda count: populate(server.data / path / "shop" / "crm", count),
            refused={
                "wrong password": storage(password="wrong password"),
                "no password": storage(password=None),
                "wrong user": storage(user="nobody-at-all"),
                "missing share": storage(share="missing"),
                "closed directory": storage(path="closed"),
                "no encryption": storage(weak, encrypt=True),
            },
            secrets=(PASSWORD, "wrong password"),
        )


class TestSmbFaults(FaultsContract):
    """What goes wrong on the way, and at the other end."""
