"""WebDAV, run through the suite of `tests/contracts/storage.py`: Apache, also over TLS; nginx."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from schemas.storages import WebdavStorage
from stages.storages._webdav import writer
from stages.storages._webdav.session import Patience
from stages.storages.webdav import Webdav
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_faults import FaultsContract, Rig, populate
from tests.contracts.storage_subject import Stall, Subject
from tests.servers.base import HOST, small_disk
from tests.servers.proxy import Proxy
from tests.servers.webdav import PASSWORD, USER, Apache, Nginx

pytestmark = pytest.mark.integration

OnPort = Callable[[int], WebdavStorage]


def _spec(url: str, **more: Any) -> WebdavStorage:
    values = {"type": "webdav", "url": url, "user": USER, "password": PASSWORD, **more}
    return WebdavStorage.model_validate(values)


@contextmanager
def _behind_proxy(port: int, on_port: OnPort) -> Iterator[Stall]:
    with Proxy(port) as proxy:
        # Nothing but `abort` may end the wait.
        storage = Webdav(on_port(proxy.port).model_copy(update={"timeout": 3600.0}))
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


@contextmanager
def _subject(port: int, on_port: OnPort) -> Iterator[Subject]:
    spec = on_port(port)
    storage = Webdav(spec)
    try:
        yield Subject(spec, storage, lambda: Webdav(spec), lambda: _behind_proxy(port, on_port))
    finally:
        storage.close()


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `abort` cannot remove from a server that is silent, it need not try for long."""
    monkeypatch.setattr(writer, "_ABORT_SECONDS", 0.5)


@pytest.fixture(scope="module")
def apache() -> Iterator[Apache]:
    with Apache() as server:
        yield server


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    with Nginx() as server:
        yield server


def _path() -> str:
    return f"{secrets.token_hex(8)}/deep"


@pytest.fixture
def in_the_clear(apache: Apache) -> Iterator[Subject]:
    path = _path()
    with _subject(apache.port, lambda port: _spec(f"http://{HOST}:{port}/{path}")) as subject:
        yield subject


@pytest.fixture
def over_tls(apache: Apache) -> Iterator[Subject]:
    path, tls = _path(), {"ca": str(apache.ca)}
    with _subject(
        apache.tls_port, lambda port: _spec(f"https://{HOST}:{port}/{path}", tls=tls)
    ) as subject:
        yield subject


@pytest.fixture
def on_nginx(nginx: Nginx) -> Iterator[Subject]:
    path = _path()
    with _subject(nginx.port, lambda port: _spec(f"http://{HOST}:{port}/{path}")) as subject:
        yield subject


class TestApache(StorageContract):
    @pytest.fixture
    def subject(self, in_the_clear: Subject) -> Subject:
        return in_the_clear


class TestApacheOverTls(StorageContract):
    @pytest.fixture
    def subject(self, over_tls: Subject) -> Subject:
        return over_tls


class TestNginx(StorageContract):
    @pytest.fixture
    def subject(self, on_nginx: Subject) -> Subject:
        return on_nginx


class TestLastingApache(LastingStorageContract):
    @pytest.fixture(params=["in_the_clear", "over_tls"])
    def lasting(self, request: pytest.FixtureRequest) -> Subject:
        subject: Subject = request.getfixturevalue(request.param)
        return subject


class TestLastingNginx(LastingStorageContract):
    @pytest.fixture
    def lasting(self, on_nginx: Subject) -> Subject:
        return on_nginx


@pytest.fixture
def rig() -> Iterator[Rig]:
    path = secrets.token_hex(8)
    with ExitStack() as stack:
        server = stack.enter_context(Apache())

        def storage(
            url: str = server.url(path), patience: Patience | None = None, **changes: Any
        ) -> Webdav:
            made = Webdav(_spec(url, **changes), patience)
            stack.callback(made.close)
            return made

        @contextmanager
        def full() -> Iterator[Webdav]:
            other = Apache()
            with small_disk(other):
                yield storage(other.url("there"))

        network = stack.enter_context(Proxy(server.port))
        far = f"http://{HOST}:{network.port}/{path}"
        hasty = Patience(seconds=0.5, first_delay=0.1, longest_delay=0.1)
        yield Rig(
            server=server,
            network=network,
            patient=storage(far),
            hasty=storage(far, hasty, timeout="1s", connect_timeout="1s"),
            direct=storage(),
            full=full,
            populate=lambda count: populate(server.data / path / "shop" / "crm", count),
            refused={
                "wrong password": storage(password="wrong password"),
                "wrong user": storage(user="nobody-at-all"),
                "no login": storage(user=None, password=None),
                "unknown authority": storage(server.tls_url(path), tls={"mode": "verify"}),
                "closed collection": storage(server.url("read-only")),
                "no WebDAV": storage(server.url("plain")),
            },
            secrets=(PASSWORD, "wrong password"),
            resumes=False,
        )


class TestWebdavFaults(FaultsContract):
    """What goes wrong on the way, and at the other end."""
