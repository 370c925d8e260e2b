"""Uploads to real WebDAV servers that refuse, stop, put away slowly, or lose their answers."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from pipeline.errors import StorageRefused, StorageUnavailable
from pipeline.naming import part_name
from pipeline.stage import CHUNK
from stages.storages._webdav import upload
from stages.storages._webdav import writer as writer_module
from stages.storages._webdav.names import on_server
from stages.storages._webdav.tree import Place, check_stored, was_moved
from tests.contracts.storage_subject import NAME, TOKEN, everything, names, put, read
from tests.integration.webdav_storage import (
    HASTY,
    MakeStorage,
    Meddler,
    WebdavTests,
    stored_digest,
    write,
    write_all,
)
from tests.servers.base import HOST, small_disk
from tests.servers.http import Answer, HttpSink
from tests.servers.proxy import Proxy
from tests.servers.webdav import Apache, Nginx

CREATED, REPLACED = b"HTTP/1.1 201", b"HTTP/1.1 204"
"""How Apache answers a PUT or a MOVE to a new name, and a PUT over the unfinished object."""


class TestBreaks(WebdavTests):
    @pytest.mark.parametrize("kind", ["apache", "nginx"])
    def test_a_cut_fails_and_leaves_nothing_visible(
        self, request: pytest.FixtureRequest, storage_at: MakeStorage, kind: str
    ) -> None:
        server: Apache | Nginx = request.getfixturevalue(kind)
        with Proxy(server.port) as proxy:
            storage = storage_at(f"http://{HOST}:{proxy.port}/cut")
            writer = storage.create(NAME, TOKEN)
            write(writer, 8)
            proxy.cut()
            with pytest.raises(StorageUnavailable, match="cannot go on with an upload") as caught:
                write(writer, 40)
            assert f"{HOST}:{proxy.port}" in str(caught.value)
            assert names(storage) == []
            writer.abort()
            assert everything(storage) == []
        left = [path.name for path in (server.data / "cut").rglob("*") if path.is_file()]
        assert left == []

    def test_a_small_request_is_made_again(self, apache: Apache, storage_at: MakeStorage) -> None:
        with Proxy(apache.port) as proxy:
            storage = storage_at(f"http://{HOST}:{proxy.port}/again")
            proxy.cut()
            writer = storage.create(NAME, TOKEN)
            digest = write(writer, 3)
            writer.flush()
            proxy.cut()
            writer.commit()
            proxy.cut()
            assert names(storage) == [NAME]
        assert stored_digest(apache, "again") == digest

    def test_the_answer_to_an_upload_gets_lost(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        with Meddler(apache.port) as proxy:
            writer = storage_at(f"http://{HOST}:{proxy.port}/lost-1").create(NAME, TOKEN)
            digest = write(writer, 3)
            proxy.meddle(REPLACED)
            writer.flush()
            writer.commit()
            assert proxy.met == 1
        assert stored_digest(apache, "lost-1") == digest

    def test_the_answer_to_the_claim_gets_lost(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        put(storage_at(apache.url("lost-2")), "shop/crm/before", [b""])
        with Meddler(apache.port) as proxy:
            storage = storage_at(f"http://{HOST}:{proxy.port}/lost-2")
            proxy.meddle(CREATED)
            put(storage, NAME, [b"content"])
            assert proxy.met == 1
            assert read(storage, NAME) == b"content"

    def test_the_answer_to_the_move_gets_lost(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        with Meddler(apache.port) as proxy:
            storage = storage_at(f"http://{HOST}:{proxy.port}/lost-3")
            writer = storage.create(NAME, TOKEN)
            digest = write(writer, 3)
            writer.flush()
            proxy.meddle(CREATED)
            writer.commit()
            assert proxy.met == 1
            assert everything(storage) == [NAME]
        assert stored_digest(apache, "lost-3") == digest

    def test_an_abort_takes_back_a_move_that_nobody_answered(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        with Meddler(apache.port) as proxy:
            url = f"http://{HOST}:{proxy.port}/lost-4"
            storage = storage_at(url, HASTY, timeout="1s")
            writer = storage.create(NAME, TOKEN)
            write(writer, 1)
            writer.flush()
            proxy.meddle(CREATED, delay=30)
            proxy.mute()
            with pytest.raises(StorageUnavailable):
                writer.commit()
            proxy.thaw()
            writer.abort()
        assert everything(storage_at(apache.url("lost-4"))) == []

    def test_a_size_that_is_not_told_is_no_proof(self, storage_at: MakeStorage) -> None:
        told = (
            b'<multistatus xmlns="DAV:"><response><href>/dav/a</href><propstat><prop/>'
            b"<status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"
        )
        place = Place(NAME, part_name(NAME, TOKEN))
        with (
            HttpSink(Answer(status=207, body=told)) as sink,
            storage_at(sink.url("/dav"))._link.session() as session,
        ):
            assert check_stored(session, place, None, "write")
            assert not check_stored(session, place, 5, "write")

    def test_an_abort_comes_before_a_move_that_is_still_under_way(
        self, apache: Apache, storage_at: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = apache.data / "lost-5"
        storage = storage_at(apache.url("lost-5"))
        unanswered = storage.create(NAME, TOKEN)
        write(unanswered, 1)
        unanswered.flush()

        def move_unanswered(*_: object) -> None:
            raise StorageUnavailable("no answer")

        def look_too_early(*asked: Any) -> bool:
            found = was_moved(*asked)
            (directory / on_server(part_name(NAME, TOKEN))).rename(directory / NAME)
            return found

        monkeypatch.setattr(writer_module, "move", move_unanswered)
        monkeypatch.setattr(writer_module, "was_moved", look_too_early)
        with pytest.raises(StorageUnavailable):
            unanswered.commit()
        unanswered.abort()
        assert everything(storage) == []


class TestPutAwaySlowly(WebdavTests):
    def test_a_server_that_answers_other_requests_is_waited_for(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        with Meddler(apache.port) as proxy:
            storage = storage_at(f"http://{HOST}:{proxy.port}/slowly", timeout="1s")
            writer = storage.create(NAME, TOKEN)
            digest = write(writer, 3)
            proxy.meddle(REPLACED, delay=3.5)
            writer.flush()
            writer.commit()
            assert proxy.met == 1
        assert stored_digest(apache, "slowly") == digest

    def test_a_source_may_pause_for_longer_than_the_server_waits(
        self, storage_at: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upload, "_PAUSE_SECONDS", 0.2)
        with Nginx("client_body_timeout 1s;") as server:
            storage = storage_at(server.url("pause"))
            content = os.urandom(2 * CHUNK)
            writer = storage.create(NAME, TOKEN)
            writer.write(content[:CHUNK])
            time.sleep(3)
            writer.write(content[CHUNK:])
            writer.commit()
            assert read(storage, NAME) == content

    def test_a_server_that_lost_its_patience_fails_the_upload(
        self, storage_at: MakeStorage
    ) -> None:
        with Nginx("client_body_timeout 1s;") as server:
            writer = storage_at(server.url("pause")).create(NAME, TOKEN)
            write(writer, 1)
            time.sleep(3)
            with pytest.raises(StorageUnavailable):
                write(writer, 40)
            writer.abort()


class TestNoRoom(WebdavTests):
    def test_more_than_apache_takes(self, apache: Apache, storage_at: MakeStorage) -> None:
        storage = storage_at(apache.url("small"))
        writer = storage.create(NAME, TOKEN)
        with pytest.raises(StorageRefused, match=r"413 .*limits the size of an upload"):
            write_all(writer, 64)
        writer.abort()
        assert everything(storage) == []

    def test_more_than_nginx_takes(self, storage_at: MakeStorage) -> None:
        with Nginx("client_max_body_size 1m;") as server:
            storage = storage_at(server.url("small"))
            writer = storage.create(NAME, TOKEN)
            with pytest.raises(StorageRefused, match=r"413 .*limits the size of an upload"):
                write_all(writer, 64)
            writer.abort()
            assert everything(storage) == []

    def test_a_full_disk_behind_apache(self, storage_at: MakeStorage) -> None:
        server = Apache()
        with small_disk(server) as really:
            storage = storage_at(server.url("full"))
            writer = storage.create(NAME, TOKEN)
            with pytest.raises(StorageRefused if really else StorageUnavailable, match=r"507|500"):
                write_all(writer, 40)
            writer.abort()
            assert everything(storage) == []

    def test_a_full_disk_behind_nginx(self, storage_at: MakeStorage) -> None:
        server = Nginx()
        with small_disk(server):
            storage = storage_at(server.url("full"))
            writer = storage.create(NAME, TOKEN)
            # All that nginx says is 500; so may many other things.
            with pytest.raises(StorageUnavailable, match=r"500 .*a full disk is one reason"):
                write_all(writer, 40)
            writer.abort()
            assert everything(storage) == []


class TestMuchAtOnce(WebdavTests):
    def test_small_chunks_do_not_become_small_requests(
        self, apache: Apache, storage_at: MakeStorage
    ) -> None:
        with Proxy(apache.port) as proxy:
            storage = storage_at(f"http://{HOST}:{proxy.port}/chunks")
            writer = storage.create(NAME, TOKEN)
            before = proxy.sent
            for _ in range(20_000):
                writer.write(b"12345678")
            writer.commit()
            assert proxy.sent - before < 200_000
            assert read(storage, NAME) == b"12345678" * 20_000
