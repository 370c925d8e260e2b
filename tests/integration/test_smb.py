"""SMB against a real server: who may log in, what names become, what other tools see."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK
from pipeline.tryout import try_out
from stages.storages._smb.calls import HEADER_SIZE
from tests.contracts.storage_subject import NAME, TOKEN, everything, names, put, read
from tests.integration.smb_storage import MakeStorage, SmbTests, path_of, works
from tests.servers.base import HOST, free_port
from tests.servers.proxy import Proxy
from tests.servers.smb import PASSWORD, USER, Smbd

_READ_SIZE = 4 + HEADER_SIZE + 49
"""Bytes of a READ on the wire."""
GUESTS = Smbd, "map to guest = bad user\nguest account = nxs", "guest ok = yes"


class TestLogin(SmbTests):
    def test_a_wrong_password_after_a_right_one(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        assert works(storage_on(server))
        with pytest.raises(StorageRefused, match="refused the login") as caught:
            storage_on(server, password="wrong").list("")
        assert "wrong" not in str(caught.value)
        assert works(storage_on(server))

    def test_a_user_with_a_domain(self, server: Smbd, storage_on: MakeStorage) -> None:
        assert works(storage_on(server, user=rf"NXSTEST\{USER}"))

    def test_a_password_that_changed_meanwhile(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            storage = storage_on(server)
            writer = storage.create(NAME, TOKEN)
            server.add_user(USER, "another password")
            server.kill()
            server.start()
            with pytest.raises(StorageRefused, match="refused the login"):
                writer.commit()
            writer.abort()
            renewed = storage_on(server, password="another password")
            renewed.sweep(renewed.unfinished(""))
            assert works(renewed)

    def test_guests_cannot_be_protected(self, storage_on: MakeStorage) -> None:
        make, *options = GUESTS
        with make(*options) as server:
            assert works(storage_on(server))  # A user whom it knows is no guest.
            for protection in ({}, {"signing": False, "encrypt": True}):
                with pytest.raises(StorageRefused, match='takes "stranger" for a guest'):
                    storage_on(server, user="stranger", **protection).list("")
            open_to_all = storage_on(server, user="stranger", password=None, signing=False)
            assert works(open_to_all)

    def test_missing_share(self, server: Smbd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match='has no share "missing"'):
            storage_on(server, share="missing").list("")

    def test_a_share_without_files(self, server: Smbd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused, match="has no files"):
            storage_on(server, share="IPC$").list("")

    def test_a_share_for_others(self, storage_on: MakeStorage) -> None:
        with Smbd("", "valid users = somebody") as server, pytest.raises(StorageDenied) as caught:
            storage_on(server).list("")
        assert caught.value.hint

    def test_a_read_only_share(self, storage_on: MakeStorage) -> None:
        with Smbd("", "read only = yes") as server:
            storage = storage_on(server, path="")
            (server.data / "there").write_bytes(b"content")
            with pytest.raises(StorageDenied):
                try_out(storage)
            with pytest.raises(StorageDenied):
                storage.delete(["there"])
            assert read(storage, "there") == b"content"

    def test_refused(self, server: Smbd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match="cannot be reached: connection refused"):
            storage_on(server, port=free_port()).list("")

    def test_unknown_host(self, server: Smbd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match=r'"no-such-host\.invalid" cannot be reached'):
            storage_on(server, host="no-such-host.invalid").list("")

    def test_silent_server(self, server: Smbd, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as silent:
            storage = storage_on(server, timeout="300ms", port=silent.getsockname()[1])
            with pytest.raises(StorageUnavailable, match=r"no answer for 0\.15 s"):
                storage.list("")

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            bytes.fromhex("00000004 ff534d42"),
            bytes.fromhex("00000040 fe534d42") + bytes(60),
            bytes.fromhex("00000040 fe534d42 4000") + bytes(10) + b"\1" + bytes(47),
        ],
    )
    def test_not_an_smb_server(self, server: Smbd, storage_on: MakeStorage, answer: bytes) -> None:
        with socket.create_server((HOST, 0)) as other:

            def speak() -> None:
                connection, _ = other.accept()
                with connection, suppress(ConnectionError):
                    connection.recv(1000)
                    connection.sendall(answer)
                    connection.recv(1000)

            thread = threading.Thread(target=speak)
            thread.start()
            storage = storage_on(server, port=other.getsockname()[1], timeout="1s")
            with pytest.raises(StorageError, match=r"does not speak SMB|cannot be reached"):
                storage.list("")
            thread.join()

    def test_an_account_that_is_disabled(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            server.add_user(USER, PASSWORD, "-d")
            with pytest.raises(StorageRefused, match="account is disabled"):
                storage_on(server).list("")


class TestNames(SmbTests):
    @pytest.mark.parametrize(
        ("name", "stored"),
        [
            ('a"*:<>?\\|b', "a\uf020\uf021\uf022\uf023\uf024\uf025\uf026\uf027b"),
            ("tab\tand\x1f", "tab\uf009and\uf01f"),
            ("dot.", "dot\uf029"),
            ("blank ", "blank\uf028"),
            ("dots in . the. middle", "dots in . the. middle"),
            (os.fsdecode(b"\xff\xfe"), "\uf0ff\uf0fe"),
        ],
    )
    def test_names_that_windows_has_not(
        self, server: Smbd, storage_on: MakeStorage, name: str, stored: str
    ) -> None:
        storage = storage_on(server)
        put(storage, f"a/{name}", [b"content"])
        assert path_of(server, storage, f"a/{stored}").read_bytes() == b"content"
        assert names(storage) == [f"a/{name}"]
        storage.delete([f"a/{name}"])
        assert everything(storage) == []

    @pytest.mark.parametrize("name", ["con", "Aux.txt", "a/nul", "LPT1.x/a", "com¹", "a\uf022b"])
    def test_names_that_windows_keeps_for_itself(
        self, server: Smbd, storage_on: MakeStorage, name: str
    ) -> None:
        storage = storage_on(server)
        with pytest.raises(StorageRefused, match="Windows keeps it for itself"):
            storage.create(name, TOKEN)
        for fine in ("console", "a.con", "lpt", "com10"):
            put(storage, fine, [b"content"])
        assert len(names(storage)) == 4

    def test_names_that_differ_in_case_only(self, server: Smbd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, "shop/a", [b"content"])
        with pytest.raises(StorageRefused, match="already exists"):
            storage.create("SHOP/A", TOKEN)

    def test_a_name_that_is_too_long(self, server: Smbd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageRefused):
            storage_on(server).create("n" * 300, TOKEN)

    def test_links_and_hidden_directories_are_not_followed(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        put(storage, "a/b", [b"content"])
        hidden = path_of(server, storage, ".trash")
        hidden.mkdir()
        (hidden / "x").write_bytes(b"content")
        assert names(storage) == ["a/b"]

    def test_many_directories(self, server: Smbd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        for number in range(100):
            directory = path_of(server, storage, f"d{number:03}/{number}")
            directory.mkdir(parents=True)
            (directory / "object").write_bytes(b"content")
        assert len(names(storage)) == 100
        server.own()
        storage.delete(names(storage))
        assert not list(path_of(server, storage, "").iterdir())


class TestTools(SmbTests):
    def test_smbclient_reads_what_we_wrote(
        self, server: Smbd, storage_on: MakeStorage, tmp_path: Path
    ) -> None:
        storage = storage_on(server)
        content = os.urandom(5 * CHUNK + 3)
        put(storage, NAME, [content])
        directory, _, base = NAME.rpartition("/")
        there = f"{storage._spec.path}/{directory}"
        server.client(f'get "{base}" "{tmp_path}/back"', "-D", there)
        assert (tmp_path / "back").read_bytes() == content
        assert re.search(
            rf"{re.escape(base)} +A +{len(content)} ", server.client("ls", "-D", there)
        )

    def test_we_read_what_smbclient_wrote(
        self, server: Smbd, storage_on: MakeStorage, tmp_path: Path
    ) -> None:
        storage = storage_on(server)
        content = os.urandom(5 * CHUNK + 3)
        (tmp_path / "file").write_bytes(content)
        server.client(f'mkdir {storage._spec.path}; put "{tmp_path}/file" {storage._spec.path}/x')
        assert names(storage) == ["x"]
        assert b"".join(storage.open("x", 2 * CHUNK + 1)) == content[2 * CHUNK + 1 :]

    def test_smbclient_sees_nothing_that_is_unfinished_by_its_name(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = storage.create("object", TOKEN)
        writer.write(b"content")
        writer.flush()
        where = ("-D", storage._spec.path)
        with pytest.raises(subprocess.CalledProcessError):
            server.client("ls object", *where)
        assert f".object.{TOKEN}.part" in server.client("ls", *where)
        writer.commit()
        assert "object" in server.client("ls object", *where)


class TestSharing(SmbTests):
    def test_an_object_may_be_deleted_while_it_is_read(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        content = os.urandom(20 * CHUNK)
        put(storage, NAME, [content])
        reader = storage.open(NAME)
        first = next(reader)
        storage_on(server).delete([NAME])
        assert first + b"".join(reader) == content
        assert everything(storage) == []

    def test_blocks_are_asked_for_ahead(self, server: Smbd, storage_on: MakeStorage) -> None:
        put(storage_on(server), NAME, [bytes(CHUNK)] * 20)
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            assert names(storage) == [NAME]
            before = proxy.sent
            reader = storage.open(NAME)
            next(reader)
            assert proxy.sent - before > 8 * _READ_SIZE
            reader.close()  # type: ignore[attr-defined]


class TestServersWithoutFileNumbers(SmbTests):
    def test_an_abort_after_a_refused_commit_leaves_the_other_object(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"ours")
        writer.flush()
        writer._target._number = 0  # type: ignore[attr-defined]
        put(storage, NAME, [b"theirs"], "another-token")
        with pytest.raises(StorageRefused):
            writer.commit()
        writer.abort()
        assert read(storage, NAME) == b"theirs"
