"""SMB against a real server: who may log in, how messages are protected, what names become."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable
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
from tests.servers.proxy import Proxy, Route
from tests.servers.smb import PASSWORD, USER, Smbd

MARKER = b"<what nobody on the way may read or change>"
_READ_SIZE = 4 + HEADER_SIZE + 49
"""Bytes of a READ on the wire."""
GUESTS = Smbd, "map to guest = bad user\nguest account = nxs", "guest ok = yes"


class Wire(Proxy):
    """A network that somebody listens to, and may change."""

    change: Callable[[bytes], bytes] = staticmethod(lambda block: block)

    def __init__(self, target: int) -> None:
        self.heard = b""
        super().__init__(target)

    def _pass_on(self, block: bytes, route: Route, sink: socket.socket, upwards: bool) -> None:
        self.heard += block
        super()._pass_on(self.change(block), route, sink, upwards)

    def falsify(self) -> None:
        """From now on, in both directions."""
        self.change = lambda block: block.replace(MARKER, MARKER[::-1])

    def change_first(self, change: Callable[[bytes], bytes]) -> None:
        """Change the first block that this changes, and no other."""

        def once(block: bytes) -> bytes:
            changed = change(block)
            if changed != block:
                self.change = lambda block: block
            return changed

        self.change = once


class TestProtection(SmbTests):
    @pytest.mark.parametrize(
        ("newest", "label"),
        [
            ("SMB2_02", "SMB 2.0.2, signed with HMAC-SHA256"),
            ("SMB2_10", "SMB 2.1, signed with HMAC-SHA256"),
            ("SMB3_00", "SMB 3.0, signed with AES-CMAC"),
            ("SMB3_02", "SMB 3.0.2, signed with AES-CMAC"),
            ("SMB3_11", "SMB 3.1.1, signed with AES-GMAC"),
        ],
    )
    def test_every_version_signs(self, storage_on: MakeStorage, newest: str, label: str) -> None:
        with Smbd(f"server max protocol = {newest}") as server:
            storage = storage_on(server)
            assert works(storage)
            assert f"protocol: {label}" in storage.probe()
            assert works(storage_on(server, signing=False))

    @pytest.mark.parametrize(
        ("options", "label"),
        [
            ("server max protocol = SMB3_00", "AES-128-CCM"),
            ("server smb3 encryption algorithms = AES-128-CCM", "AES-128-CCM"),
            ("server smb3 encryption algorithms = AES-128-GCM", "AES-128-GCM"),
            ("server smb3 encryption algorithms = AES-256-CCM", "AES-256-CCM"),
            ("server smb3 encryption algorithms = AES-256-GCM", "AES-256-GCM"),
        ],
    )
    def test_every_cipher(self, storage_on: MakeStorage, options: str, label: str) -> None:
        with Smbd(options) as server:
            storage = storage_on(server, encrypt=True)
            assert works(storage)
            assert any(fact.endswith(f"encrypted with {label}") for fact in storage.probe())

    @pytest.mark.parametrize("algorithm", ["AES-128-CMAC", "HMAC-SHA256"])
    def test_other_ways_to_sign(self, storage_on: MakeStorage, algorithm: str) -> None:
        with Smbd(f"server smb3 signing algorithms = {algorithm}") as server:
            assert works(storage_on(server))

    @pytest.mark.parametrize("where", ["server", "share"])
    def test_a_server_that_demands_encryption_gets_it(
        self, storage_on: MakeStorage, where: str
    ) -> None:
        demand = "server smb encrypt = required"
        options = (demand, "") if where == "server" else ("", demand)
        with Smbd(*options) as server, Wire(server.port) as wire:
            storage = storage_on(server, port=wire.port, signing=False)
            put(storage, NAME, [MARKER])
            assert read(storage, NAME) == MARKER
            assert any("encrypted with" in fact for fact in storage.probe())
            assert MARKER not in wire.heard

    def test_we_may_demand_encryption(self, server: Smbd, storage_on: MakeStorage) -> None:
        with Wire(server.port) as wire:
            hidden = storage_on(server, port=wire.port, encrypt=True)
            put(hidden, NAME, [MARKER])
            assert read(hidden, NAME) == MARKER
            assert MARKER not in wire.heard
            assert NAME.rpartition("/")[2].encode("utf-16-le") not in wire.heard
            plain = storage_on(server, port=wire.port)
            assert read(plain, NAME) == MARKER
            assert MARKER in wire.heard  # So the wire does hear.
            assert [fact for fact in plain.probe() if fact.startswith("warning: anyone")]

    @pytest.mark.parametrize(
        "options", ["server max protocol = SMB2_10", "server smb encrypt = off"]
    )
    def test_a_server_that_cannot_encrypt_is_refused(
        self, storage_on: MakeStorage, options: str
    ) -> None:
        with Smbd(options) as server, pytest.raises(StorageRefused, match="cannot encrypt"):
            storage_on(server, encrypt=True).create(NAME, TOKEN)

    def test_a_server_that_demands_signatures_gets_them(self, storage_on: MakeStorage) -> None:
        with Smbd("server signing = mandatory") as server:
            storage = storage_on(server, signing=False)
            assert works(storage)
            assert any("signed with" in fact for fact in storage.probe())

    def test_without_a_demand_nothing_is_signed(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        facts = storage_on(server, signing=False).probe()
        assert any(fact.endswith("not protected") for fact in facts)
        assert any("and change it" in fact for fact in facts)

    @pytest.mark.parametrize("newest", ["SMB2_10", "SMB3_00", "SMB3_11"])
    def test_what_is_changed_on_the_way_down_is_noticed(
        self, storage_on: MakeStorage, newest: str
    ) -> None:
        with Smbd(f"server max protocol = {newest}") as server, Wire(server.port) as wire:
            storage = storage_on(server, port=wire.port)
            put(storage, NAME, [MARKER])
            wire.falsify()
            with pytest.raises(StorageRefused, match="not signed as it should be"):
                read(storage, NAME)
            careless = storage_on(server, port=wire.port, signing=False)
            assert read(careless, NAME) == MARKER[::-1]

    def test_what_is_changed_on_the_way_up_is_noticed(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        with Wire(server.port) as wire:
            storage = storage_on(server, port=wire.port, timeout="1s")
            wire.falsify()
            writer = storage.create(NAME, TOKEN)
            writer.write(MARKER)
            with pytest.raises(StorageError):
                writer.commit()
            writer.abort()
            assert everything(storage) == []

    def test_an_encrypted_message_that_is_changed_is_noticed(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        put(storage_on(server), NAME, [bytes(CHUNK)])
        with Wire(server.port) as wire:
            storage = storage_on(server, port=wire.port, encrypt=True, timeout="1s")
            assert names(storage) == [NAME]
            wire.change = lambda block: block[:-1] + b"!" if len(block) > 10_000 else block
            with pytest.raises(StorageRefused, match="was changed on its way"):
                read(storage, NAME)

    def test_versions_that_are_taken_out_of_our_offer_are_missed(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        offer = bytes.fromhex("0202 1002 0003 0203 1103")
        with Wire(server.port) as wire:
            wire.change_first(lambda block: block.replace(offer, offer[:-2] + offer[:2]))
            with pytest.raises(StorageError):  # The server hangs up.
                storage_on(server, port=wire.port).list("")
            assert works(storage_on(server, port=wire.port))

    def test_abilities_that_are_taken_out_of_the_answer_are_missed(
        self, storage_on: MakeStorage
    ) -> None:
        def without_encryption(block: bytes) -> bytes:
            is_answer, start = block[20] & 1, 4 + HEADER_SIZE + 24
            changed = block[:start] + bytes([block[start] & ~0x40]) + block[start + 1 :]
            return changed if is_answer else block

        with Smbd("server max protocol = SMB3_02") as server, Wire(server.port) as wire:
            assert works(storage_on(server, port=wire.port))
            wire.change_first(without_encryption)
            with pytest.raises(StorageRefused, match="changed what was negotiated"):
                storage_on(server, port=wire.port).list("")


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
