"""SMB against a real server: uploads and downloads that are disturbed, and go on."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from pipeline.errors import StorageRefused, StorageUnavailable
from pipeline.naming import part_name
from pipeline.stage import CHUNK
from stages.storages._smb import session as session_module
from stages.storages._smb.types import Call, Command
from stages.storages._smb.window import IN_FLIGHT_BYTES
from tests.contracts.storage_subject import (
    NAME,
    TOKEN,
    everything,
    names,
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
from tests.servers.base import free_port, signal_processes
from tests.servers.proxy import Proxy
from tests.servers.smb import Smbd

PART = part_name(NAME, TOKEN)


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
            nowhere = storage._spec.model_copy(update={"port": free_port()})
            monkeypatch.setattr(storage._client, "_spec", nowhere)
            with pytest.raises(StorageUnavailable):
                writer.commit()
            assert lost
            assert names(storage_on(server)) == [NAME]
            monkeypatch.setattr(storage._client, "_spec", storage._spec)
            writer.abort()
            assert everything(storage_on(server)) == []


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
