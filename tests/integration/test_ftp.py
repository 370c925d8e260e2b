"""FTP against a real ProFTPD: logins, trust, what servers lack, and what the probe tells."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any

import pytest

from pipeline.errors import StorageDenied, StorageRefused, StorageUnavailable
from pipeline.tryout import try_out
from schemas.storages import FtpStorage
from tests.contracts.storage_subject import NAME, OTHER_TOKEN, TOKEN, everything, put, read
from tests.integration.ftp_storage import (
    IN_THE_CLEAR,
    FtpTests,
    MakeStorage,
    proxy_before,
    upload,
    works,
)
from tests.servers.base import HOST, IS_ROOT, free_port
from tests.servers.ftp import FAR_HOST, Ftpd, make_certificate


class TestLogin(FtpTests):
    @pytest.mark.parametrize(
        "changes", [{"password": "Wr0ng word"}, {"user": "nobody-here"}, {"password": None}]
    )
    def test_refused(self, server: Ftpd, storage_on: MakeStorage, changes: dict[str, Any]) -> None:
        with pytest.raises(StorageRefused, match="refused the login of") as caught:
            storage_on(server, **changes).list("")
        assert "word" not in str(caught.value).replace("check user and password", "")

    def test_line_break_in_the_password(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match="line breaks") as caught:
            storage_on(server, password="a\r\nDELE b").list("")
        assert "DELE" not in str(caught.value)

    def test_too_many_connections_may_help_later(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="MaxClientsPerUser 1\n") as server:
            storage = storage_on(server)
            writer = storage.create(NAME, TOKEN)
            with pytest.raises(StorageUnavailable, match="takes no more logins"):
                storage.list("")
            writer.commit()
            assert read(storage, NAME) == b""

    def test_path_below_the_home_directory(self, server: Ftpd, storage_on: MakeStorage) -> None:
        put(storage_on(server, path="at/home"), NAME, [b"content"])
        assert (server.data / "at/home" / NAME).read_bytes() == b"content"


class TestTrust(FtpTests):
    def test_explicit_tls(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with proxy_before(server) as proxy:
            assert works(storage_on(server, host=FAR_HOST))
            assert b"AUTH TLS" in proxy.commands
            assert b"PASS" not in proxy.commands
            assert NAME.encode() not in proxy.commands

    def test_implicit_tls(self, server: Ftpd, storage_on: MakeStorage) -> None:
        storage = storage_on(server, port=server.implicit_port, implicit_tls=True)
        assert works(storage)
        assert any("encrypted: TLSv1" in fact for fact in storage.probe())
        assert storage_on(server, port=None, implicit_tls=True)._link.port == 990

    def test_unknown_authority(self, server: Ftpd, storage_on: MakeStorage) -> None:
        other = server.client_dir / "other"
        other.mkdir()
        certificate, _ = make_certificate(other)
        for tls in ({"mode": "verify"}, {"ca": str(certificate)}):
            with pytest.raises(StorageRefused, match=r"not trusted: self.signed certificate"):
                storage_on(server, tls=tls).list("")

    def test_certificate_of_another_host(self, storage_on: MakeStorage) -> None:
        with (
            Ftpd(names="DNS:elsewhere.example") as server,
            pytest.raises(StorageRefused, match=r"not trusted: .*mismatch"),
        ):
            storage_on(server).list("")

    def test_unusable_ca_file(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match="cannot be read"):
            storage_on(server, tls={"ca": "/no/such/file"}).list("")

    def test_what_is_not_safe_is_warned_about(self, server: Ftpd, storage_on: MakeStorage) -> None:
        def warnings(tls: dict[str, str] | None) -> list[str]:
            facts = storage_on(server, tls=tls).probe()
            return [fact for fact in facts if fact.startswith("warning: ")]

        (fact,) = warnings({"mode": "require"})
        assert "certificate is not checked" in fact
        (fact,) = warnings(IN_THE_CLEAR)
        assert "not encrypted" in fact
        assert warnings({"ca": str(server.ca)}) == []
        assert warnings(None) == []  # On the loopback interface nobody is in between.

    def test_server_without_tls(self, storage_on: MakeStorage) -> None:
        with Ftpd(tls=False) as server, proxy_before(server) as proxy:
            for tls in ({"mode": "verify"}, {"mode": "require"}):
                with pytest.raises(StorageRefused, match="offers no TLS"):
                    storage_on(server, host=FAR_HOST, tls=tls).list("")
            assert b"USER" not in proxy.commands
            assert works(storage_on(server, tls=None))
            assert any("not encrypted" in fact for fact in storage_on(server, tls=None).probe())

    def test_the_wrong_kind_of_tls(self, server: Ftpd, storage_on: MakeStorage) -> None:
        explicit = storage_on(server, port=server.implicit_port, connect_timeout="300ms")
        with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.3 s"):
            explicit.list("")
        with pytest.raises(StorageRefused, match=r"does not speak TLS; .* leave implicit_tls out"):
            storage_on(server, implicit_tls=True).list("")

    def test_implicit_tls_without_tls_is_a_mistake(self) -> None:
        with pytest.raises(ValueError, match="implicit_tls needs TLS"):
            FtpStorage.model_validate(
                {
                    "type": "ftp",
                    "host": "h",
                    "user": "u",
                    "path": "/",
                    "implicit_tls": True,
                    "tls": IN_THE_CLEAR,
                }
            )


class TestConnection(FtpTests):
    def test_refused(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match="cannot be reached: connection refused"):
            storage_on(server, port=free_port()).list("")

    def test_unknown_host(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            storage_on(server, host="no-such-host.invalid").list("")

    def test_not_an_ftp_server(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as other:

            def answer() -> None:
                connection, _ = other.accept()
                with connection, suppress(ConnectionError):
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(StorageRefused, match="does not speak FTP"):
                storage_on(server, port=other.getsockname()[1]).list("")
            thread.join()

    def test_a_connection_that_died_unused_is_replaced(
        self, server: Ftpd, storage_on: MakeStorage
    ) -> None:
        with proxy_before(server) as proxy:
            storage = storage_on(server, host=FAR_HOST)
            assert works(storage)
            proxy.cut()
            assert works(storage)

    def test_address_in_the_reply_is_not_believed(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="MasqueradeAddress 192.0.2.1\n") as server:
            assert works(storage_on(server))

    def test_extended_passive_mode(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="<Limit PASV>\nDenyAll\n</Limit>\n") as server:
            assert works(storage_on(server))

    def test_close_ends_what_is_under_way(self, server: Ftpd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        storage.close()
        with pytest.raises(StorageUnavailable, match="closed"):
            upload(writer, 100, {})
        writer.abort()
        storage.sweep(storage.unfinished(""))


class TestListing(FtpTests):
    COUNT = 5000

    @pytest.mark.parametrize("more", ["", "FactsAdvertise off\n"])
    def test_many_objects(self, storage_on: MakeStorage, more: str) -> None:
        with Ftpd(more=more) as server:
            directory = server.data / "backups/shop/crm"
            directory.mkdir(parents=True)
            for number in range(self.COUNT):
                (directory / f"crm {number:05}").write_bytes(b"x" * (number % 7))
            (directory / f".crm.{TOKEN}.part").touch()
            storage = storage_on(server)
            found = [(info.name, info.size) for info in storage.list("")]
            assert found == [(f"shop/crm/crm {n:05}", n % 7) for n in range(self.COUNT)]
            assert storage.unfinished("") == [f"shop/crm/.crm.{TOKEN}.part"]

    @pytest.mark.parametrize("more", ["", "FactsAdvertise off\n"])
    def test_odd_places(self, storage_on: MakeStorage, more: str) -> None:
        with Ftpd(more=more) as server:
            storage = storage_on(server)
            written = sorted(["a [b]/c  d", "a [b]/ lead", "a*c", "e/2 Jan 3 04:05 f", "e/g -> h"])
            for name in written:
                put(storage, name, [name.encode()])
            assert [info.name for info in storage.list("")] == written
            assert all(read(storage, name) == name.encode() for name in written)
            with pytest.raises(StorageRefused, match="already exists"):
                storage.create("a*c", OTHER_TOKEN)
            assert storage.list("nowhere") == storage.list("a*c") == []
            storage.delete([*written, "e/missing", "nowhere/missing"])
            assert everything(storage) == []

    @pytest.mark.parametrize("more", ["", "ShowSymlinks off\n"])
    def test_only_files_and_directories(self, storage_on: MakeStorage, more: str) -> None:
        with Ftpd(more=more) as server:
            storage = storage_on(server)
            put(storage, NAME, [b"content"])
            os.symlink("..", server.data / "backups/shop/circle")
            os.symlink("missing", server.data / "backups/shop/dangling")
            found = [info.name for info in storage.list("")]
            assert NAME in found
            assert len(found) == len({name.rpartition("/")[2] for name in found})

    def test_a_directory_that_cannot_be_read(self, server: Ftpd, storage_on: MakeStorage) -> None:
        closed = server.data / "backups/closed"
        closed.mkdir(parents=True)
        closed.chmod(0o700)
        storage = storage_on(server)
        if IS_ROOT:  # Belongs to another user than the server then.
            with pytest.raises(StorageRefused, match='did not permit to list "closed"'):
                storage.list("closed")
        closed.rmdir()


class TestProbe(FtpTests):
    @pytest.mark.parametrize(
        ("denied", "warning"),
        [
            ("LIST MLSD NLST", "objects cannot be listed"),
            ("RETR", "objects cannot be read"),
            ("DELE", "objects cannot be deleted"),
        ],
    )
    def test_what_the_user_may_not_do(
        self, storage_on: MakeStorage, denied: str, warning: str
    ) -> None:
        with Ftpd(more=f"<Limit {denied}>\nDenyAll\n</Limit>\n") as server:
            facts = try_out(storage_on(server)).facts()
            (fact,) = [fact for fact in facts if fact.startswith("warning: ")]
            assert warning in fact
            assert all(fact and "\n" not in fact for fact in facts)

    @pytest.mark.parametrize("denied", ["STOR", "MKD XMKD", "RNTO", "RNFR"])
    def test_what_every_backup_needs(self, storage_on: MakeStorage, denied: str) -> None:
        with Ftpd(more=f"<Limit {denied}>\nDenyAll\n</Limit>\n") as server:
            storage = storage_on(server)
            with pytest.raises(StorageDenied, match="did not permit"):
                try_out(storage)
            assert everything(storage) == []

    def test_a_user_who_may_only_write(self, storage_on: MakeStorage) -> None:
        limits = "<Limit RETR SIZE LIST MLSD MLST NLST STAT DELE>\nDenyAll\n</Limit>\n"
        with Ftpd(more=limits) as server:
            storage = storage_on(server)
            put(storage, NAME, [b"content"])
            assert (server.data / "backups" / NAME).read_bytes() == b"content"
            with pytest.raises(StorageRefused, match="already exists"):
                storage.create(NAME, OTHER_TOKEN)
            assert set(try_out(storage).denied) >= {"listed", "read", "deleted"}

    def test_listings_that_show_nothing(self, storage_on: MakeStorage) -> None:
        hidden = "<Limit LIST>\nDenyAll\n</Limit>\nFactsAdvertise off\n"
        with Ftpd(more=hidden) as server:
            assert "does not show what is there" in try_out(storage_on(server)).denied["listed"]

    def test_server_that_takes_no_uploads_up_again(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="AllowStoreRestart off\n") as server:
            facts = storage_on(server).probe()
            assert any("does not let an upload go on" in fact for fact in facts)
