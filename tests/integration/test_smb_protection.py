"""SMB against a real server: how messages are signed and encrypted, and who would notice."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from pipeline.errors import StorageError, StorageRefused
from pipeline.stage import CHUNK
from stages.storages._smb.calls import HEADER_SIZE
from tests.contracts.storage_subject import NAME, TOKEN, everything, names, put, read
from tests.integration.smb_storage import MakeStorage, SmbTests, works
from tests.servers.proxy import Proxy, Route
from tests.servers.smb import Smbd

MARKER = b"<what nobody on the way may read or change>"


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
