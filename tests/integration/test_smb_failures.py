"""SMB against a real server: what can go wrong on the way, and what goes on all the same."""

from __future__ import annotations

import os
import signal
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
    names,
    push_object,
    put,
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
from tests.servers.base import signal_processes, small_disk
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


def lose_answer(monkeypatch: pytest.MonkeyPatch, command: Command) -> list[Command]:
    """Have the connection break when the answer to the next such request has come."""
    lost: list[Command] = []
    call = session_module.Session.call

    def call_and_lose(session: session_module.Session, request: Call[Any]) -> Any:
        result = call(session, request)
        if request.command == command and not lost:
            lost.append(command)
            raise ConnectionResetError(104, "connection reset by peer")
        return result

    monkeypatch.setattr(session_module.Session, "call", call_and_lose)
    return lost


class TestUploadGoesOn(SmbTests):
    @pytest.mark.parametrize("encrypt", [False, True])
    def test_cut_again_and_again(
        self, server: Smbd, storage_on: MakeStorage, encrypt: bool
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port, encrypt=encrypt)
            chunks = some_chunks(60)
            writer = storage.create(NAME, TOKEN)
            for number, chunk in enumerate(chunks):
                writer.write(chunk)
                if number % 7 == 3:
                    proxy.cut()
            proxy.cut()
            writer.flush()
            proxy.cut()
            writer.commit()
            assert read(storage, NAME) == b"".join(chunks)
            assert everything(storage) == [NAME]

    def test_cut_with_a_full_window(self, server: Smbd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            chunks = some_chunks(40)
            writer = storage.create(NAME, TOKEN)
            proxy.mute()  # What is sent arrives, and nothing is answered.
            before = proxy.sent
            thread, results = in_thread(lambda: [writer.write(chunk) for chunk in chunks])
            proxy.wait_sent(before + IN_FLIGHT_BYTES - 2 * CHUNK)
            proxy.cut()
            proxy.thaw()
            thread.join()
            assert not isinstance(results[0], Exception)
            writer.commit()
            assert read(storage, NAME) == b"".join(chunks)

    def test_what_was_confirmed_is_not_sent_again(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            chunks = some_chunks(40)
            writer = storage.create(NAME, TOKEN)
            for chunk in chunks:
                writer.write(chunk)
            writer.flush()
            before = proxy.sent
            proxy.cut()
            writer.write(b"one more")
            writer.commit()
            assert proxy.sent - before < CHUNK
            assert read(storage, NAME) == b"".join(chunks) + b"one more"

    def test_server_killed_and_back(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            storage = storage_on(server)
            chunks = some_chunks(50)
            writer = storage.create(NAME, TOKEN)
            for number, chunk in enumerate(chunks):
                writer.write(chunk)
                if number in (20, 40):
                    server.kill()
                    server.start()
            writer.commit()
            assert read(storage, NAME) == b"".join(chunks)
            assert everything(storage) == [NAME]

    def test_session_ended_by_the_server(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            storage = storage_on(server)
            everybody = server.processes()
            writer = storage.create(NAME, TOKEN)
            writer.write(b"before, ")
            writer.flush()
            processes = server.processes()
            ours = {pid: processes[pid] for pid in processes if pid not in everybody}
            assert ours
            signal_processes(ours, signal.SIGKILL)
            writer.write(b"after")
            writer.commit()
            assert read(storage, NAME) == b"before, after"

    @pytest.mark.parametrize("when", ["during the upload", "before the last flush"])
    def test_what_a_crash_took_is_sent_again(self, storage_on: MakeStorage, when: str) -> None:
        with Smbd() as server:
            storage: Any = storage_on(server)
            chunks = some_chunks(30)
            writer = storage.create(NAME, TOKEN)
            for chunk in chunks[:15]:
                writer.write(chunk)
            window = writer._window
            while window._flying:
                window._settle()  # All is answered.
            assert window._held_bytes > 0
            server.kill()
            # It had it in memory only.
            os.truncate(path_of(server, storage, PART), window._kept)
            server.start()
            if when == "during the upload":
                for chunk in chunks[15:]:
                    writer.write(chunk)
            else:
                chunks = chunks[:15]
            writer.commit()
            assert read(storage, NAME) == b"".join(chunks)

    def test_frozen_for_a_while(self, server: Smbd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port, timeout="2s")
            writer: Any = storage.create(NAME, TOKEN)
            chunks = some_chunks(60)
            proxy.freeze()
            thread, results = in_thread(lambda: [writer.write(chunk) for chunk in chunks])
            while not writer._session._attempts:  # Until it tries another connection.
                assert not results
            proxy.thaw()  # The server learns of both, and closes the files of the first.
            thread.join()
            assert not isinstance(results[0], Exception)
            writer.commit()
            assert read(storage, NAME) == b"".join(chunks)

    def test_connections_that_died_unused_are_replaced(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            assert works(storage)
            proxy.cut()
            assert works(storage)
            proxy.cut()
            assert storage.list("") == []
            proxy.cut()
            storage.delete(["shop/missing"])

    @pytest.mark.parametrize("command", [Command.CREATE, Command.QUERY_INFO])
    def test_the_answer_to_its_start_is_lost(
        self,
        server: Smbd,
        storage_on: MakeStorage,
        monkeypatch: pytest.MonkeyPatch,
        command: Command,
    ) -> None:
        storage = storage_on(server)
        put(storage, "shop/crm/other", [b"content"])  # So that its directory is there.
        lost = lose_answer(monkeypatch, command)
        put(storage, NAME, [b"content"])
        assert lost
        assert read(storage, NAME) == b"content"

    @pytest.mark.parametrize("command", [Command.SET_INFO, Command.CLOSE])
    def test_the_answer_to_its_commit_is_lost(
        self,
        server: Smbd,
        storage_on: MakeStorage,
        monkeypatch: pytest.MonkeyPatch,
        command: Command,
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.flush()
        lost = lose_answer(monkeypatch, command)
        writer.commit()
        assert lost
        assert read(storage, NAME) == b"content"
        assert everything(storage) == [NAME]

    def test_aborted_after_the_answer_to_its_commit_was_lost(
        self, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Smbd() as server:
            storage = storage_on(server, timeout="300ms")
            writer = storage.create(NAME, TOKEN)
            writer.write(b"content")
            writer.flush()
            lost = lose_answer(monkeypatch, Command.SET_INFO)
            kept = server.port
            server.port = 0  # Not found until it is told again.
            storage._client._spec = storage._spec.model_copy(update={"port": 1})
            with pytest.raises(StorageUnavailable):
                writer.commit()
            assert lost
            server.port = kept
            assert names(storage_on(server)) == [NAME]
            storage._client._spec = storage._spec
            writer.abort()
            assert everything(storage_on(server)) == []


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


class TestDownload(SmbTests):
    def test_cut_again_and_again(self, server: Smbd, storage_on: MakeStorage) -> None:
        content = os.urandom(40 * CHUNK + 5)
        put(storage_on(server), NAME, [content])
        with Proxy(server.port) as proxy:
            came = []
            for number, chunk in enumerate(storage_on(server, port=proxy.port).open(NAME)):
                came.append(chunk)
                if number % 9 == 4:
                    proxy.cut()
            assert b"".join(came) == content

    def test_server_killed_and_back(self, storage_on: MakeStorage) -> None:
        with Smbd() as server:
            storage = storage_on(server)
            content = os.urandom(40 * CHUNK + 5)
            put(storage, NAME, [content])
            reader = storage.open(NAME)
            first = next(reader)
            server.kill()
            server.start()
            assert first + b"".join(reader) == content

    def test_an_object_that_is_gone_after_a_cut(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        direct = storage_on(server)
        put(direct, NAME, [os.urandom(40 * CHUNK)])
        with Proxy(server.port) as proxy:
            reader = storage_on(server, port=proxy.port).open(NAME)
            next(reader)
            path_of(server, direct, NAME).unlink()
            proxy.cut()
            with pytest.raises(StorageRefused, match="does not exist"):
                list(reader)

    def test_an_object_that_is_cut_off_meanwhile(
        self, server: Smbd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        put(storage, NAME, [os.urandom(40 * CHUNK)])
        reader = storage.open(NAME)
        next(reader)
        os.truncate(path_of(server, storage, NAME), 20 * CHUNK + 1)
        with pytest.raises(StorageRefused, match="ended early"):
            list(reader)


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
