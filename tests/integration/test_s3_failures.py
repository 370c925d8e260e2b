"""S3 when something happens on the way: uploads go on, or end cleanly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK, Writer
from stages.storages._s3.fetch import Fetcher, Wanted
from stages.storages._s3.read import Reader
from stages.storages._s3.service import Patience
from stages.storages.s3 import S3
from tests.contracts.storage_subject import NAME, TOKEN, everything, put, read
from tests.integration.s3_storage import (
    PART,
    QUICK,
    MakeStorage,
    server,
    storage_on,
    works,
    write_parts,
)
from tests.servers.proxy import Proxy
from tests.servers.s3 import ACCESS_KEY, BUCKET, REASON, SECRET_KEY, Versitygw, can_run

__all__ = ["server", "storage_on"]

# The first test may have to build the server.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not can_run(), reason=REASON),
]


@pytest.fixture
def victim() -> Iterator[Versitygw]:
    """A server of one's own, to be maltreated."""
    with Versitygw() as server:
        yield server


def write_forever(writer: Writer) -> None:
    while True:
        writer.write(bytes(CHUNK))


def write_until_error(storage: S3, disturb: Callable[[], None]) -> StorageError:
    """What a writer says when something happens in the middle of its upload."""
    writer = storage.create(NAME, TOKEN)
    write_parts(writer, 2)
    disturb()
    with pytest.raises(StorageError) as caught:
        write_forever(writer)
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    return caught.value


class TestUpload:
    def test_goes_on_when_the_server_comes_back(
        self, victim: Versitygw, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(victim)
        writer = storage.create(NAME, TOKEN)
        written = [write_parts(writer, 2)]
        victim.kill()

        def write_on() -> None:
            written.append(write_parts(writer, 4))
            writer.commit()

        # In a thread, since a server ends with the thread that has started it.
        writing = threading.Thread(target=write_on)
        writing.start()
        time.sleep(1)
        assert writing.is_alive()
        victim.start()
        writing.join()
        assert read(storage, NAME) == b"".join(written)
        assert everything(storage) == [NAME]

    def test_goes_on_when_the_connection_was_cut(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(proxy)
            writer = storage.create(NAME, TOKEN)
            content = b""
            for _ in range(4):
                sent = proxy.sent
                content += write_parts(writer, 2)
                proxy.wait_sent(sent + PART // 2)
                proxy.cut()
            writer.flush()
            proxy.cut()
            writer.commit()
            assert read(storage, NAME) == content
            storage.delete([NAME])
            assert everything(storage) == []

    def test_goes_on_after_standing_still(self, server: Versitygw, storage_on: MakeStorage) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(proxy, Patience(), timeout="500ms")
            writer = storage.create(NAME, TOKEN)
            content = write_parts(writer, 1)
            proxy.freeze()
            thaw = threading.Timer(1.2, proxy.thaw)
            thaw.start()
            content += write_parts(writer, 3)
            writer.commit()
            thaw.join()
            assert read(storage, NAME) == content
            storage.delete([NAME])

    def test_a_slow_part_is_not_given_up_while_it_moves(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port, 4 << 20) as proxy:
            # A part takes longer than this, and nothing stands still for so long.
            storage = storage_on(proxy, QUICK, timeout="700ms", parallel=1)
            writer = storage.create(NAME, TOKEN)
            content = write_parts(writer, 2)
            writer.commit()
        storage = storage_on(server)
        assert read(storage, NAME) == content
        storage.delete([NAME])

    def test_server_killed_for_good(self, victim: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(victim, QUICK)
        error = write_until_error(storage, victim.kill)
        assert isinstance(error, StorageUnavailable)
        victim.start()
        storage.sweep(storage.unfinished(""))
        assert everything(storage) == []
        assert works(storage)

    def test_frozen_server(self, victim: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(victim, QUICK, timeout="500ms")
        error = write_until_error(storage, victim.freeze)
        assert isinstance(error, StorageUnavailable)
        assert f'"127.0.0.1:{victim.port}" stands still' in str(error)
        victim.thaw()
        storage.sweep(storage.unfinished(""))
        assert everything(storage) == []

    def test_larger_than_allowed(self, server: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(server, max_size="8MiB")
        assert storage.max_object_size == 8 << 20
        writer = storage.create(NAME, TOKEN)
        with pytest.raises(StorageRefused, match="raise max_size"):
            write_parts(writer, 2)
        writer.abort()
        assert everything(storage) == []

    @pytest.mark.parametrize("parts", [0, 2])
    def test_a_lost_answer_to_the_last_request_is_looked_up(
        self, server: Versitygw, storage_on: MakeStorage, parts: int
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(proxy)
            writer = storage.create(NAME, TOKEN)
            content = write_parts(writer, parts)
            writer.flush()
            publisher = writer._publisher  # type: ignore[attr-defined]
            ask = publisher._ask

            async def ask_in_silence(operation: str, parameters: dict[str, object]) -> None:
                proxy.mute()
                await ask(operation, parameters)

            publisher._ask = ask_in_silence
            committing = threading.Thread(target=writer.commit)
            committing.start()
            while not (server.data / BUCKET / NAME).exists():
                assert committing.is_alive()
            proxy.cut()
            proxy.thaw()
            committing.join()
            assert read(storage, NAME) == content
            assert everything(storage) == [NAME]
            storage.delete([NAME])

    def test_an_object_that_became_visible_before_abort_is_taken_back(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        write_parts(writer, 1)
        writer.flush()
        publisher = writer._publisher  # type: ignore[attr-defined]
        ask = publisher._ask

        async def ask_and_hang(operation: str, parameters: dict[str, object]) -> None:
            await ask(operation, parameters)
            visible.set()
            await asyncio.Event().wait()

        publisher._ask = ask_and_hang
        visible = threading.Event()
        ends: list[type[BaseException]] = []

        def commit() -> None:
            try:
                writer.commit()
            except Aborted as end:
                ends.append(type(end))

        committing = threading.Thread(target=commit)
        committing.start()
        visible.wait()
        writer.abort()
        committing.join()
        assert ends == [Aborted]
        assert everything(storage) == []

    def test_abort_at_the_end_of_commit(
        self, server: Versitygw, storage_on: MakeStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        writer.write(b"content")
        wait = storage._service.wait

        def wait_and_abort(future: Future[object]) -> object:
            result = wait(future)
            writer.abort()
            return result

        with monkeypatch.context() as patched:
            patched.setattr(storage._service, "wait", wait_and_abort)
            with pytest.raises(Aborted):
                writer.commit()
        assert everything(storage) == []

    def test_close_ends_what_is_under_way(self, server: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(server)
        writer = storage.create(NAME, TOKEN)
        write_parts(writer, 1)
        storage.close()
        with pytest.raises(StorageUnavailable, match="closed"):
            write_parts(writer, 4)
        writer.abort()
        storage.sweep(storage.unfinished(""))
        assert everything(storage) == []

    def test_a_slow_storage_does_not_take_memory(self, server: Versitygw) -> None:
        with Proxy(server.port, 20 << 20) as proxy:
            code = (
                "import os, resource, sys\n"
                "from schemas.s3 import S3Storage\n"
                "from stages.storages.s3 import S3\n"
                "names = ('endpoint', 'bucket', 'access_key', 'secret_key')\n"
                "spec = S3Storage(type='s3', **dict(zip(names, sys.argv[1:])))\n"
                "storage = S3(spec)\n"
                "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
                "writer = storage.create('slow', '01234567-20261123T031500Z-abcdef')\n"
                "before = peak()\n"
                "for _ in range(96): writer.write(os.urandom(1 << 20))\n"
                "writer.commit()\n"
                "print(peak() - before)\n"
                "storage.delete(['slow'])\n"
                "storage.close()\n"
            )
            values = [f"http://127.0.0.1:{proxy.port}", BUCKET, ACCESS_KEY, SECRET_KEY]
            grown = subprocess.run(
                [sys.executable, "-c", code, *values], check=True, stdout=subprocess.PIPE
            ).stdout
        # Four parts on their way, one that is being filled, and what the library needs.
        assert int(grown) << 10 < 60 << 20


class TestDownload:
    def test_goes_on_when_the_connection_was_cut(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        content = os.urandom(40 * CHUNK)
        with Proxy(server.port) as proxy:
            storage = storage_on(proxy)
            put(storage, NAME, [content])
            chunks = storage.open(NAME)
            got = b""
            for number, chunk in enumerate(chunks):
                got += chunk
                if number % 10 == 0:
                    proxy.cut()
            assert got == content
            storage.delete([NAME])

    def test_connections_that_broke_while_idle_are_replaced(
        self, server: Versitygw, storage_on: MakeStorage
    ) -> None:
        with Proxy(server.port) as proxy:
            storage = storage_on(proxy, Patience(seconds=0))
            put(storage, NAME, [b"content"])
            assert read(storage, NAME) == b"content"
            fetcher = storage._service.fetcher
            assert len(fetcher._idle) == 1
            proxy.cut()
            storage._service.run(_fetch, fetcher, storage)
            assert len(fetcher._idle) == 1
            storage.delete([NAME])

    def test_frozen_server(self, victim: Versitygw, storage_on: MakeStorage) -> None:
        storage = storage_on(victim, QUICK, timeout="500ms")
        put(storage, NAME, [bytes(CHUNK)] * 40)
        chunks = storage.open(NAME)
        next(chunks)
        victim.freeze()
        with pytest.raises(StorageUnavailable, match="stands still"):
            list(chunks)
        victim.thaw()


async def _fetch(fetcher: Fetcher, storage: S3) -> None:
    """Read an object without the library's look at it, which would find the break first."""
    service, got = storage._service, list[bytes]()
    reader = Reader(service, NAME, NAME)
    reader._tag = "*"
    address = await reader._signed()
    assert address is not None
    await fetcher.fetch(Wanted(address, "*", 0, 7), got.append)
    assert got == [b"content"]
