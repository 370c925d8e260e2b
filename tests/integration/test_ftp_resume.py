"""FTP uploads that break and go on: what arrives is whole, or nothing is committed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.naming import part_name
from pipeline.stage import CHUNK, Writer
from stages.storages._ftp.link import Patience
from stages.storages._ftp.writer import WINDOW_BYTES
from stages.storages.ftp import Ftp
from tests.contracts.storage_subject import NAME, TOKEN, everything, read
from tests.integration.ftp_storage import (
    HASTY,
    IN_THE_CLEAR,
    PATIENT,
    FtpTests,
    MakeStorage,
    chunk,
    proxy_before,
    stored_digest,
    upload,
    upload_disturbed,
    works,
)
from tests.servers.ftp import FAR_HOST, Ftpd
from tests.servers.ftp_proxy import FtpProxy

WINDOW = WINDOW_BYTES // CHUNK


def part_of(server: Ftpd) -> Path:
    return server.data / "backups" / part_name(NAME, TOKEN)


def failure(writer: Writer, events: dict[int, Callable[[], None]]) -> StorageError:
    """What a writer says when something happens that it cannot go on after."""
    with pytest.raises(StorageError) as caught:
        upload(writer, 100_000, events)
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    return caught.value


class TestGoingOn(FtpTests):
    @pytest.mark.parametrize("secure", [True, False])
    def test_network_is_cut_again_and_again(
        self, server: Ftpd, storage_on: MakeStorage, secure: bool
    ) -> None:
        changes: dict[str, Any] = {} if secure else {"tls": IN_THE_CLEAR}
        with proxy_before(server) as proxy:
            storage = storage_on(server, PATIENT, host=FAR_HOST, **changes)
            cuts = {at: proxy.cut for at in (0, 1, 60, 61, 130, 255)}
            upload_disturbed(server, storage, 256, cuts)
            # Only what was on its way was sent again.
            assert proxy.sent < (256 + len(cuts) * WINDOW) * CHUNK

    def test_network_is_cut_while_data_is_stuck(
        self, server: Ftpd, storage_on: MakeStorage
    ) -> None:
        with proxy_before(server) as proxy:
            storage = storage_on(server, PATIENT, host=FAR_HOST)
            writer = storage.create(NAME, TOKEN)
            upload(writer, 4, {})
            proxy.freeze()

            def cut_when_stuck() -> None:
                stuck = -1
                while stuck != (stuck := writer._sent):  # type: ignore[attr-defined]
                    threading.Event().wait(0.2)
                proxy.cut()
                proxy.thaw()

            cutter = threading.Thread(target=cut_when_stuck)
            cutter.start()
            for number in range(4, 40):
                writer.write(chunk(number))
            writer.commit()
            cutter.join()
            assert read(storage, NAME) == b"".join(map(chunk, range(40)))
            storage.delete([NAME])

    @pytest.mark.parametrize("broken", ["control", "data"])
    def test_one_of_the_connections_is_cut(
        self, server: Ftpd, storage_on: MakeStorage, broken: str
    ) -> None:
        with proxy_before(server) as proxy:
            storage = storage_on(server, PATIENT, host=FAR_HOST)

            def cut() -> None:
                proxy.cut_only(control=broken == "control")

            upload_disturbed(server, storage, 40, {10: cut, 39: cut})

    def test_server_is_killed_and_comes_back(self, storage_on: MakeStorage) -> None:
        with Ftpd() as server:
            storage = storage_on(server, PATIENT)

            def restart() -> None:
                server.kill()
                server.start()

            upload_disturbed(server, storage, 60, {20: restart, 45: restart})

    def test_server_comes_back_later(self, storage_on: MakeStorage) -> None:
        with Ftpd() as server:
            storage = storage_on(server, PATIENT)
            done = threading.Event()

            def start_later() -> None:
                done.wait(1)
                server.start()
                done.wait()  # The server ends with the thread that started it.

            starter = threading.Thread(target=start_later)

            def kill() -> None:
                server.kill()
                starter.start()

            upload_disturbed(server, storage, 30, {20: kill})
            done.set()
            starter.join()

    def test_server_freezes_and_thaws(self, storage_on: MakeStorage) -> None:
        with Ftpd() as server:
            storage = storage_on(server, PATIENT, timeout="500ms", connect_timeout="1s")
            later = threading.Timer(2.0, server.thaw)

            def freeze() -> None:
                server.freeze()
                later.start()

            upload_disturbed(server, storage, 60, {20: freeze})
            later.join()

    def test_server_ends_idle_sessions(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="TimeoutIdle 1\n") as server:
            storage = storage_on(server, PATIENT)
            writer = storage.create(NAME, TOKEN)
            digest = upload(writer, 3, {})
            writer.flush()
            while len(server.processes()) > 1:
                assert not writer._ended.is_set()  # type: ignore[attr-defined]
            writer.commit()
            assert stored_digest(server) == digest

    def test_writing_goes_on_after_a_flush(self, server: Ftpd, storage_on: MakeStorage) -> None:
        storage = storage_on(server, PATIENT)
        writer = storage.create(NAME, TOKEN)
        pieces = [b"a", b"b" * CHUNK, b"c"]
        for piece in pieces:
            writer.write(piece)
            writer.flush()
        writer.commit()
        assert read(storage, NAME) == b"".join(pieces)
        storage.delete([NAME])

    def test_server_that_can_only_append(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="DenyFilter ^[0-9][0-9]+$\n") as server, proxy_before(server) as proxy:
            storage = storage_on(server, PATIENT, host=FAR_HOST)
            upload_disturbed(server, storage, 60, {20: proxy.cut, 40: proxy.cut})

    def test_last_reply_is_lost(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with proxy_before(server) as proxy:
            storage = storage_on(server, PATIENT, host=FAR_HOST)
            writer = storage.create(NAME, TOKEN)
            digest = upload(writer, 20, {})
            proxy.mute()
            flushing = threading.Thread(target=writer.flush)
            flushing.start()
            while part_of(server).stat().st_size < 20 * CHUNK:
                assert flushing.is_alive()
            sent = proxy.sent
            proxy.cut()
            proxy.thaw()
            flushing.join()
            writer.commit()
            assert proxy.sent < sent + 2 * CHUNK
            assert stored_digest(server) == digest
            storage.delete([NAME])

    def test_a_rename_whose_answer_was_lost_is_looked_up(
        self, server: Ftpd, storage_on: MakeStorage
    ) -> None:
        with proxy_before(server) as proxy:
            storage = storage_on(server, PATIENT, host=FAR_HOST)
            writer = written(storage)
            cutter = hold_back_answer_of_rename(proxy, writer)
            writer.commit()
            cutter.join()
            assert read(storage, NAME) == b"content"
            assert storage.unfinished("") == []
            storage.delete([NAME])

    def test_abort_takes_back_a_rename_whose_answer_was_lost(
        self, server: Ftpd, storage_on: MakeStorage
    ) -> None:
        with proxy_before(server) as proxy:
            storage = storage_on(server, Patience(first_delay=60), host=FAR_HOST)
            writer = written(storage)
            cutter = hold_back_answer_of_rename(proxy, writer, writer.abort)
            with pytest.raises(Aborted):
                writer.commit()
            cutter.join()
            assert everything(storage) == []


def written(storage: Ftp) -> Any:
    writer = storage.create(NAME, TOKEN)
    writer.write(b"content")
    writer.flush()
    return writer


def hold_back_answer_of_rename(
    proxy: FtpProxy, writer: Any, then: Callable[[], None] = lambda: None
) -> threading.Thread:
    """Have the connection cut between the rename and its answer."""
    client = writer._client

    def rename(part: str, final: str) -> None:
        client.sendcmd(f"RNFR {part}")
        proxy.mute()
        cutter.start()
        client.voidcmd(f"RNTO {final}")

    def cut() -> None:
        while not Path(writer._place.final_path).exists():
            pass
        proxy.cut()
        proxy.thaw()
        then()

    client.rename = rename
    cutter = threading.Thread(target=cut)
    return cutter


class TestGivingUp(FtpTests):
    @pytest.fixture
    @classmethod
    def server(cls) -> Iterator[Ftpd]:
        with Ftpd() as ftpd:  # One for each test: they kill it.
            yield ftpd

    def test_server_that_stays_away(self, server: Ftpd, storage_on: MakeStorage) -> None:
        error = failure(storage_on(server, HASTY).create(NAME, TOKEN), {20: server.kill})
        assert isinstance(error, StorageUnavailable)
        assert "cannot be reached: connection refused; gave up after 0.5 s" in str(error)
        server.start()
        storage = storage_on(server)
        storage.sweep(storage.unfinished(""))
        assert works(storage)

    def test_server_that_stays_frozen(self, server: Ftpd, storage_on: MakeStorage) -> None:
        storage = storage_on(server, HASTY, timeout="300ms", connect_timeout="1s")
        error = failure(storage.create(NAME, TOKEN), {20: server.freeze})
        assert isinstance(error, StorageUnavailable)
        assert "did not answer within 1 s" in str(error)

    def test_server_that_lets_no_upload_go_on(self, storage_on: MakeStorage) -> None:
        with Ftpd(more="AllowStoreRestart off\n") as server, proxy_before(server) as proxy:
            storage = storage_on(server, PATIENT, host=FAR_HOST)
            error = failure(storage.create(NAME, TOKEN), {20: proxy.cut})
            assert isinstance(error, StorageUnavailable)
            assert "lost the connection" in str(error)
            assert "does not let it go on" in str(error)
            assert everything(storage) == []

    @pytest.mark.parametrize(
        ("change", "kind", "message"),
        [
            (lambda file: file.truncate(CHUNK), StorageUnavailable, "and only those after"),
            (lambda file: file.write(bytes(60 * CHUNK)), StorageRefused, "were sent"),
            (lambda file: (file.seek(-9, 2), file.write(b"x")), StorageRefused, "other bytes"),
        ],
        ids=["less", "more", "other"],
    )
    def test_server_that_has_something_else(
        self,
        server: Ftpd,
        storage_on: MakeStorage,
        change: Callable[[IO[bytes]], object],
        kind: type[StorageError],
        message: str,
    ) -> None:
        def tamper() -> None:
            server.kill()
            with open(part_of(server), "r+b") as file:
                file.seek(0, 2)
                change(file)
            server.start()

        error = failure(storage_on(server, HASTY).create(NAME, TOKEN), {40: tamper})
        assert type(error) is kind
        assert message in str(error)

    def test_object_that_was_removed_meanwhile(self, server: Ftpd, storage_on: MakeStorage) -> None:
        with proxy_before(server) as proxy:

            def remove() -> None:
                part_of(server).unlink()
                proxy.cut()

            storage = storage_on(server, PATIENT, host=FAR_HOST)
            error = failure(storage.create(NAME, TOKEN), {5: remove})
            assert isinstance(error, StorageRefused)
            assert "was removed while it was being written" in str(error)

    def test_bytes_that_the_server_lost_are_noticed(
        self, server: Ftpd, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = written(storage)
        os.truncate(part_of(server), 3)
        with pytest.raises(StorageRefused, match="holds 3 bytes"):
            writer.commit()
        writer.abort()
        assert everything(storage) == []

    def test_abort_ends_the_tries(self, server: Ftpd, storage_on: MakeStorage) -> None:
        writer = storage_on(server, Patience(first_delay=60)).create(NAME, TOKEN)
        lost = threading.Event()

        def kill() -> None:
            server.kill()
            lost.set()

        def write() -> None:
            with pytest.raises(Aborted):
                upload(writer, 100_000, {5: kill})
            ended.append(True)

        ended: list[bool] = []
        thread = threading.Thread(target=write)
        thread.start()
        lost.wait()
        writer.abort()
        thread.join()
        assert ended == [True]
