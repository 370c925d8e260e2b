"""S3, run through the suite of `tests/contracts/storage.py`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.s3 import S3Storage
from stages.storages._s3.service import Patience
from stages.storages.s3 import S3
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_faults import FaultsContract, Rig, populate
from tests.contracts.storage_subject import Stall, Subject
from tests.servers.base import HOST, small_disk
from tests.servers.proxy import Proxy
from tests.servers.s3 import (
    ACCESS_KEY,
    BUCKET,
    REASON,
    SECRET_KEY,
    USER_KEY,
    USER_SECRET,
    Versitygw,
    can_run,
)

# The first test may have to build the server.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_run(), reason=REASON),
]


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
    yield Subject(spec, storage, lambda: S3(spec), lambda: _behind_proxy(server, spec))
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


@pytest.fixture
def rig(server: Versitygw) -> Iterator[Rig]:
    path = secrets.token_hex(8)
    with ExitStack() as stack:

        def storage(
            patience: Patience | None = None, on: Versitygw | Proxy = server, **changes: Any
        ) -> S3:
            values = {
                "endpoint": f"http://{HOST}:{on.port}",
                "bucket": BUCKET,
                "path": path,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
                "part_size": "5MiB",
                "parallel": 2,
            }
            made = S3(S3Storage(type="s3", **{**values, **changes}), patience)
            stack.callback(made.close)
            return made

        @contextmanager
        def full() -> Iterator[S3]:
            other = Versitygw()
            with small_disk(other) as is_small:
                if not is_small:
                    pytest.skip("versitygw has no words for a file that may not grow")
                other.make_bucket()
                yield storage(on=other)

        network = stack.enter_context(Proxy(server.port))
        hasty = Patience(seconds=1.0, first_pause=0.05, longest_pause=0.2)
        yield Rig(
            server=server,
            network=network,
            patient=storage(on=network),
            hasty=storage(hasty, network, timeout="1s"),
            direct=storage(),
            full=full,
            populate=lambda count: populate(server.data / BUCKET / path / "shop" / "crm", count),
            refused={
                "wrong access key": storage(access_key="nobody"),
                "wrong secret key": storage(secret_key="wrong secret"),
                "missing bucket": storage(bucket="not-there"),
                "closed bucket": storage(access_key=USER_KEY, secret_key=USER_SECRET),
            },
            secrets=(SECRET_KEY, USER_SECRET, "wrong secret"),
            holds_connections=4,
        )


class TestS3Faults(FaultsContract):
    """What goes wrong on the way, and at the other end."""
