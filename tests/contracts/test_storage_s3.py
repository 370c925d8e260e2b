"""S3, run through the suite of `tests/contracts/storage.py`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from schemas.storages import S3Storage
from stages.storages.s3 import S3
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_subject import Stall, Subject
from tests.servers.base import HOST
from tests.servers.proxy import Proxy
from tests.servers.s3 import ACCESS_KEY, BUCKET, REASON, SECRET_KEY, Versitygw, can_run

# The first test may have to build the server.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_run(), reason=REASON),
]


class SecretSubject(Subject):
    """Hands its secret to the processes that are started for it."""

    def spec_json(self) -> str:
        values = self.spec.model_dump(mode="json", exclude_unset=True)
        return json.dumps({**values, "secret_key": SECRET_KEY})


@pytest.fixture(scope="module")
def server() -> Iterator[Versitygw]:
    with Versitygw() as server:
        yield server


@pytest.fixture
def subject(server: Versitygw) -> Iterator[Subject]:
    spec = S3Storage(
        type="s3",
        endpoint=server.endpoint,
        bucket=BUCKET,
        path=f"{secrets.token_hex(8)}/deep",
        access_key=ACCESS_KEY,
        secret_key=SecretStr(SECRET_KEY),
    )
    storage = S3(spec)
    yield SecretSubject(spec, storage, lambda: S3(spec), lambda: _behind_proxy(server, spec))
    storage.close()


@pytest.fixture
def lasting(subject: Subject) -> Subject:
    return subject


@contextmanager
def _behind_proxy(server: Versitygw, spec: S3Storage) -> Iterator[Stall]:
    with Proxy(server.port) as proxy:
        endpoint = f"http://{HOST}:{proxy.port}"
        storage = S3(spec.model_copy(update={"endpoint": endpoint}))
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


class TestS3Contract(StorageContract):
    """The suite."""


class TestLastingS3Contract(LastingStorageContract):
    """What only those can keep that are not memory."""
