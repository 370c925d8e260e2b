"""SFTP transfers that break and go on: what arrives is whole, or nothing is committed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK, Writer
from stages.storages._sftp.window import WINDOW_BYTES
from tests.contracts.storage_subject import (
    NAME,
    OTHER_TOKEN,
    TOKEN,
    everything,
    put,
    read,
)
from tests.integration.sftp_storage import (
    Events,
    MakeStorage,
    SftpTests,
    chunk,
    in_thread,
    part_of,
    sftp_sessions,
    stored_digest,
    upload,
    upload_disturbed,
    wait_for,
    works,
    written,
)
from tests.servers.proxy import Proxy
from tests.servers.sshd import Sshd

WINDOW = WINDOW_BYTES // CHUNK
SHARE = 0.02
"""Of the data, for headers: what a proxy counts is more than was written."""


def end_sessions(server: Sshd) -> None:
    """Kill every SFTP session of a server, whose connections stay."""
    for pid in sftp_sessions(server):
        os.kill(pid, signal.SIGKILL)


class TestUploadGoesOn(SftpTests):
    def test_network_is_cut_again_and_again(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            cuts = {at: proxy.cut for at in (0, 1, 30, 31, 32, 70, 127)}
            upload_disturbed(server, storage_on(server, port=proxy.port), 128, cuts)
            # Only what was on its way was sent again.
            assert proxy.sent < (128 * (1 + SHARE) + len(cuts) * WINDOW) * CHUNK

    def test_what_was_acknowledged_is_not_sent_again(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = storage.create(NAME, TOKEN)
            digest = upload(writer, 20, {})
            writer.flush()
            sent = proxy.sent
            proxy.cut()
            writer.commit()
            assert proxy.sent - sent < CHUNK
            assert stored_digest(server) == digest
            storage.delete([NAME])

    def test_network_is_cut_while_data_is_stuck(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer: Any = storage.create(NAME, TOKEN)
            upload(writer, 4, {})
            proxy.freeze()
            writing, results = in_thread(lambda: [writer.write(chunk(at)) for at in range(4, 40)])
            while writer._window._has_room(1, CHUNK):
                assert writing.is_alive()
            proxy.cut()
            proxy.thaw()
            writing.join()
            writer.commit()
            assert results == [[None] * 36]
            assert read(storage, NAME) == b"".join(map(chunk, range(40)))
            storage.delete([NAME])

    def test_acknowledgements_are_lost(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = storage.create(NAME, TOKEN)
            upload(writer, 2, {})
            writer.flush()
            proxy.mute()
            flushing, results = in_thread(lambda: (writer.write(chunk(2)), writer.flush()))
            while part_of(server).stat().st_size < 3 * CHUNK:
                assert flushing.is_alive()
            proxy.cut()
            proxy.thaw()
            flushing.join()
            assert results == [(None, None)]
            writer.commit()
            assert read(storage, NAME) == b"".join(map(chunk, range(3)))
            storage.delete([NAME])

    def test_sessions_end_but_not_the_connection(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        def end() -> None:
            end_sessions(server)

        upload_disturbed(server, storage_on(server), 40, {0: end, 20: end, 39: end})

    def test_server_is_killed_and_comes_back(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:

            def restart() -> None:
                server.kill()
                server.start()

            upload_disturbed(server, storage_on(server), 60, {0: restart, 20: restart, 45: restart})

    def test_server_comes_back_later(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            done = threading.Event()

            def start_later() -> None:
                done.wait(1)
                server.start()
                done.wait()  # The server ends with the thread that started it.

            starter = threading.Thread(target=start_later)

            def kill() -> None:
                server.kill()
                starter.start()

            upload_disturbed(server, storage_on(server), 30, {20: kill})
            done.set()
            starter.join()

    def test_server_freezes_and_thaws(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server, timeout="8s", connect_timeout="1s")
            writer: Any = storage.create(NAME, TOKEN)
            digest = upload(writer, 20, {})
            server.freeze()
            writing, results = in_thread(lambda: [writer.write(chunk(at)) for at in range(20, 40)])
            while writer._upload._recovery is None:  # It takes the silence for a broken connection.
                assert writing.is_alive()
                time.sleep(0.01)
            server.thaw()
            writing.join()
            assert results == [[None] * 20]
            writer.commit()
            assert stored_digest(server) != digest
            assert read(storage, NAME) == b"".join(map(chunk, range(40)))

    def test_writing_goes_on_after_a_flush(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        pieces = [b"a", b"b" * CHUNK, b"c"]
        for piece in pieces:
            writer.write(piece)
            writer.flush()
        writer.commit()
        assert read(storage, NAME) == b"".join(pieces)
        storage.delete([NAME])

    @pytest.mark.parametrize(
        "more",
        [
            "RekeyLimit 1M\n",
            "RekeyLimit default 1\n",
            "Ciphers aes256-gcm@openssh.com\n",
            "Ciphers chacha20-poly1305@openssh.com\nRekeyLimit 4M\n",
            "Ciphers aes128-ctr\n",
        ],
    )
    def test_servers_that_encrypt_otherwise(self, storage_on: MakeStorage, more: str) -> None:
        with Sshd(more=more) as server, Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            upload_disturbed(server, storage, 40, {20: proxy.cut})

    def test_new_keys_in_the_middle(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        assert works(storage)
        (connection,) = storage._link._connections
        first = connection._send_encryption
        connection._rekey_bytes = 3 * CHUNK
        upload_disturbed(server, storage, 20, {})
        assert connection._send_encryption is not first

    def test_a_version_of_the_library_that_is_not_known(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stages.storages._sftp.lean.FITS", False)
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            upload_disturbed(server, storage, 20, {10: proxy.cut})


class TestDownloadGoesOn(SftpTests):
    def test_network_is_cut_again_and_again(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            content = b"".join(map(chunk, range(60)))
            put(storage, NAME, [content])
            found = bytearray()
            for number, piece in enumerate(storage.open(NAME, 17)):
                found += piece
                if number in (0, 1, 20, 21, 57):
                    proxy.cut()
            assert found == content[17:]
            storage.delete([NAME])

    def test_server_is_killed_and_comes_back(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server)
            content = b"".join(map(chunk, range(40)))
            put(storage, NAME, [content])
            chunks = storage.open(NAME)
            found = bytearray(next(chunks))
            server.kill()
            server.start()
            found += b"".join(chunks)
            assert found == content

    def test_object_that_changed_meanwhile(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            put(storage, NAME, [bytes(CHUNK)] * 40)
            chunks = storage.open(NAME)
            next(chunks)
            os.truncate(server.data / "backups" / NAME, 39 * CHUNK)
            proxy.cut()
            with pytest.raises(StorageRefused, match="ended early"):
                list(chunks)
            storage.delete([NAME])


class TestGivingUp(SftpTests):
    @pytest.fixture
    @classmethod
    def server(cls) -> Iterator[Sshd]:
        with Sshd() as sshd:  # One for each test: they kill it.
            yield sshd

    def test_server_that_lost_what_it_acknowledged(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        upload(writer, 4, {})
        writer.flush()

        def lose() -> None:
            server.kill()
            os.truncate(part_of(server), 3 * CHUNK)
            server.start()

        error = failure(writer, {1: lose})
        assert isinstance(error, StorageUnavailable)
        assert "had acknowledged" in str(error)
        assert "did it crash?" in str(error)

    def test_object_that_was_removed_meanwhile(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:

            def remove() -> None:
                part_of(server).unlink()
                proxy.cut()

            error = failure(storage_on(server, port=proxy.port).create(NAME, TOKEN), {5: remove})
            assert isinstance(error, StorageRefused)
            assert "was removed while it was being written" in str(error)

    def test_object_that_came_between(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = written(storage)
            proxy.cut()
            put(storage, NAME, [b"of another"], OTHER_TOKEN)
            with pytest.raises(StorageRefused, match="already exists"):
                writer.commit()
            writer.abort()
            assert everything(storage) == [NAME]
            assert read(storage, NAME) == b"of another"

    def test_abort_after_a_cut_leaves_nothing(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = storage.create(NAME, TOKEN)
            upload(writer, 10, {8: proxy.cut})
            writer.abort()
            assert everything(storage) == []

    def test_abort_ends_the_tries(self, server: Sshd, storage_on: MakeStorage) -> None:
        writer: Any = storage_on(server, timeout="600s").create(NAME, TOKEN)
        writing, results = in_thread(lambda: upload(writer, 100_000, {5: server.kill}))
        wait_for(writing, lambda: writer._upload._recovery is not None)
        writer.abort()
        writing.join()
        assert [type(result) for result in results] == [Aborted]

    def test_close_ends_the_tries(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server, timeout="600s")
        writer: Any = storage.create(NAME, TOKEN)
        writing, results = in_thread(lambda: upload(writer, 100_000, {5: server.kill}))
        wait_for(writing, lambda: writer._upload._recovery is not None)
        storage.close()
        writing.join()
        assert [type(result) for result in results] == [StorageUnavailable], results
        writer.abort()


def failure(writer: Writer, events: Events) -> StorageError:
    """What a writer says when something happens that it cannot go on after."""
    with pytest.raises(StorageError) as caught:
        upload(writer, 100_000, events)
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    return caught.value
