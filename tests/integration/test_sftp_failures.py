"""SFTP against a real OpenSSH server: what can go wrong on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK, Writer
from pipeline.tryout import try_out
from stages.storages.sftp import Sftp
from tests.contracts.storage_subject import NAME, OTHER_TOKEN, TOKEN, everything, put, read
from tests.integration.sftp_storage import (
    HASTY,
    MakeStorage,
    SftpTests,
    part_of,
    sftp_sessions,
    works,
)
from tests.servers.base import GID, HOST, IS_ROOT, UID, free_port, small_disk
from tests.servers.proxy import Proxy
from tests.servers.sshd import Sshd


def write_forever(writer: Writer) -> None:
    while True:
        writer.write(bytes(CHUNK))


def write_until_error(storage: Sftp, disturb: Callable[[], None]) -> StorageError:
    """What a writer says when something happens in the middle of its upload."""
    writer = storage.create(NAME, TOKEN)
    for _ in range(4):
        writer.write(os.urandom(CHUNK))
    disturb()
    with pytest.raises(StorageError) as caught:
        write_forever(writer)
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    return caught.value


class TestConnection(SftpTests):
    def test_refused(self, server: Sshd, storage_on: MakeStorage) -> None:
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            storage_on(server, port=free_port()).list("")

    def test_silent_server(self, server: Sshd, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as silent:
            storage = storage_on(server, port=silent.getsockname()[1], connect_timeout="300ms")
            with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.3 s"):
                storage.list("")

    def test_not_an_ssh_server(self, server: Sshd, storage_on: MakeStorage) -> None:
        with socket.create_server((HOST, 0)) as other:

            def answer() -> None:
                connection, _ = other.accept()
                with connection, suppress(ConnectionError):
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 5000)

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(StorageRefused, match="does not speak SSH"):
                storage_on(server, port=other.getsockname()[1]).list("")
            thread.join()

    def test_no_sftp(self, storage_on: MakeStorage) -> None:
        with (
            Sshd(subsystem=False) as server,
            pytest.raises(StorageRefused, match="offers no SFTP"),
        ):
            storage_on(server).list("")

    def test_few_sessions_for_each_connection(self, storage_on: MakeStorage) -> None:
        with Sshd(max_sessions=1) as server:
            storage = storage_on(server)
            writers = [storage.create(f"a/{number}", TOKEN) for number in range(3)]
            for writer in writers:
                writer.write(b"content")
                writer.commit()
            assert len(storage.list("a")) == 3

    def test_a_connection_that_died_unused_is_replaced(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            assert works(storage)
            proxy.cut()
            assert works(storage)

    def test_nothing_is_started_or_written_by_the_import(self, tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        strace = ["strace", "-f", "-e", "trace=execve,openat,creat", "-o", str(trace)]
        code = [sys.executable, "-B", "-c", "import stages.storages.sftp"]
        subprocess.run(strace + code, check=True)
        calls = trace.read_text()
        assert calls.count("execve(") == 1
        assert "O_CREAT" not in calls
        assert "creat(" not in calls


class TestFailure(SftpTests):
    def test_server_killed_during_an_upload(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server, **HASTY)
            error = write_until_error(storage, server.kill)
            assert isinstance(error, StorageUnavailable)
            assert "gave up after 1 s without progress" in str(error)
            server.start()
            assert len(storage.unfinished("")) == 1
            storage.sweep(storage.unfinished(""))
            assert works(storage)

    def test_server_frozen_during_an_upload(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server, **HASTY)
            error = write_until_error(storage, server.freeze)
            assert isinstance(error, StorageUnavailable)
            assert "gave up after 1 s without progress" in str(error)
            server.thaw()
            storage.sweep(storage.unfinished(""))
            assert works(storage)

    def test_server_frozen_during_a_download(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server, **HASTY)
            put(storage, NAME, [bytes(CHUNK)] * 40)
            chunks = storage.open(NAME)
            next(chunks)
            server.freeze()
            with pytest.raises(StorageUnavailable, match="gave up after 1 s without progress"):
                list(chunks)

    def test_a_silent_session_is_noticed_though_its_connection_lives(
        self, storage_on: MakeStorage
    ) -> None:
        with Sshd() as server:
            storage = storage_on(server, timeout="2s")
            writer = storage.create(NAME, TOKEN)
            (session,) = sftp_sessions(server)
            os.kill(session, signal.SIGSTOP)
            writer.write(b"content")
            writer.commit()  # Through another session.
            assert read(storage, NAME) == b"content"
            assert session in sftp_sessions(server)
            server.thaw()

    def test_frozen_server_and_a_full_window_do_not_block_abort(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = storage.create(NAME, TOKEN)
            proxy.freeze()
            ends: list[type[BaseException]] = []

            def write() -> None:
                try:
                    writer.write(bytes(40 * CHUNK))
                except Aborted as end:
                    ends.append(type(end))

            thread = threading.Thread(target=write)
            thread.start()
            while writer._window._has_room(1, CHUNK):  # type: ignore[attr-defined]
                pass
            aborting = threading.Thread(target=writer.abort)
            aborting.start()
            thread.join()
            assert ends == [Aborted]
            proxy.thaw()  # Now the removal gets through.
            aborting.join()
            assert everything(storage) == []

    def test_rename_spares_an_object_that_came_between(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer: Any = storage.create(NAME, TOKEN)
        put(storage, NAME, [b"first"], OTHER_TOKEN)
        # Without the look right before: it came after that.
        publishing, session = writer._upload._publishing, writer._upload._session
        with pytest.raises(StorageRefused, match="already exists"):
            writer._link.run(publishing.rename(session, 0))
        assert read(storage, NAME) == b"first"
        writer.abort()
        storage.delete([NAME])

    def test_bytes_that_the_server_lost_are_noticed(
        self, server: Sshd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        writer.flush()
        os.truncate(part_of(server), 3)
        with pytest.raises(StorageRefused, match="holds 3 bytes"):
            writer.commit()
        writer.abort()
        assert everything(storage) == []

    def test_no_session_outlives_its_reader_or_writer(self, storage_on: MakeStorage) -> None:
        with Sshd() as server:
            storage = storage_on(server)
            put(storage, NAME, [bytes(CHUNK)] * 20)
            idle = len(server.processes())
            aborted = [storage.create(f"b/{number}", TOKEN) for number in range(3)]
            for number, writer in enumerate(aborted):
                writer.abort()
                next(storage.open(NAME))
                storage.create(f"a/{number}", TOKEN)
            while len(server.processes()) > idle:  # They go in their own time.
                assert storage.list("shop")

    def test_close_ends_what_is_under_way(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        storage.close()
        with pytest.raises(StorageUnavailable, match="closed"):
            write_forever(writer)
        writer.abort()
        storage.sweep(storage.unfinished(""))

    def test_truncated_object(self, server: Sshd, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, [bytes(CHUNK)] * 40)
        chunks = storage.open(NAME)
        next(chunks)
        os.truncate(server.data / "backups" / NAME, 20 * CHUNK)
        with pytest.raises(StorageRefused, match="ended early"):
            list(chunks)
        storage.delete([NAME])

    def test_disk_full(self, storage_on: MakeStorage) -> None:
        server = Sshd()
        with small_disk(server) as is_small:
            storage = storage_on(server)
            error = write_until_error(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert is_small == ("no space left on the server" in str(error))
            assert is_small != ("it does not say why" in str(error))
            assert everything(storage) == []
            assert works(storage)

    def test_file_size_limit(self, storage_on: MakeStorage) -> None:
        with Sshd(fsize=8 * CHUNK) as server:
            storage = storage_on(server)
            error = write_until_error(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert "it does not say why" in str(error)
            assert everything(storage) == []

    def test_directory_that_cannot_be_written(self, server: Sshd, storage_on: MakeStorage) -> None:
        closed = server.data / "closed"
        closed.mkdir()
        closed.chmod(0o555)
        if IS_ROOT:
            os.chown(closed, UID, GID)
        for path in (closed, closed / "below"):
            storage = storage_on(server, path=str(path))
            with pytest.raises(StorageRefused, match="did not permit to write"):
                storage.create(NAME, TOKEN)
            with pytest.raises(StorageRefused, match="did not permit to write"):
                try_out(storage)

    def test_files_are_private(self, server: Sshd, storage_on: MakeStorage) -> None:
        put(storage_on(server), NAME, [b"content"], OTHER_TOKEN)
        path = server.data / "backups" / NAME
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o007 == 0
