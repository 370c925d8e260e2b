"""What the integration tests of S3 share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.stage import CHUNK, Writer
from schemas.s3 import S3Storage
from stages.storages._s3.service import Patience
from stages.storages.s3 import S3
from tests.contracts.storage_subject import NAME, names, put, read
from tests.servers.proxy import Proxy
from tests.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, Versitygw, scratch

PART = 5 << 20
"""The smallest size that a part may have."""
QUICK = Patience(seconds=1.0, first_pause=0.05, longest_pause=0.2)
MakeStorage = Callable[..., S3]


@pytest.fixture(scope="module")
def server() -> Iterator[Versitygw]:
    with Versitygw() as server:
        yield server


@pytest.fixture
def storage_on() -> Iterator[MakeStorage]:
    """Makes storages on a server or proxy, by default with the keys of root, and closes them."""
    with ExitStack() as stack:

        def make(
            server: Versitygw | Proxy | None, patience: Patience | None = None, **changes: Any
        ) -> S3:
            values = {
                "bucket": BUCKET,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
                "part_size": "5MiB",
                "parallel": 2,
            }
            if isinstance(server, Proxy):
                values["endpoint"] = f"http://127.0.0.1:{server.port}"
            elif server is not None:
                values["endpoint"] = server.endpoint
            given = {**values, **changes}
            spec = S3Storage(
                type="s3", **{key: value for key, value in given.items() if value is not None}
            )
            storage = S3(spec, patience)
            stack.callback(storage.close)
            return storage

        yield make


@pytest.fixture(autouse=True)
def empty(server: Versitygw, storage_on: MakeStorage) -> Iterator[None]:
    """Each test begins with an empty bucket, whatever became of the one before."""
    yield
    root = storage_on(server)
    root.sweep(root.unfinished(""))
    root.delete(names(root))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home directory of its own, and an environment that says nothing about S3."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    directory = scratch()
    monkeypatch.setenv("HOME", str(directory))
    (directory / ".aws").mkdir()
    yield directory
    shutil.rmtree(directory)


def works(storage: S3) -> bool:
    put(storage, NAME, [b"content"])
    content = read(storage, NAME)
    storage.delete([NAME])
    return content == b"content"


def write_parts(writer: Writer, parts: int) -> bytes:
    """Write so many parts, and a little more; what was written."""
    content = os.urandom(parts * PART + 17)
    for start in range(0, len(content), CHUNK):
        writer.write(content[start : start + CHUNK])
    return content
