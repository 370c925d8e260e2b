"""FTP servers that say no, or say nothing: each has a typed error, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from pipeline.errors import StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK, Storage
from pipeline.tryout import try_out
from tests.contracts.storage_subject import NAME, OTHER_TOKEN, TOKEN, everything, put, read
from tests.integration.ftp_storage import (
    HASTY,
    IN_THE_CLEAR,
    FtpTests,
    MakeStorage,
    chunk,
    proxy_before,
    upload,
    works,
)
from tests.servers.base import GID, IS_ROOT, UID, small_disk
from tests.servers.ftp import FAR_HOST, PASSWORD, Ftpd

MIB = 1 << 20


def refusal(storage: Storage) -> StorageError:
    """What a writer says whose server stops to take data; nothing is left."""
    writer = storage.create(NAME, TOKEN)
    with pytest.raises(StorageError) as caught:
        upload(writer, 1000, {})
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    assert everything(storage) == []
    return caught.value


class TestWriting(FtpTests):
    @pytest.mark.parametrize("tls", [True, False])
    def test_disk_full(self, storage_on: MakeStorage, tls: bool) -> None:
        changes: dict[str, Any] = {} if tls else {"tls": IN_THE_CLEAR}
        server = Ftpd()
        with small_disk(server) as is_small:
            storage = storage_on(server, **changes)
            error = refusal(storage)
            assert is_small == isinstance(error, StorageRefused)
            assert is_small == ("no space left on the server" in str(error))
            assert works(storage)

    def test_file_size_limit(self, storage_on: MakeStorage) -> None:
        with Ftpd(fsize=8 * CHUNK) as server:
            error = refusal(storage_on(server, HASTY))
            assert "could not write" in str(error)

    def test_server_limit_of_a_file(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="MaxStoreFileSize 8 Mb\n") as server:
            error = refusal(storage_on(server, HASTY))
            assert isinstance(error, StorageRefused)

    def test_directory_that_cannot_be_written(self, server: Ftpd, storage_on: MakeStorage) -> None:
        closed = server.data / "closed"
        closed.mkdir()
        closed.chmod(0o555)
        if IS_ROOT:
            os.chown(closed, UID, GID)
        for path in (closed, closed / "below"):
            storage = storage_on(server, path=str(path))
            with pytest.raises(StorageRefused, match="did not permit to write"):
                storage.create(NAME, TOKEN)
            with pytest.raises(StorageRefused):
                try_out(storage)

    def test_path_that_is_a_file(self, server: Ftpd, storage_on: MakeStorage) -> None:
        (server.data / "file").touch()
        with pytest.raises(StorageRefused, match="refused to write"):
            storage_on(server, path=str(server.data / "file")).create(NAME, TOKEN)

    def test_object_that_came_between(self, server: Ftpd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        put(storage, NAME, [b"first"], OTHER_TOKEN)
        with pytest.raises(StorageRefused, match="already exists"):
            writer.commit()
        writer.abort()
        assert read(storage, NAME) == b"first"
        storage.delete([NAME])

    def test_slow_server_does_not_make_memory_grow(
        self, server: Ftpd, storage_on: MakeStorage
    ) -> None:
        with proxy_before(server, rate=48 * MIB) as proxy:
            storage = storage_on(server, host=FAR_HOST)
            values = json.loads(storage._spec.model_dump_json(exclude_unset=True))
            spec = json.dumps({**values, "password": PASSWORD})
            push = [sys.executable, "-m", "tests.contracts.push_object", spec, NAME, TOKEN, "128"]
            process = subprocess.run(push, stdout=subprocess.PIPE, check=True)
            grown = [int(line) for line in process.stdout.split()]
            assert max(grown) < storage.memory + 10 * MIB
            assert proxy.sent > 128 * MIB
            storage.delete([NAME])


class TestReading(FtpTests):
    def test_connection_is_cut(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with proxy_before(server) as proxy:
            storage = storage_on(server, host=FAR_HOST)
            put(storage, NAME, map(chunk, range(80)))
            chunks = storage.open(NAME)
            next(chunks)
            proxy.cut()
            with pytest.raises(StorageUnavailable, match="lost the connection"):
                list(chunks)
            storage.delete([NAME])

    @pytest.mark.parametrize("tls", [True, False])
    def test_server_freezes(self, storage_on: MakeStorage, tls: bool) -> None:
        changes: dict[str, Any] = {} if tls else {"tls": IN_THE_CLEAR}
        with Ftpd() as server:
            storage = storage_on(server, timeout="300ms", **changes)
            put(storage, NAME, map(chunk, range(80)))
            chunks = storage.open(NAME)
            next(chunks)
            server.freeze()
            with pytest.raises(StorageUnavailable, match="it sent no data any more"):
                list(chunks)

    def test_truncated_object(self, server: Ftpd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, map(chunk, range(80)))
        chunks = storage.open(NAME)
        next(chunks)
        os.truncate(server.data / "backups" / NAME, 60 * CHUNK)
        with pytest.raises(StorageRefused, match="ended early"):
            list(chunks)
        storage.delete([NAME])

    def test_object_that_may_not_be_read(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="<Limit RETR>\nDenyAll\n</Limit>\n") as server:
            storage = storage_on(server)
            put(storage, NAME, [b"content"])
            with pytest.raises(StorageRefused, match="did not permit to read"):
                read(storage, NAME)

    def test_object_that_may_not_be_deleted(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="<Limit DELE>\nDenyAll\n</Limit>\n") as server:
            storage = storage_on(server)
            for name in ("a", "b"):
                put(storage, name, [b"content"])
            with pytest.raises(StorageRefused, match='did not permit to delete "a"'):
                storage.delete(["a", "missing", "b"])

    def test_two_readers_at_once(self, server: Ftpd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, map(chunk, range(20)))
        found: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: found.append(read(storage, NAME))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [b"".join(map(chunk, range(20)))] * 2
        storage.delete([NAME])
