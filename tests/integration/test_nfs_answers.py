"""NFS against a real server: answers that are lost on the way, publishing, and reading."""

from __future__ import annotations

import os
import secrets
import threading
from typing import Any

import pytest

from pipeline.errors import Aborted, StorageRefused, StorageUnavailable
from pipeline.naming import part_name
from pipeline.stage import CHUNK
from stages.storages._nfs import calls as nfs
from stages.storages._nfs.target import Target
from stages.storages._nfs.types import Found, NfsError, Status
from tests.contracts.storage_subject import NAME, OTHER_TOKEN, TOKEN, everything, put, read
from tests.integration.nfs_storage import (
    MakeStorage,
    NfsTests,
    in_thread,
    path_of,
    set_size,
    some_chunks,
    works,
)
from tests.servers.nfs import Ganesha
from tests.servers.proxy import Proxy

PART = part_name(NAME, TOKEN)


def finished_writer(storage: Any) -> tuple[Any, bytes]:
    """A writer that has only to publish, and the handle of the directory it does that in."""
    writer = storage.create(NAME, TOKEN)
    writer.write(b"content")
    writer.flush()
    return writer, writer._target._tree.directory(writer._target._place.directory)


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that knows no hard links."""

    def refuse(*_: object) -> None:
        raise NfsError(Status.NOTSUPP)

    monkeypatch.setattr(Target, "link", refuse)


class TestLostAnswers(NfsTests):
    @pytest.mark.parametrize("way", ["link", "rename"])
    def test_publishing(self, server: Ganesha, storage_on: MakeStorage, way: str) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, nfs_port=proxy.port)
            writer, directory = finished_writer(storage)
            target, final = writer._target, path_of(server, storage, NAME)
            arguments = (target.find_handle(), directory) if way == "link" else (directory,)
            proxy.mute()
            thread, results = in_thread(lambda: getattr(target, way)(*arguments))
            while not final.exists():
                assert not results
            proxy.cut()
            proxy.thaw()
            thread.join()
            assert results == [None]
            assert read(storage, NAME) == b"content"

    def test_creating(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage: Any = storage_on(server, nfs_port=proxy.port, path="")
            name, once = secrets.token_hex(8), secrets.token_bytes(8)
            with storage._client.session("create") as session:
                top = storage._tree(session).directory("")
                proxy.mute()
                create = nfs.create_exclusive(top, name, once)
                thread, results = in_thread(lambda: session.call(create))
                while not (server.data / name).exists():
                    assert not results
                proxy.cut()
                proxy.thaw()
                thread.join()
            assert isinstance(results[0], Found)

    def test_deleting(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage: Any = storage_on(server, nfs_port=proxy.port)
            put(storage, NAME, [b"content"])
            final = path_of(server, storage, NAME)
            with storage._client.session("delete") as session:
                tree = storage._tree(session)
                directory, _, base = NAME.rpartition("/")
                handle = tree.directory(directory)
                tree.directory = lambda _: handle
                proxy.mute()
                thread, results = in_thread(lambda: tree._remove_from(directory, [base]))
                while final.exists():
                    assert not results
                proxy.cut()
                proxy.thaw()
                thread.join()
            assert results == [[]]

    def test_abort_takes_back_a_link_that_nobody_heard_of(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, nfs_port=proxy.port)
            writer, directory = finished_writer(storage)
            handle = writer._target.find_handle()
            proxy.mute()
            thread, results = in_thread(lambda: writer._target.link(handle, directory))
            while not path_of(server, storage, NAME).exists():
                assert not results
            aborting = threading.Thread(target=writer.abort)
            aborting.start()
            thread.join()
            assert [type(result) for result in results] == [Aborted]
            proxy.thaw()
            aborting.join()
            assert everything(storage) == []


class TestPublishing(NfsTests):
    def test_without_links(self, server: Ganesha, storage_on: MakeStorage, no_links: None) -> None:
        assert works(storage_on(server))

    def test_an_object_is_spared_without_links(
        self, server: Ganesha, storage_on: MakeStorage, no_links: None
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"second")
        put(storage, NAME, [b"first"], OTHER_TOKEN)
        with pytest.raises(StorageRefused, match="already exists"):
            writer.commit()
        writer.abort()
        assert read(storage, NAME) == b"first"
        assert everything(storage) == [NAME]

    def test_abort_spares_an_object_of_another(
        self, server: Ganesha, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        storage.sweep([PART])
        put(storage, NAME, [b"content"], OTHER_TOKEN)  # Often gets the same inode.
        writer.abort()
        assert read(storage, NAME) == b"content"


class TestReading(NfsTests):
    def test_cut_again_and_again(self, server: Ganesha, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(server, nfs_port=proxy.port)
            chunks = some_chunks(40)
            put(storage, NAME, chunks)
            content = b""
            for number, chunk in enumerate(storage.open(NAME)):
                content += chunk
                if number % 6 == 3:
                    proxy.cut()
            assert content == b"".join(chunks)

    def test_server_killed_and_back(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
            storage = storage_on(server)
            chunks = some_chunks(40)
            put(storage, NAME, chunks)
            reader = storage.open(NAME)
            content = next(reader)
            server.kill()
            server.start()
            assert content + b"".join(reader) == b"".join(chunks)

    def test_server_killed(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
            storage = storage_on(server, timeout="500ms")
            put(storage, NAME, some_chunks(40))
            reader = storage.open(NAME)
            next(reader)
            server.kill()
            with pytest.raises(StorageUnavailable, match=r"lost the connection .* 0\.5 s"):
                list(reader)

    def test_server_frozen(self, storage_on: MakeStorage) -> None:
        with Ganesha() as server:
            storage = storage_on(server, timeout="500ms")
            put(storage, NAME, some_chunks(40))
            reader = storage.open(NAME)
            next(reader)
            server.freeze()
            with pytest.raises(StorageUnavailable, match="no answer"):
                list(reader)

    def test_truncated(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, [bytes(CHUNK)] * 40)
        reader = storage.open(NAME)
        next(reader)
        set_size(storage, NAME, 20 * CHUNK + 7)
        with pytest.raises(StorageRefused, match="ended early"):
            list(reader)

    def test_deleted(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, [bytes(CHUNK)] * 40)
        reader = storage.open(NAME)
        next(reader)
        storage.delete([NAME])
        with pytest.raises(StorageRefused, match=f'"{NAME}" does not exist'):
            list(reader)

    def test_replaced(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        put(storage, NAME, [bytes(CHUNK)] * 40)
        reader = storage.open(NAME)
        next(reader)
        storage.delete([NAME])
        put(storage, NAME, [os.urandom(CHUNK)] * 40)
        with pytest.raises(StorageUnavailable, match="was replaced"):
            list(reader)

    def test_empty_connections_are_shared(self, server: Ganesha, storage_on: MakeStorage) -> None:
        storage: Any = storage_on(server)
        for number in range(20):
            put(storage, f"a/{number}", [b"content"])
            assert read(storage, f"a/{number}") == b"content"
        assert len(storage._client._sessions) == 1
