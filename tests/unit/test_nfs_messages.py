"""The messages of NFS and RPC, byte by byte, and the connections that carry them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import Aborted, StorageDenied, StorageRefused, StorageUnavailable
from schemas.storages import NfsStorage
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.errors import mount_error, storage_error
from stages.storages._nfs.mount import MountError
from stages.storages._nfs.rpc import (
    LAST_FRAGMENT,
    RpcRejected,
    auth_sys,
    call_message,
    check_reply,
)
from stages.storages._nfs.tcp import MAX_RECORD, Connection
from stages.storages._nfs.types import NfsError, Status, Written
from stages.storages._nfs.xdr import Buffer, Malformed, Unpacker, pack_hyper, pack_opaque, pack_uint
from stages.storages._tcp import Interrupt

ACCEPTED = pack_uint(1, 0, 0, 0)
FILE = pack_uint(1, 0o600, 1, 7, 8) + pack_hyper(4321) + bytes(24) + pack_hyper(99) + bytes(24)
"""Attributes of a regular file of 4321 bytes."""


def words(text: str) -> bytes:
    """Bytes from words in hexadecimal."""
    return b"".join(int(word, 16).to_bytes(4, "big") for word in text.split())


class TestFields:
    @given(st.binary(max_size=100))
    def test_opaque_and_back(self, data: bytes) -> None:
        packed = pack_opaque(data)
        assert len(packed) % 4 == 0
        assert Unpacker(packed).opaque() == data

    @given(st.binary(min_size=1, max_size=100), st.data())
    def test_a_message_that_is_too_short(self, data: bytes, draw: st.DataObject) -> None:
        packed = pack_opaque(data)
        cut = draw.draw(st.integers(0, len(packed) - 1))
        with pytest.raises(Malformed, match="ends too early"):
            Unpacker(packed[:cut]).opaque()

    def test_a_length_that_lies(self) -> None:
        with pytest.raises(Malformed):
            Unpacker(pack_uint(0xFFFFFFFF) + bytes(100)).opaque()

    def test_numbers(self) -> None:
        fields = Unpacker(pack_uint(1, 0) + pack_hyper(1 << 40) + b"abcd")
        assert (fields.boolean(), fields.boolean(), fields.hyper()) == (True, False, 1 << 40)
        assert fields.fixed(4) == b"abcd"


class TestCalls:
    def test_a_call_as_the_standard_has_it(self) -> None:
        call = nfs.write(b"hand", 5, b"12345", nfs.UNSTABLE)
        credentials = auth_sys(1, 2, [3])
        parts = call_message(0x77, nfs.NFS, call.procedure, credentials, call.arguments, call.data)
        message = b"".join(bytes(part) for part in parts)
        assert int.from_bytes(message[:4], "big") == LAST_FRAGMENT | len(message) - 4
        assert message[4:28] == words("77 0 2 186a3 3 7")
        assert message[28 : 28 + len(credentials)] == credentials
        arguments = words("4 68616e64 0 5 5 0 5 31323334 35000000")
        assert message[28 + len(credentials) :] == arguments
        assert parts[1] is call.data  # Not copied.

    def test_credentials(self) -> None:
        fields = Unpacker(auth_sys(1000, 100, [7, 8]))
        assert fields.uint() == 1
        body = Unpacker(fields.opaque())
        assert body.uint() == 0
        assert body.opaque()
        assert [body.uint() for _ in range(5)] == [1000, 100, 2, 7, 8]
        assert (fields.uint(), fields.uint()) == (0, 0)

    def test_names_are_bytes(self) -> None:
        call = nfs.lookup(b"", "a\udcff")
        assert call.arguments == pack_opaque(b"") + pack_opaque(b"a\xff")

    def test_an_answer_with_attributes(self) -> None:
        call = nfs.get_attributes(b"")
        call.finish(Unpacker(pack_uint(0) + FILE))
        found = call.outcome()
        assert (found.kind, found.size, found.number) == (nfs.REGULAR, 4321, 99)

    def test_an_answer_to_a_write(self) -> None:
        for changes in (pack_uint(0, 0), pack_uint(1) + bytes(24) + pack_uint(1) + FILE):
            call = nfs.write(b"", 0, b"data", nfs.UNSTABLE)
            call.finish(Unpacker(pack_uint(0) + changes + pack_uint(4, 0) + b"verifier"))
            assert call.outcome() == Written(4, False, b"verifier")

    @pytest.mark.parametrize(
        ("sizes", "expected"),
        [
            ([1 << 20, 65536, 1, 65536, 32768, 1], (65536, 32768)),
            ([1 << 26, 1 << 26, 1, 1 << 26, 1 << 26, 1], (1 << 20, 1 << 20)),
            ([32768, 0, 1, 32768, 65536, 1], (32768, 32768)),
            ([0, 0, 0, 0, 0, 0], (8192, 8192)),
        ],
    )
    def test_block_sizes(self, sizes: list[int], expected: tuple[int, int]) -> None:
        call = nfs.get_limits(b"")
        call.finish(Unpacker(pack_uint(0, 0, *sizes) + bytes(100)))
        limits = call.outcome()
        assert (limits.read, limits.write) == expected

    def test_a_page_of_a_directory(self) -> None:
        call = nfs.read_directory_plus(b"", 0, bytes(8), 4096)
        full = pack_hyper(1) + pack_opaque(b"a") + pack_hyper(10) + pack_uint(1) + FILE
        full += pack_uint(1) + pack_opaque(b"handle")
        bare = pack_hyper(2) + pack_opaque(b"b\xff") + pack_hyper(20) + pack_uint(0, 0)
        body = pack_uint(0, 0) + b"verifier" + pack_uint(1) + full + pack_uint(1) + bare
        call.finish(Unpacker(body + pack_uint(0, 1)))
        page = call.outcome()
        assert [(entry.name, entry.handle) for entry in page.entries] == [
            ("a", b"handle"),
            ("b\udcff", None),
        ]
        assert (page.verifier, page.cookie, page.is_last) == (b"verifier", 20, True)

    def test_a_failure(self) -> None:
        call = nfs.lookup(b"", "a")
        call.finish(Unpacker(pack_uint(Status.NOENT, 0)))
        with pytest.raises(NfsError) as caught:
            call.outcome()
        assert caught.value.status == Status.NOENT

    def test_a_handle_that_is_too_long(self) -> None:
        with pytest.raises(Malformed, match="handle"):
            nfs.lookup(b"", "a").finish(Unpacker(pack_uint(0) + pack_opaque(bytes(65)) + FILE))


class TestReplies:
    @pytest.mark.parametrize(
        ("reply", "message"),
        [
            ("1 0 0 0 1", "does not offer this service"),
            ("1 0 0 0 2 3 3", "does not offer this version"),
            ("1 0 0 0 3", "does not know this procedure"),
            ("1 0 0 0 4", "could not read the request"),
            ("1 0 0 0 77", "code 119"),
            ("1 1 0 2 2", "another version of RPC"),
            ("1 1 1 1", "does not accept our credentials"),
        ],
    )
    def test_rejected(self, reply: str, message: str) -> None:
        with pytest.raises(RpcRejected, match=message):
            check_reply(Unpacker(words(reply)))

    def test_too_weak(self) -> None:
        with pytest.raises(RpcRejected) as caught:
            check_reply(Unpacker(words("1 1 1 5")))
        assert "source port below 1024" in str(caught.value.hint)

    def test_a_call_is_no_reply(self) -> None:
        with pytest.raises(Malformed, match="not a reply"):
            check_reply(Unpacker(words("0 0 0 0 0")))

    def test_accepted_with_a_verifier(self) -> None:
        reply = Unpacker(words("1 0 1 5 61626364 65000000 0 2a"))
        check_reply(reply)
        assert reply.uint() == 42


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (Status.ACCES, StorageDenied),
            (Status.NOSPC, StorageRefused),
            (Status.DQUOT, StorageRefused),
            (Status.ROFS, StorageRefused),
            (Status.IO, StorageUnavailable),
            (Status.SERVERFAULT, StorageUnavailable),
            (Status.STALE, StorageUnavailable),
            (4242, StorageRefused),
        ],
    )
    def test_whether_retrying_can_help(self, status: int, kind: type) -> None:
        error = storage_error(NfsError(status), "nas", "uid 1, gid 2", 'write "a"')
        assert type(error) is kind
        assert str(error).startswith('"nas" ')
        assert 'write "a"' in str(error)

    def test_every_status_is_explained(self) -> None:
        handled = {
            Status.INVAL,
            Status.MLINK,
            Status.XDEV,
            Status.NOTEMPTY,
            Status.BAD_COOKIE,
            Status.TOOSMALL,
            Status.JUKEBOX,
        }
        for status in set(Status) - handled:
            assert "code" not in str(storage_error(NfsError(status), "nas", "us", "do it"))

    @pytest.mark.parametrize(
        ("status", "message"), [(2, "no such export"), (13, "exported to"), (None, "Kerberos")]
    )
    def test_mounting(self, status: int | None, message: str) -> None:
        assert message in str(mount_error(MountError(status), "nas", "/srv"))


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ours, patience=0.2)
    with theirs:
        yield connection, theirs
        connection.close()


def record(body: bytes, *, last: bool = True) -> bytes:
    return pack_uint(LAST_FRAGMENT * last | len(body)) + body


class TestConnection:
    def test_replies_of_all_sizes(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, server = pair
        sizes = [0, 4, 4000, 70_000, 8, 1 << 20, 65532, 12, 3 << 20, 4]
        sent = [pack_uint(number) + bytes([number]) * size for number, size in enumerate(sizes)]
        stream = b"".join(record(body) for body in sent)
        thread = threading.Thread(target=server.sendall, args=(stream,))
        thread.start()
        for number, size in enumerate(sizes):
            xid, reply = connection.receive()
            assert xid == number
            assert reply.fixed(size) == bytes([number]) * size
        thread.join()

    def test_a_reply_in_fragments(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, server = pair
        server.sendall(record(pack_uint(7), last=False) + record(b"", last=False))
        server.sendall(record(b"abcd", last=False) + record(b"efgh") + record(pack_uint(8)))
        xid, reply = connection.receive()
        assert (xid, reply.fixed(8)) == (7, b"abcdefgh")
        assert connection.receive()[0] == 8

    def test_endless_fragments(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, server = pair
        fragment = record(bytes(1 << 20), last=False) * (MAX_RECORD >> 20)
        thread = threading.Thread(target=server.sendall, args=(fragment + record(b"1234"),))
        thread.start()
        with pytest.raises(Malformed, match="too long"):
            connection.receive()
        thread.join()

    def test_too_long_a_reply(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, server = pair
        server.sendall(pack_uint(LAST_FRAGMENT | MAX_RECORD + 1))
        with pytest.raises(Malformed, match="too long"):
            connection.receive()

    def test_the_other_end_closes(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, server = pair
        server.sendall(b"\x80")
        server.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError, match="closed by the server"):
            connection.receive()

    def test_silence(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, _ = pair
        with pytest.raises(TimeoutError, match=r"no answer for 0\.2 s"):
            connection.receive()
        with pytest.raises(TimeoutError):
            connection.send([bytes(64 << 20)])

    def test_parts_arrive_in_one_piece(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, server = pair
        parts: list[Buffer] = [b"head", memoryview(bytes(range(256)) * 20_000), b"end"]
        expected, received = b"".join(parts), bytearray()

        def receive() -> None:
            while len(received) < len(expected):
                received.extend(server.recv(100_000))

        thread = threading.Thread(target=receive)
        thread.start()
        connection.send(parts)
        thread.join()
        assert received == expected


class TestInterrupt:
    def test_sleep_and_wait_end(self, pair: tuple[Connection, socket.socket]) -> None:
        connection, _ = pair
        interrupt = Interrupt()
        interrupt.watch(connection._socket)
        interrupt.end(Aborted)
        interrupt.end(ValueError)  # The first counts.
        with pytest.raises(ConnectionError):
            connection.receive()
        for call in (interrupt.check, lambda: interrupt.sleep(3600)):
            with pytest.raises(Aborted):
                call()
        with pytest.raises(Aborted):
            interrupt.watch(connection._socket)


class TestSpec:
    @pytest.mark.parametrize(
        "changes",
        [{"export": "srv"}, {"path": "a/../b"}, {"uid": -1}, {"gids": [1] * 17}, {"nfs_port": 0}],
    )
    def test_refused(self, changes: dict[str, object]) -> None:
        values = {"type": "nfs", "host": "nas", "export": "/srv", **changes}
        with pytest.raises(ValidationError):
            NfsStorage.model_validate(values)
