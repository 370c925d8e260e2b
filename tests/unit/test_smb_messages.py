"""The messages of SMB, byte by byte; names on its servers; what its errors are taken for."""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable
from schemas.storages import SmbStorage
from stages.storages._smb import calls as smb
from stages.storages._smb.crypto import (
    CipherAlgorithm,
    Signer,
    SigningAlgorithm,
    derive_key,
    make_sealer,
)
from stages.storages._smb.errors import login_refusal, share_refusal, storage_error
from stages.storages._smb.link import MARK, Link
from stages.storages._smb.names import decode_name, encode_path
from stages.storages._smb.negotiate import negotiate
from stages.storages._smb.types import Call, Command, Malformed, SmbError, Status
from stages.storages._tcp import Stream

FILE_ID = bytes(range(16))


def header(command: int, status: int = 0, message_id: int = 0, granted: int = 1) -> bytes:
    """Of an answer."""
    return struct.pack(
        "<4sHHIHHIIQIIQ16s", MARK, 64, 1, status, command, granted, 1, 0, message_id, 0, 0, 0, b""
    )


def entry(name: str, size: int, following: int = 0) -> bytes:
    encoded = smb.encode(name)
    return struct.pack("<II32xQQII", following, 0, size, 0, 0x20, len(encoded)) + encoded


class TestAnswers:
    def test_a_listing(self) -> None:
        first = entry("one", 1, 80).ljust(80, b"\0")
        block = first + entry("two", 2)
        body = struct.pack("<HHI", 9, 72, len(block)) + block
        call = smb.list_directory(FILE_ID, True, 1000)
        found = call.decode(memoryview(header(14) + body))
        assert [(each.name, each.size) for each in found] == [("one", 1), ("two", 2)]

    @given(st.integers(0, 250))
    def test_answers_that_are_cut_off(self, size: int) -> None:
        first = entry("one", 1, 80).ljust(80, b"\0")
        block = first + entry("two", 2)
        listing = header(14) + struct.pack("<HHI", 9, 72, len(block)) + block
        data = header(8) + struct.pack("<HBBI8x", 17, 80, 0, 200) + bytes(200)
        opened = header(5) + bytes(88)
        for call, message in (
            (smb.list_directory(FILE_ID, True, 1000), listing),
            (smb.read(FILE_ID, 0, 200), data),
            (smb.open_file("x", smb.Access(1), smb.Disposition.OPEN, smb.Option(0)), opened),
            (negotiate(FILE_ID, 1), header(0) + bytes(64)),
        ):
            with pytest.raises(Malformed):
                call.decode(memoryview(message[: min(size, 143, len(message) - 9)]))

    def test_a_version_that_we_did_not_offer(self) -> None:
        body = struct.pack("<HHHH", 65, 1, 0x02FF, 0) + bytes(56)
        with pytest.raises(Malformed, match="wants version 0x02FF"):
            negotiate(FILE_ID, 1).decode(memoryview(header(0) + body))

    def test_nothing_is_replaced_by_a_rename(self) -> None:
        body = smb.rename(FILE_ID, "a\\b").body
        assert body[32] == 0
        assert body.endswith(smb.encode("a\\b"))


class TestLink:
    def test_without_credits_and_answers_nothing_is_sent(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            link = Link(Stream(ours, 5))
            link.history = None
            answer = header(7, granted=0) + bytes(4)
            theirs.sendall(struct.pack(">I", len(answer)) + answer)
            link.call(smb.flush(FILE_ID))
            with pytest.raises(Malformed, match="no request may be sent"):
                link.call(smb.flush(FILE_ID))
            link.close()

    def test_credits_are_waited_for(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            link = Link(Stream(ours, 5))
            first = link.submit(smb.flush(FILE_ID))
            pending = header(7, Status.PENDING, granted=1) + bytes(9)
            theirs.sendall(struct.pack(">I", len(pending)) + pending)
            second = link.submit(smb.close(FILE_ID))  # The interim answer brought one.
            assert not first.is_done
            for command, number in ((6, 1), (7, 0)):  # In another order.
                answer = header(command, message_id=number) + bytes(60)
                theirs.sendall(struct.pack(">I", len(answer)) + answer)
            link.result(first)
            assert second.is_done
            link.close()

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (b"\x85\0\0\0", "it is no SMB"),
            (struct.pack(">I", 4) + b"\xffSMB", "it is no SMB 2"),
            (struct.pack(">I", 60) + b"\xfdSMB" + bytes(56), "before a key was agreed on"),
            (struct.pack(">I", 64) + header(7, message_id=77), "to no request"),
        ],
    )
    def test_what_is_no_answer(self, answer: bytes, message: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            link = Link(Stream(ours, 5))
            theirs.sendall(answer)
            with pytest.raises(Malformed, match=message):
                link.call(smb.flush(FILE_ID))
            link.close()

    @pytest.mark.parametrize(
        "status", [Status.NETWORK_SESSION_EXPIRED, Status.INSUFF_SERVER_RESOURCES]
    )
    def test_what_another_connection_cures_is_a_lost_one(self, status: Status) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            link = Link(Stream(ours, 5))
            answer = header(7, status) + bytes(9)
            theirs.sendall(struct.pack(">I", len(answer)) + answer)
            with pytest.raises(ConnectionResetError):
                link.call(smb.flush(FILE_ID))
            link.close()

    def test_silence(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            link = Link(Stream(ours, 0.2))
            with pytest.raises(TimeoutError, match=r"no answer for 0\.2 s"):
                link.call(smb.flush(FILE_ID))
            link.close()


class TestProtection:
    def test_keys_are_derived_as_sp_800_108_has_it(self) -> None:
        # One round of HMAC-SHA256 over counter, label, zero, context and length.
        message = b"\0\0\0\1label\0context\0\0\1\0"
        expected = hmac.new(b"k" * 16, message, hashlib.sha256).digest()
        assert derive_key(b"k" * 16, b"label", b"context", 256) == expected
        assert derive_key(b"k" * 16, b"label", b"context") != expected[:16]  # Its length counts.

    @pytest.mark.parametrize("algorithm", SigningAlgorithm)
    @given(data=st.binary(min_size=2, max_size=300), draw=st.data())
    def test_a_signature_is_that_of_the_whole(
        self, algorithm: SigningAlgorithm, data: bytes, draw: st.DataObject
    ) -> None:
        signer = Signer(algorithm, b"k" * 16)
        at = draw.draw(st.integers(0, len(data)))
        whole = signer.sign([data], 7, True)
        assert signer.sign([data[:at], data[at:]], 7, True) == whole
        changed = bytes([data[0] ^ 1]) + data[1:]
        assert signer.sign([changed], 7, True) != whole

    @pytest.mark.parametrize("algorithm", CipherAlgorithm)
    @given(data=st.binary(min_size=1, max_size=300), draw=st.data())
    def test_sealed_and_unsealed(
        self, algorithm: CipherAlgorithm, data: bytes, draw: st.DataObject
    ) -> None:
        size = algorithm.key_bits // 8
        ours = make_sealer(algorithm, 5, b"a" * size, b"b" * size)
        theirs = make_sealer(algorithm, 5, b"b" * size, b"a" * size)
        at = draw.draw(st.integers(0, len(data)))
        sealed = b"".join(ours.seal([data[:at], data[at:]]))
        assert theirs.unseal(memoryview(sealed)) == data
        assert b"".join(ours.seal([data])) != sealed  # Another nonce each time.
        position = draw.draw(st.integers(4, len(sealed) - 1))
        changed = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
        with pytest.raises(Malformed):
            theirs.unseal(memoryview(changed))

    def test_a_sealed_message_that_is_too_short(self) -> None:
        sealer = make_sealer(CipherAlgorithm.AES_128_GCM, 5, b"a" * 16, b"b" * 16)
        with pytest.raises(Malformed):
            sealer.unseal(memoryview(b"\xfdSMB" + bytes(20)))


class TestNames:
    @given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))
    def test_and_back(self, name: str) -> None:
        try:
            stored = encode_path([name])
        except StorageRefused:
            return
        assert decode_name(stored) == name
        assert not set(stored) & set('"*:<>?\\|')
        assert stored[-1] not in " ."

    def test_parts(self) -> None:
        assert encode_path(["a", "b c", "d"]) == "a\\b c\\d"
        assert encode_path([]) == ""


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind", "words"),
        [
            (Status.DISK_FULL, StorageRefused, "no space left on the server"),
            (Status.QUOTA_EXCEEDED, StorageRefused, "quota"),
            (Status.ACCESS_DENIED, StorageDenied, "did not permit"),
            (Status.SHARING_VIOLATION, StorageUnavailable, "has it open"),
            (Status.PATH_NOT_COVERED, StorageRefused, "DFS"),
            (0xC0DEC0DE, StorageRefused, "NT status 0xC0DEC0DE"),
        ],
    )
    def test_kinds(self, status: int, kind: type[StorageError], words: str) -> None:
        error = storage_error(SmbError(status), "nas", "backup", 'write "a"')
        assert type(error) is kind
        assert words in str(error)
        assert '"nas"' in str(error)

    def test_login_and_share(self) -> None:
        locked = login_refusal(SmbError(Status.ACCOUNT_LOCKED_OUT), "nas", "backup")
        assert "is locked" in str(locked)
        denied = share_refusal(SmbError(Status.ACCESS_DENIED), "nas", "share", "backup")
        assert isinstance(denied, StorageDenied)
        assert "encrypt: true" in str(denied)


class TestModel:
    @pytest.mark.parametrize(
        "change", [{"path": "../x"}, {"path": "a\\b"}, {"share": "a/b"}, {"share": "a\\b"}]
    )
    def test_refused(self, change: dict[str, str]) -> None:
        values = {"type": "smb", "host": "nas", "share": "backup", "user": "backup"}
        assert SmbStorage.model_validate(values).signing
        with pytest.raises(ValidationError):
            SmbStorage.model_validate({**values, **change})


def test_an_error_is_raised_once() -> None:
    call: Call[None] = Call(Command.FLUSH, b"", smb.nothing)
    call.fail(SmbError(Status.DISK_FULL))
    with pytest.raises(SmbError):
        call.outcome()
    assert call.error is None
