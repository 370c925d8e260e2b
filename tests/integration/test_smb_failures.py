"""SMB against a real server: uploads that fail, and networks and servers that are slow."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.naming import part_name
from pipeline.stage import CHUNK, Writer
from stages.storages._smb import session as session_module
from stages.storages._smb.types import Call, Command
from stages.storages._smb.window import HELD_BYTES, IN_FLIGHT_BYTES
from stages.storages.smb import Smb
from tests.contracts.storage import MEMORY_LIMIT
from tests.contracts.storage_subject import (
    NAME,
    TOKEN,
    Stall,
    Subject,
    everything,
    push_object,
    read,
)
from tests.integration.smb_storage import (
    MakeStorage,
    SmbTests,
    in_thread,
    path_of,
    some_chunks,
    works,
)
from tests.servers.base import small_disk
from tests.servers.proxy import Proxy
from tests.servers.smb import Smbd

PART = part_name(NAME, TOKEN)


def write_forever(writer: Writer) -> None:
    while True:
        writer.write(bytes(CHUNK))


def write_until_error(storage: Smb, disturb: Callable[[], object]) -> StorageError:
    """What a writer says when something happens in the middle of its upload."""
    writer = storage.create(NAME, TOKEN)
    for chunk in some_chunks(4):
        writer.write(chunk)
    disturb()
    with pytest.raises(StorageError) as caught:
        write_forever(writer)
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    return caught.value


class TestUploadFails(SmbTests):
    def test_server_killed(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            storage = storage_on(server, timeout="1s")
            error = write_until_error(storage, server.kill)
            assert isinstance(error, StorageUnavailable)
            assert "lost the connection" in str(error)
            assert "connection refused" in str(error)
            server.start()
            assert storage.unfinished("") == [PART]
            storage.sweep(storage.unfinished(""))
            assert works(storage)

    def test_server_frozen(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            storage = storage_on(server, timeout="1s")
            error = write_until_error(storage, server.freeze)
            assert isinstance(error, StorageUnavailable)
            assert "for more than 1 s: no answer for 0.5 s" in str(error)
            server.thaw()
            storage.sweep(storage.unfinished(""))
            assert works(storage)

    def test_connections_that_break_at_the_same_place(
        self, server: Smbd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage: Any = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        monkeypatch.setattr(session_module, "_LAST_PAUSE", 0.01)

        def break_down() -> None:
            raise ConnectionResetError(104, "connection reset by peer")

        monkeypatch.setattr(writer._window, "_submit", lambda _: break_down())
        writer.write(b"content")
        with pytest.raises(StorageUnavailable, match="21 times in a row: connection reset"):
            writer.flush()
        writer.abort()
        assert everything(storage) == []

    def test_disk_full(self, storage_on: MakeStorage) -> None:
        server = Smbd()
        with small_disk(server):
            storage = storage_on(server)
            error = write_until_error(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert "no space left on the server" in str(error)
            assert everything(storage) == []
            assert works(storage)

    def test_removed_by_another(self, server: Smbd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        storage_on(server).sweep([PART])
        with pytest.raises(StorageRefused, match="was removed"):
            writer.commit()
        writer.abort()
        assert everything(storage) == []

    def test_replaced_by_another(self, server: Smbd, storage_on: MakeStorage) -> None:
        storage: Any = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.flush()
        part = path_of(server, storage, PART)
        part.rename(part.with_name("kept"))  # Else the next one may get its number.
        part.write_bytes(b"content")
        server.own()
        writer._session._drop()
        writer._session._open()
        with pytest.raises(StorageRefused, match="was removed"):
            writer.commit()
        writer.abort()

    @pytest.mark.parametrize("connection", ["the same", "another"])
    def test_bytes_that_the_server_lost_are_noticed(
        self, server: Smbd, storage_on: MakeStorage, connection: str
    ) -> None:
        storage: Any = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.flush()
        os.truncate(path_of(server, storage, PART), 3)
        if connection == "another":
            writer._session._drop()
            writer._session._open()
        with pytest.raises(StorageRefused, match="holds 3 bytes"):
            writer.commit()
        writer.abort()
        assert everything(storage) == []

    def test_close_ends_what_is_under_way(self, server: Smbd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        storage.close()
        with pytest.raises(StorageUnavailable, match="closed"):
            write_forever(writer)
        writer.abort()
        assert everything(storage) == []

    def test_abort_cannot_reach_the_server(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            storage = storage_on(server)
            writer = storage.create(NAME, TOKEN)
            writer.write(bytes(CHUNK))
            server.kill()
            writer.abort()
            server.start()
            assert storage.unfinished("") == [PART]


class TestSlowness(SmbTests):
    def test_a_slow_network_does_not_make_memory_grow(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port, 64 << 20) as proxy:
            storage = storage_on(server, port=proxy.port)
            stall: Stall = (storage, lambda: None)
            subject = Subject(storage._spec, storage, lambda: storage, lambda: nullcontext(stall))
            push = subprocess.run(push_object(subject, 128), stdout=subprocess.PIPE, check=True)
            assert all(int(line) < MEMORY_LIMIT for line in push.stdout.split())
            assert proxy.sent > 128 * CHUNK
            storage.delete([NAME])

    def test_a_server_that_answers_nothing_gets_a_bounded_window(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port, timeout="1h")
            writer: Any = storage.create(NAME, TOKEN)
            proxy.mute()
            before = proxy.sent
            taken: list[int] = []

            def write() -> None:
                while True:
                    writer.write(bytes(CHUNK))
                    taken.append(CHUNK)

            thread, results = in_thread(write)
            proxy.wait_sent(before + IN_FLIGHT_BYTES - CHUNK)
            aborting = threading.Thread(target=writer.abort)
            aborting.start()
            thread.join()
            assert [type(result) for result in results] == [Aborted]
            assert sum(taken) <= IN_FLIGHT_BYTES
            proxy.thaw()  # Now the removal gets through.
            aborting.join()
            assert everything(storage) == []

    def test_a_server_that_confirms_nothing_gets_a_bounded_window(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        storage: Any = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        window, most = writer._window, 0
        for chunk in some_chunks(100):
            writer.write(chunk)
            most = max(most, window._held_bytes)
        assert CHUNK < most <= HELD_BYTES
        writer.commit()
        assert window._held_bytes == 0

    def test_a_server_that_takes_a_part_of_a_write(
        self, server: Smbd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage: Any = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        result = writer._session.result
        # As if it had written less than it has.
        halves = iter((100_000, 7, 300_000))

        def take_less(call: Call[Any]) -> Any:
            done = result(call)
            return next(halves, done) if call.command == Command.WRITE else done

        monkeypatch.setattr(writer._session, "result", take_less)
        chunks = some_chunks(20)
        for chunk in chunks:
            writer.write(chunk)
        writer.commit()
        assert read(storage, NAME) == b"".join(chunks)
