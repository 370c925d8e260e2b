"""NFS against a real server: what can go wrong on the way, and what goes on all the same."""

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
from stages.storages._nfs.window import HELD_BYTES, IN_FLIGHT_BYTES
from stages.storages.nfs import Nfs
from tests.contracts.storage import MEMORY_LIMIT
from tests.contracts.storage_subject import (
    NAME,
    TOKEN,
    Stall,
    Subject,
    everything,
    push_object,
    put,
    read,
)
from tests.integration.nfs_storage import (
    MakeStorage,
    NfsTests,
    in_thread,
    is_waiting,
    path_of,
    set_size,
    some_chunks,
    works,
)
from tests.servers.base import small_disk
from tests.servers.nfs import Ganesha
from tests.servers.proxy import Proxy

PART = part_name(NAME, TOKEN)


def write_forever(writer: Writer) -> None:
    while True:
        writer.write(bytes(CHUNK))


def write_until_error(storage: Nfs, disturb: Callable[[], object]) -> StorageError:
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


class TestUploadGoesOn(NfsTests):
    def test_cut_again_and_again(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, nfs_port=proxy.port)
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

    def test_cut_with_a_full_window(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, nfs_port=proxy.port)
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

    def test_server_killed_and_back(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
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

    @pytest.mark.parametrize("when", ["during the upload", "before the last flush"])
    def test_what_a_crash_took_is_sent_again(self, storage_on: MakeStorage, when: str) -> None:
        with Ganesha() as server:
            storage: Any = storage_on(server)
            chunks = some_chunks(30)
            writer = storage.create(NAME, TOKEN)
            for chunk in chunks[:15]:
                writer.write(chunk)
            window = writer._window
            while window._flying:
                window._settle()  # All is answered.
            held = window._held_bytes
            assert held > 0
            server.kill()
            # It had it in memory only.
            os.truncate(path_of(server, storage, PART), window.size - held)
            server.start()
            if when == "during the upload":
                for chunk in chunks[15:]:
                    writer.write(chunk)
            else:
                chunks = chunks[:15]
            writer.commit()
            assert read(storage, NAME) == b"".join(chunks)

    def test_exported_anew_under_another_number(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
            storage = storage_on(server)
            chunks = some_chunks(50)
            writer = storage.create(NAME, TOKEN)
            for number, chunk in enumerate(chunks):
                writer.write(chunk)
                if number == 25:
                    server.kill()
                    server.export_id = 2  # Part of each handle: the old ones are stale now.
                    server.start()
            writer.commit()
            reader = storage.open(NAME)
            content = next(reader)
            server.kill()
            server.export_id = 3
            server.start()
            assert content + b"".join(reader) == b"".join(chunks)

    def test_put_off_by_the_server(self, storage_on: MakeStorage) -> None:
        with Ganesha(grace=60) as server:
            storage: Any = storage_on(server)
            client = storage._client
            storage.list("")
            (session,) = client._idle  # The next to be used.
            thread, results = in_thread(lambda: put(storage, NAME, [b"content"]))
            while session._busy_since is None:
                assert not results
            server.kill()
            server.grace = 0  # Else it would not be ready for a minute.
            server.start()
            thread.join()
            assert results == [None]
            assert read(storage, NAME) == b"content"

    def test_frozen_for_a_while(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
            storage = storage_on(server, timeout="2s")
            writer: Any = storage.create(NAME, TOKEN)
            chunks = some_chunks(60)
            server.freeze()
            thread, results = in_thread(lambda: [writer.write(chunk) for chunk in chunks])
            while not writer._session._attempts:  # Until it tries another connection.
                assert not results
            server.thaw()
            thread.join()
            assert not isinstance(results[0], Exception)
            writer.commit()
            assert read(storage, NAME) == b"".join(chunks)

    def test_connections_that_died_unused_are_replaced(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, nfs_port=proxy.port)
            assert works(storage)
            proxy.cut()
            assert works(storage)


class TestUploadFails(NfsTests):
    def test_server_killed(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
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
        with Ganesha() as server:
            storage = storage_on(server, timeout="1s")
            error = write_until_error(storage, server.freeze)
            assert isinstance(error, StorageUnavailable)
            assert "for more than 1 s: no answer for 0.5 s" in str(error)
            server.thaw()
            storage.sweep(storage.unfinished(""))
            assert works(storage)

    def test_put_off_for_too_long(self, storage_on: MakeStorage) -> None:
        message = r"put us off for more than 0\.3 s"
        with Ganesha(grace=60) as server, pytest.raises(StorageUnavailable, match=message):
            storage_on(server, timeout="300ms").create(NAME, TOKEN)

    def test_disk_full(self, storage_on: MakeStorage) -> None:
        server = Ganesha()
        with small_disk(server):
            storage = storage_on(server)
            error = write_until_error(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert "no space left on the server" in str(error)
            assert everything(storage) == []
            assert works(storage)

    def test_file_size_limit(self, storage_on: MakeStorage) -> None:
        with Ganesha(fsize=8 * CHUNK) as server:
            storage = storage_on(server)
            error = write_until_error(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert "larger than its file system allows" in str(error)
            assert everything(storage) == []

    def test_removed_by_another(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        error = write_until_error(storage, lambda: storage_on(server).sweep([PART]))
        assert isinstance(error, StorageRefused)
        assert "was removed" in str(error)

    def test_replaced_by_another(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.flush()
        storage.sweep([PART])
        other = storage_on(server).create(NAME, TOKEN)
        with pytest.raises(StorageRefused, match="was removed"):
            writer.commit()
        other.write(b"other content")
        other.commit()
        writer.abort()
        assert read(storage, NAME) == b"other content"

    def test_bytes_that_the_server_lost_are_noticed(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.flush()
        set_size(storage, PART, 3)
        with pytest.raises(StorageRefused, match="holds 3 bytes"):
            writer.commit()
        writer.abort()
        assert everything(storage) == []

    def test_close_ends_what_is_under_way(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        storage.close()
        with pytest.raises(StorageUnavailable, match="closed"):
            write_forever(writer)
        writer.abort()
        assert everything(storage) == []

    def test_abort_cannot_reach_the_server(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
            storage = storage_on(server)
            writer = storage.create(NAME, TOKEN)
            writer.write(bytes(CHUNK))
            server.kill()
            writer.abort()
            server.start()
            assert storage.unfinished("") == [PART]


class TestSlowness(NfsTests):
    def test_a_slow_network_does_not_make_memory_grow(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port, 64 << 20) as proxy:
            storage = storage_on(server, nfs_port=proxy.port)
            stall: Stall = (storage, lambda: None)
            subject = Subject(storage._spec, storage, lambda: storage, lambda: nullcontext(stall))
            push = subprocess.run(push_object(subject, 128), stdout=subprocess.PIPE, check=True)
            assert all(int(line) < MEMORY_LIMIT for line in push.stdout.split())
            assert proxy.sent > 128 * CHUNK
            storage.delete([NAME])

    def test_a_server_that_answers_nothing_gets_a_bounded_window(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, nfs_port=proxy.port, timeout="1h")
            writer: Any = storage.create(NAME, TOKEN)
            proxy.freeze()
            taken: list[int] = []

            def write() -> None:
                while True:
                    writer.write(bytes(CHUNK))
                    taken.append(CHUNK)

            thread, results = in_thread(write)
            while not is_waiting(thread):
                pass
            aborting = threading.Thread(target=writer.abort)
            aborting.start()
            thread.join()
            assert [type(result) for result in results] == [Aborted]
            assert sum(taken) <= IN_FLIGHT_BYTES
            before = proxy.sent
            proxy.thaw()  # Now the removal gets through.
            aborting.join()
            assert everything(storage) == []
            # What was still waiting to be sent was dropped.
            assert proxy.sent - before < IN_FLIGHT_BYTES // 2

    def test_a_server_that_confirms_nothing_gets_a_bounded_window(
        self, server: Ganesha, storage_on: MakeStorage
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

    def test_verifiers_that_never_agree(
        self, server: Ganesha, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As of a cluster, each of whose members answers with its own.
        storage: Any = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        window, chunks = writer._window, some_chunks(20)
        settle = window._settle

        def settle_with_another_verifier() -> None:
            settle()
            for piece in window._written:
                piece.verifier = os.urandom(8)

        monkeypatch.setattr(window, "_settle", settle_with_another_verifier)
        for chunk in chunks:
            writer.write(chunk)
        writer.commit()
        assert read(storage, NAME) == b"".join(chunks)
