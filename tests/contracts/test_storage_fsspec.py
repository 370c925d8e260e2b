"""Storage fsspec over a driver of each kind, run through the suites of `tests/contracts`."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageRefused
from pipeline.naming import quote_name
from schemas.storages import FsspecStorage
from stages.storages.fsspec import Fsspec
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_faults import FaultsContract, Rig, populate
from tests.contracts.storage_subject import TOKEN, Stall, Subject, everything
from tests.integration.fsspec_storage import over_s3, over_ssh, spec_of
from tests.servers.base import GID, IS_ROOT, UID, Server, small_disk
from tests.servers.proxy import Proxy
from tests.servers.s3 import (
    BUCKET,
    REASON,
    SECRET_KEY,
    USER_KEY,
    USER_SECRET,
    Versitygw,
    can_run,
)
from tests.servers.sshd import PASSWORD, Sshd, make_key

# The first test may have to build the server of S3.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
needs_s3 = pytest.mark.skipif(not can_run(), reason=REASON)

OnPort = Callable[[int], FsspecStorage]


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with Sshd() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[Versitygw]:
    with Versitygw() as server:
        yield server


@contextmanager
def _here(url: str) -> Iterator[Subject]:
    spec = spec_of(url)
    storage = Fsspec(spec)
    try:
        yield Subject(
            spec, storage, lambda: Fsspec(spec), lambda: nullcontext((storage, lambda: None))
        )
    finally:
        storage.close()


@contextmanager
def _on_server(server: Server, on_port: OnPort) -> Iterator[Subject]:
    spec = on_port(server.port)
    storage = Fsspec(spec)
    try:
        yield Subject(
            spec, storage, lambda: Fsspec(spec), lambda: _behind_proxy(server.port, on_port)
        )
    finally:
        storage.close()


@contextmanager
def _behind_proxy(port: int, on_port: OnPort) -> Iterator[Stall]:
    with Proxy(port) as proxy:
        # Nothing but `abort` may end the wait.
        storage = Fsspec(on_port(proxy.port).model_copy(update={"timeout": 3600.0}))
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


@pytest.fixture
def files() -> Iterator[Subject]:
    root = Path(tempfile.mkdtemp(prefix="nxs-fsspec-"))
    with _here(f"file://{root}/not/there") as subject:
        yield subject
    shutil.rmtree(root)


@pytest.fixture
def over_sshfs(sshd: Sshd) -> Iterator[Subject]:
    path = sshd.data / secrets.token_hex(8) / "deep"
    with _on_server(sshd, lambda port: over_ssh(sshd, path, port)) as subject:
        yield subject


@pytest.fixture
def over_s3fs(s3: Versitygw) -> Iterator[Subject]:
    path = f"{secrets.token_hex(8)}/deep"
    with _on_server(s3, lambda port: over_s3(port, path)) as subject:
        yield subject


class _Utf8Names(StorageContract):
    @pytest.mark.parametrize(
        "base",
        [
            quote_name("a/b c%~.d"),
            quote_name(".hidden\udcff\n'\"*?[x]"),
            "raw ünïcödé 日本語 файл",
            "blank and 'quotes' \"*?[x]$(y)`z`;&|<>\\#!{}",
            "n" * 200,
            "-rf",
            "a..b",
        ],
    )
    def test_odd_names(self, subject: Subject, base: str) -> None:
        super().test_odd_names(subject, base)

    def test_names_that_are_not_utf8_are_refused(self, subject: Subject) -> None:
        with pytest.raises(StorageRefused, match="not UTF-8"):
            subject.storage.create(os.fsdecode(b"shop/\xff\xfe"), TOKEN)
        assert everything(subject.storage) == []


class TestLocalFiles(StorageContract):
    @pytest.fixture
    def subject(self, files: Subject) -> Subject:
        return files


class TestMemory(StorageContract):
    """A driver about which nothing is known does the same: it can only copy."""

    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        with _here(f"memory://{secrets.token_hex(8)}/deep") as subject:
            yield subject


class TestSshfs(_Utf8Names):
    @pytest.fixture
    def subject(self, over_sshfs: Subject) -> Subject:
        return over_sshfs


@needs_s3
class TestS3fs(_Utf8Names):
    @pytest.fixture
    def subject(self, over_s3fs: Subject) -> Subject:
        return over_s3fs


class TestLasting(LastingStorageContract):
    @pytest.fixture(params=["files", "over_sshfs", pytest.param("over_s3fs", marks=needs_s3)])
    def lasting(self, request: pytest.FixtureRequest) -> Subject:
        subject: Subject = request.getfixturevalue(request.param)
        return subject


@contextmanager
def _storages() -> Iterator[Callable[[FsspecStorage], Fsspec]]:
    with ExitStack() as stack:

        def make(spec: FsspecStorage) -> Fsspec:
            storage = Fsspec(spec)
            stack.callback(storage.close)
            return storage

        yield make


class TestSshfsFaults(FaultsContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        with Sshd() as server, Proxy(server.port) as network, _storages() as make:
            path = server.data / secrets.token_hex(8)
            closed = server.data / "closed"
            closed.mkdir(mode=0o500)
            if IS_ROOT:
                os.chown(closed, UID, GID)

            def storage(where: Any = path, **keys: Any) -> Fsspec:
                return make(over_ssh(server, where, **keys))

            def options(**changed: Any) -> Fsspec:
                return storage(options=changed)

            @contextmanager
            def full() -> Iterator[Fsspec]:
                other = Sshd()
                with small_disk(other):
                    yield make(over_ssh(other, other.data))

            yield Rig(
                server=server,
                network=network,
                patient=storage(port=network.port),
                hasty=storage(port=network.port, timeout="2s"),
                direct=storage(),
                full=full,
                populate=lambda count: populate(path / "shop" / "crm", count),
                refused={
                    "wrong password": options(client_keys=[], password="wrong password"),
                    "wrong key": options(client_keys=[str(make_key(server.client_dir / "new"))]),
                    "wrong user": options(username="nobody-at-all"),
                    "unknown host": options(known_hosts=[]),
                    "closed directory": storage(closed),
                },
                secrets=(PASSWORD, "wrong password"),
                resumes=False,
            )


@needs_s3
class TestS3fsFaults(FaultsContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        with Versitygw() as server, Proxy(server.port) as network, _storages() as make:
            path, bucket = secrets.token_hex(8), server.data / BUCKET

            def storage(port: int = server.port, **keys: Any) -> Fsspec:
                return make(over_s3(port, path, **keys))

            @contextmanager
            def full() -> Iterator[Fsspec]:
                other = Versitygw()
                with small_disk(other) as is_small:
                    if not is_small:
                        pytest.skip("versitygw has no words for a file that may not grow")
                    other.make_bucket()
                    yield make(over_s3(other.port, path))

            yield Rig(
                server=server,
                network=network,
                patient=storage(network.port),
                hasty=storage(network.port, timeout="2s"),
                direct=storage(),
                full=full,
                populate=lambda count: populate(bucket / path / "shop" / "crm", count),
                refused={
                    "wrong access key": storage(options={"key": "nobody"}),
                    "wrong secret key": storage(options={"secret": "wrong secret"}),
                    "missing bucket": storage(bucket="not-there"),
                    "closed bucket": storage(options={"key": USER_KEY, "secret": USER_SECRET}),
                },
                secrets=(SECRET_KEY, USER_SECRET, "wrong secret"),
            )
