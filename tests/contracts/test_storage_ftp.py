"""FTP, run through the suite of `tests/contracts/storage.py`: in the clear, and over TLS."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pipeline.errors import StorageRefused
from pipeline.naming import quote_name
from schemas.storages import FtpStorage
from schemas.tls import Tls
from stages.storages._ftp.link import Patience
from stages.storages.ftp import Ftp
from tests.contracts.storage import LastingStorageContract, StorageContract
from tests.contracts.storage_faults import FaultsContract, Rig, populate
from tests.contracts.storage_subject import (
    TOKEN,
    Stall,
    Subject,
    everything,
    names,
    put,
    read,
)
from tests.servers.base import GID, HOST, IS_ROOT, UID, small_disk
from tests.servers.ftp import FAR_HOST, PASSWORD, USER, Ftpd
from tests.servers.ftp_proxy import FtpProxy

pytestmark = pytest.mark.integration


def in_the_clear(server: Ftpd) -> dict[str, object]:
    return {"port": server.port, "tls": Tls(mode="off")}


def explicit_tls(server: Ftpd) -> dict[str, object]:
    return {"port": server.port, "tls": Tls(ca=str(server.ca))}


@pytest.fixture(scope="module")
def server() -> Iterator[Ftpd]:
    with Ftpd() as started:
        yield started


@contextmanager
def _behind_proxy(server: Ftpd, spec: FtpStorage) -> Iterator[Stall]:
    assert spec.port is not None
    with FtpProxy(spec.port, server.passive_ports) as proxy:
        # Nothing but `abort` may end the wait.
        storage = Ftp(spec.model_copy(update={"host": FAR_HOST, "timeout": 3600.0}))
        try:
            yield storage, proxy.freeze
        finally:
            proxy.thaw()
            storage.close()


@pytest.fixture(scope="module")
def make(server: Ftpd) -> Iterator[Callable[[Callable[[Ftpd], dict[str, object]]], Subject]]:
    """Makes storages in places of their own; closed together, see `Ftpd`."""
    with ExitStack() as stack:

        def subject(way: Callable[[Ftpd], dict[str, object]]) -> Subject:
            values = {
                "type": "ftp",
                "host": HOST,
                "user": USER,
                "password": PASSWORD,
                "path": str(server.data / secrets.token_hex(8) / "deep"),
            }
            spec = FtpStorage.model_validate({**values, **way(server)})
            storage = Ftp(spec)
            stack.callback(storage.close)
            return Subject(spec, storage, lambda: Ftp(spec), lambda: _behind_proxy(server, spec))

        yield subject


Make = Callable[[Callable[[Ftpd], dict[str, object]]], Subject]


class FtpContract(StorageContract):
    @pytest.mark.parametrize(
        "base",
        [
            quote_name("a/b c%~.d"),
            quote_name(".hidden\udcff\n'\"*?[x]"),
            "raw ünïcödé 日本語 файл",
            "blank and 'quotes' \"?[x]$(y)`z`;&|<>\\#!{}",
            "permission denied",
            os.fsdecode(b"\xff\xfe"),
            "n" * 200,
            "-rf",
            "a..b",
        ],
    )
    def test_odd_names(self, subject: Subject, base: str) -> None:
        # As in the suite, but for an asterisk: ProFTPD makes no directory with one in its name.
        super().test_odd_names(subject, base)

    def test_an_asterisk_in_a_file_name(self, subject: Subject) -> None:
        put(subject.storage, "shop/a*b", [b"content"])
        assert names(subject.storage, "shop") == ["shop/a*b"]
        assert read(subject.storage, "shop/a*b") == b"content"
        with pytest.raises(StorageRefused, match="nvalid directory name"):
            subject.storage.create("a*b/shop", TOKEN)

    @pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\r\nDELE b"])
    def test_line_breaks_in_names_are_refused(self, subject: Subject, name: str) -> None:
        for call in (subject.storage.list, lambda name: subject.storage.delete([name])):
            with pytest.raises(StorageRefused, match="line breaks"):
                call(name)
        with pytest.raises(StorageRefused, match="line breaks"):
            subject.storage.create(name, TOKEN)
        assert everything(subject.storage) == []


class TestPlainFtp(FtpContract):
    @pytest.fixture
    def subject(self, make: Make) -> Subject:
        return make(in_the_clear)


class TestExplicitTls(FtpContract):
    @pytest.fixture
    def subject(self, make: Make) -> Subject:
        return make(explicit_tls)


class TestLastingFtp(LastingStorageContract):
    @pytest.fixture(params=[in_the_clear, explicit_tls])
    def lasting(self, request: pytest.FixtureRequest, make: Make) -> Subject:
        return make(request.param)


@pytest.fixture
def rig() -> Iterator[Rig]:
    path = secrets.token_hex(8)
    # A server of its own: it is killed, and remembers sessions.
    with ExitStack() as stack:
        server = stack.enter_context(Ftpd())

        def storage(patience: Patience | None = None, on: Ftpd = server, **changes: Any) -> Ftp:
            values = {
                "host": HOST,
                "port": on.port,
                "user": USER,
                "password": PASSWORD,
                "path": str(on.data / path),
                "tls": {"ca": str(on.ca)},
            }
            made = Ftp(FtpStorage.model_validate({"type": "ftp", **values, **changes}), patience)
            stack.callback(made.close)
            return made

        @contextmanager
        def full() -> Iterator[Ftp]:
            other = Ftpd()
            with small_disk(other):
                yield storage(on=other)

        closed = server.data / "closed"
        closed.mkdir(mode=0o500)
        if IS_ROOT:
            os.chown(closed, UID, GID)
        hasty = Patience(seconds=0.5, first_delay=0.1, longest_delay=0.1)
        network = stack.enter_context(FtpProxy(server.port, server.passive_ports))
        yield Rig(
            server=server,
            network=network,
            patient=storage(host=FAR_HOST),
            hasty=storage(hasty, host=FAR_HOST, timeout="1s", connect_timeout="1s"),
            direct=storage(),
            full=full,
            populate=lambda count: populate(server.data / path / "shop" / "crm", count),
            refused={
                "wrong password": storage(password="wrong password"),
                "wrong user": storage(user="nobody-at-all"),
                "unknown authority": storage(tls={"mode": "verify"}),
                "closed directory": storage(path=str(closed)),
            },
            secrets=(PASSWORD, "wrong password"),
        )


class TestFtpFaults(FaultsContract):
    """What goes wrong on the way, and at the other end."""
