"""SFTP, when the answer to a request is lost that may have been done, or not."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from pipeline.errors import Aborted, StorageUnavailable
from stages.storages._sftp.part import NewPart, Publishing
from stages.storages._sftp.session import Session
from stages.storages._sftp.upload import Upload
from stages.storages._sftp.writer import SftpWriter
from tests.contracts.storage_subject import (
    NAME,
    TOKEN,
    everything,
    names,
    put,
    read,
)
from tests.integration.sftp_storage import (
    MakeStorage,
    SftpTests,
    in_thread,
    part_of,
    wait_for,
    written,
)
from tests.servers.proxy import Proxy
from tests.servers.sshd import Sshd


class TestLostAnswers(SftpTests):
    def test_creating(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            put(storage, f"{NAME}.other", [b"keeps the directory"])
            proxy_muted_by(proxy, monkeypatch, NewPart, "_open")
            creating, results = in_thread(lambda: storage.create(NAME, TOKEN))
            wait_for(creating, part_of(server).exists)
            proxy.cut()
            proxy.thaw()
            creating.join()
            (writer,) = results
            assert isinstance(writer, SftpWriter)
            writer.write(b"content")
            writer.commit()
            assert read(storage, NAME) == b"content"
            storage.delete(names(storage))

    def test_syncing(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer: Any = storage.create(NAME, TOKEN)
            writer.write(b"content")
            proxy_muted_by(proxy, monkeypatch, Upload, "_sync")
            flushing, results = in_thread(writer.flush)
            wait_for(flushing, lambda: proxy_is_mute(proxy) and has_requests(writer))
            proxy.cut()
            proxy.thaw()
            flushing.join()
            assert results == [None]
            writer.commit()
            assert read(storage, NAME) == b"content"
            storage.delete([NAME])

    def test_renaming(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = written(storage)
            proxy_muted_by(proxy, monkeypatch, Publishing, "rename")
            committing, results = in_thread(writer.commit)
            wait_for(committing, (server.data / "backups" / NAME).exists)
            proxy.cut()
            proxy.thaw()
            committing.join()
            assert results == [None]
            assert read(storage, NAME) == b"content"
            assert storage.unfinished("") == []
            storage.delete([NAME])

    def test_abort_takes_back_a_rename(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            writer = written(storage)
            lost = threading.Event()
            rename = Publishing.rename

            async def rename_and_hang(publishing: Publishing, session: Session, size: int) -> None:
                proxy.mute()
                try:
                    await rename(publishing, session, size)
                finally:
                    lost.set()
                    await asyncio.sleep(3600)  # `abort` comes before the next try.

            monkeypatch.setattr(Publishing, "rename", rename_and_hang)
            committing, results = in_thread(writer.commit)
            wait_for(committing, (server.data / "backups" / NAME).exists)
            proxy.cut()
            proxy.thaw()
            lost.wait()
            writer.abort()
            committing.join()
            assert [type(result) for result in results] == [Aborted]
            assert everything(storage) == []

    def test_abort_comes_before_a_rename_that_is_still_under_way(
        self, server: Sshd, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = storage_on(server)
        writer = written(storage)
        was_done = Publishing.was_done

        async def rename_unanswered(publishing: Publishing, *_: object) -> None:
            publishing.may_be_done = True
            raise StorageUnavailable("no answer")

        async def look_too_early(publishing: Publishing, session: Session, size: int) -> bool:
            found = await was_done(publishing, session, size)
            part_of(server).rename(server.data / "backups" / NAME)
            return found

        monkeypatch.setattr(Publishing, "rename", rename_unanswered)
        monkeypatch.setattr(Publishing, "was_done", look_too_early)
        with pytest.raises(StorageUnavailable):
            writer.commit()
        writer.abort()
        assert everything(storage) == []

    def test_deleting(self, server: Sshd, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, port=proxy.port)
            put(storage, NAME, [b"content"])
            assert names(storage) == [NAME]
            proxy.mute()
            deleting, results = in_thread(lambda: storage.delete([NAME]))
            time.sleep(0.3)  # Before or after the request: both must do.
            proxy.cut()
            proxy.thaw()
            deleting.join()
            assert results == [None]
            assert everything(storage) == []


def proxy_muted_by(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
    """Have the first call of a method get no answer from the server."""
    original = getattr(owner, method)
    calls = []

    async def muting(*args: Any) -> Any:
        if not calls:
            proxy.mute()
        calls.append(method)
        return await original(*args)

    monkeypatch.setattr(owner, method, muting)


def proxy_is_mute(proxy: Proxy) -> bool:
    return proxy._mute


def has_requests(writer: Any) -> bool:
    """Whether a server owes a writer an answer."""
    return bool(writer._upload._session._handler._requests)
