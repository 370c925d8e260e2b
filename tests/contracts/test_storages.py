"""Storages without a server, run through the suite of `tests/contracts/storage.py`."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import pytest

from schemas.storages import LocalStorage, MemoryStorage
from stages.storages import memory
from stages.storages.local import Local
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_subject import Stall, Subject

MakeSubject = Callable[[ExitStack], Subject]


def memory_storage(stack: ExitStack) -> Subject:
    spec = MemoryStorage(type="memory", path=secrets.token_hex(4))
    storage = memory.Memory(spec)
    stack.callback(memory.clear)
    return Subject(spec, storage, lambda: memory.Memory(spec), lambda: _never(storage))


def local_storage(stack: ExitStack) -> Subject:
    root = Path(tempfile.mkdtemp(prefix="nxs-local-"))
    stack.callback(shutil.rmtree, root)
    spec = LocalStorage(type="local", path=str(root / "not" / "there"), fsync=False)
    storage = Local(spec)
    return Subject(spec, storage, lambda: Local(spec), lambda: _never(storage))


def _never(storage: memory.Memory | Local) -> AbstractContextManager[Stall]:
    return nullcontext((storage, lambda: None))


LASTING = [pytest.param(local_storage, id="local")]
STORAGES = [pytest.param(memory_storage, id="memory"), *LASTING]


@pytest.fixture(params=LASTING)
def lasting(request: pytest.FixtureRequest) -> Iterator[Subject]:
    make: MakeSubject = request.param
    with ExitStack() as stack:
        yield make(stack)


@pytest.fixture(params=STORAGES)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    make: MakeSubject = request.param
    with ExitStack() as stack:
        yield make(stack)


class TestStorageContract(StorageContract):
    """The suite, for every storage."""


class TestLastingStorageContract(LastingStorageContract):
    """What only those can keep that are not memory."""
