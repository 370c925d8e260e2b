"""The part of the storage suite that hurts: servers that die, freeze, fill up or say no."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.errors import Aborted, StorageError, StorageRefused, StorageUnavailable
from pipeline.stage import CHUNK, Storage, Writer
from pipeline.tryout import try_out
from tests.contracts.storage_subject import NAME, TOKEN, everything, names, put, read
from tests.servers.base import GID, IS_ROOT, UID, Server
from tests.servers.proxy import BUFFER, Proxy

MANY = 5000
SLOW = 1 << 20
"""Bytes per second of a slow network."""


@dataclass
class Rig:
    """Storages of one empty place, their server, and the network in between."""

    server: Server
    network: Proxy
    patient: Storage
    """Through the network; keeps trying for at least 20 s."""
    hasty: Storage
    """Through the network; gives up after about a second of silence."""
    direct: Storage
    """Not through the network."""
    full: Callable[[], AbstractContextManager[Storage]]
    """A storage on a server that has room for 16 MiB, more or less."""
    populate: Callable[[int], None]
    """Puts so many small objects below `shop/crm`, by a quick way."""
    refused: Mapping[str, Storage] = field(default_factory=dict)
    """Storages that a server, or we, must refuse, by reason, such as `wrong password`."""
    secrets: tuple[str, ...] = ()
    """What no message may hold."""
    resumes: bool = True
    """Whether an upload goes on after its connection broke."""
    holds_connections: int = 1
    """Connections that one upload uses at once: each may have some bytes on its way."""


def populate(directory: Path, count: int) -> None:
    """Make small objects behind the back of a server, below three directories of its user."""
    made = [directory, *directory.parents[:2]]
    directory.mkdir(parents=True)
    for number in range(count):
        made.append(directory / f"object {number:05}")
        made[-1].write_bytes(b"small")
    if IS_ROOT:
        for path in made:
            os.chown(path, UID, GID)


class FaultsContract:
    """Derive a `Test...` class beside a fixture `rig`."""

    # Uploads that are disturbed, and go on

    def test_an_upload_goes_on_after_cuts(self, rig: Rig) -> None:
        _disturb(rig, 60, {8: rig.network.cut, 30: rig.network.cut, 31: rig.network.cut})

    def test_an_upload_goes_on_when_the_server_was_killed(self, rig: Rig) -> None:
        def kill_and_start() -> None:
            rig.server.kill()
            _keeper.submit(_start_later, rig.server)

        _disturb(rig, 40, {20: kill_and_start})

    def test_an_upload_goes_on_when_the_network_froze_for_a_while(self, rig: Rig) -> None:
        def freeze() -> None:
            rig.network.freeze()
            threading.Timer(0.5, rig.network.thaw).start()

        content = _upload(rig.patient, 40, {20: freeze})
        assert _digest(rig.direct) == content

    # Uploads that fail

    def test_a_server_that_stays_away_fails_the_upload(self, rig: Rig) -> None:
        error = _failure(rig.hasty, rig.server.kill)
        assert isinstance(error, StorageUnavailable)
        rig.server.start()
        _nothing_visible(rig)

    def test_a_frozen_server_fails_the_upload(self, rig: Rig) -> None:
        error = _failure(rig.hasty, rig.server.freeze)
        assert isinstance(error, StorageUnavailable)
        assert "127.0.0." in str(error)  # It names the server.
        rig.server.thaw()
        _nothing_visible(rig)

    def test_a_frozen_network_fails_the_upload(self, rig: Rig) -> None:
        error = _failure(rig.hasty, rig.network.freeze)
        assert isinstance(error, StorageUnavailable)
        rig.network.thaw()
        _nothing_visible(rig)

    def test_a_full_server_refuses(self, rig: Rig) -> None:
        with rig.full() as storage:
            error = _failure(storage, lambda: None)
            assert isinstance(error, StorageRefused)
            assert everything(storage) == []
            put(storage, NAME, [b"small enough"])
            assert read(storage, NAME) == b"small enough"

    # Reading

    def test_a_server_that_stays_away_fails_the_download(self, rig: Rig) -> None:
        put(rig.direct, NAME, [bytes(CHUNK)] * 40)
        chunks = rig.hasty.open(NAME)
        next(chunks)
        rig.server.kill()
        with pytest.raises(StorageUnavailable):
            list(chunks)
        rig.server.start()

    def test_a_frozen_network_fails_the_download(self, rig: Rig) -> None:
        put(rig.direct, NAME, [bytes(CHUNK)] * 40)
        chunks = rig.hasty.open(NAME)
        next(chunks)
        rig.network.freeze()
        with pytest.raises(StorageUnavailable):
            list(chunks)
        rig.network.thaw()

    # Servers that say no

    def test_what_must_be_refused_is_refused(self, rig: Rig) -> None:
        assert rig.refused
        for reason, storage in rig.refused.items():
            for action in (lambda s=storage: try_out(s), lambda s=storage: s.create(NAME, TOKEN)):
                with pytest.raises(StorageRefused) as caught:
                    action()
                assert caught.value.hint, reason
                assert not any(secret in str(caught.value) for secret in rig.secrets), reason
            storage.close()
        assert everything(rig.direct) == []

    # Much, and slow

    def test_thousands_of_objects_are_listed(self, rig: Rig) -> None:
        rig.populate(MANY)
        found = names(rig.direct, "shop/crm")
        assert len(found) == MANY
        assert found == sorted(found)
        rig.direct.delete(found[: MANY // 2])
        assert names(rig.direct) == found[MANY // 2 :]

    def test_a_slow_network_holds_the_writer_back(self, rig: Rig) -> None:
        writer = rig.patient.create(NAME, TOKEN)
        rig.network.rate = SLOW
        before = rig.network.sent
        # On the way: the buffers of our socket, and those of the proxy.
        on_the_way = rig.holds_connections * (6 * BUFFER + (4 << 20))
        limit = rig.patient.memory + on_the_way
        taken = 0
        with _after(6.0, writer.abort), suppress(Aborted):
            while taken < 4 * limit:
                writer.write(os.urandom(CHUNK))
                taken += CHUNK
        rig.network.rate = None
        assert taken - (rig.network.sent - before) <= limit


_keeper = ThreadPoolExecutor(1)
"""Outlives the tests: a server ends with the thread that started it."""


def _start_later(server: Server) -> None:
    time.sleep(0.3)
    server.start()


def _disturb(rig: Rig, count: int, events: Mapping[int, Callable[[], None]]) -> None:
    if rig.resumes:
        assert _upload(rig.patient, count, events) == _digest(rig.direct)
        assert everything(rig.direct) == [NAME]
        return
    with pytest.raises(StorageUnavailable):
        _upload(rig.patient, count, events)
    assert _comes_back(rig.direct)
    _nothing_visible(rig)


def _comes_back(storage: Storage) -> bool:
    for _ in range(200):
        with suppress(StorageUnavailable):
            storage.list("")
            return True
        threading.Event().wait(0.05)
    return False


def _upload(storage: Storage, count: int, events: Mapping[int, Callable[[], None]]) -> str:
    """Write so many chunks, with something happening before some of them: their SHA-256."""
    digest = hashlib.sha256()
    writer = storage.create(NAME, TOKEN)
    try:
        for chunk in _chunks(count, events):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        writer.commit()
    finally:
        writer.abort()
    return digest.hexdigest()


def _chunks(count: int, events: Mapping[int, Callable[[], None]]) -> Iterator[bytes]:
    for number in range(count):
        events.get(number, lambda: None)()
        yield os.urandom(CHUNK - 7 * number)


def _digest(storage: Storage) -> str:
    digest = hashlib.sha256()
    for chunk in storage.open(NAME):
        digest.update(chunk)
    return digest.hexdigest()


def _failure(storage: Storage, disturb: Callable[[], None]) -> StorageError:
    """What a writer says when something happens in the middle of its upload."""
    writer = storage.create(NAME, TOKEN)
    for _ in range(8):
        writer.write(os.urandom(CHUNK))
    disturb()
    with pytest.raises(StorageError) as caught:
        _write_on(writer)
    with pytest.raises(StorageError):  # It stays broken.
        writer.commit()
    writer.abort()
    return caught.value


def _write_on(writer: Writer) -> None:
    for _ in range(100):
        writer.write(os.urandom(CHUNK))
    writer.flush()
    writer.commit()


def _nothing_visible(rig: Rig) -> None:
    assert names(rig.direct) == []
    rig.direct.sweep(rig.direct.unfinished(""))
    assert everything(rig.direct) == []


@contextmanager
def _after(seconds: float, function: Callable[[], None]) -> Iterator[None]:
    """Calls a function after some seconds, unless the block has ended."""
    timer = threading.Timer(seconds, function)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
