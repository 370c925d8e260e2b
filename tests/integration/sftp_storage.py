"""A real OpenSSH server and storages on it, as fixtures of a base class; disturbed uploads."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.naming import part_name
from pipeline.stage import CHUNK, Writer
from schemas.storages import SftpStorage
from stages.storages.sftp import Sftp
from tests.contracts.storage_subject import NAME, TOKEN, put, read
from tests.servers.base import HOST
from tests.servers.sshd import USER, Sshd

HASTY: Mapping[str, Any] = {"timeout": "1s", "connect_timeout": "1s"}
MakeStorage = Callable[..., Sftp]
Events = Mapping[int, Callable[[], None]]
_CONTENT = os.urandom(CHUNK)


@pytest.mark.integration
class SftpTests:
    """Derive a `Test...` class; its tests share one server."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Sshd]:
        with Sshd() as sshd:
            yield sshd

    @pytest.fixture
    def storage_on(self) -> Iterator[MakeStorage]:
        """Makes storages on a server, by default with key and trusted host key; closes them."""
        with ExitStack() as stack:

            def make(server: Sshd, **changes: Any) -> Sftp:
                values = {
                    "host": HOST,
                    "port": server.port,
                    "user": USER,
                    "key_file": str(server.key),
                    "host_key": server.host_key,
                    "path": str(server.data / "backups"),
                }
                storage = Sftp(SftpStorage.model_validate({"type": "sftp", **values, **changes}))
                stack.callback(storage.close)
                return storage

            yield make


def works(storage: Sftp) -> bool:
    """Whether an object can be written, read and deleted there."""
    put(storage, NAME, [b"content"])
    content = read(storage, NAME)
    storage.delete([NAME])
    return content == b"content"


def sftp_sessions(server: Sshd) -> list[int]:
    """The processes that serve one SFTP session each."""
    found = []
    for pid in server.processes():
        with suppress(OSError):  # It has just ended.
            if "sftp-server" in os.readlink(f"/proc/{pid}/exe"):
                found.append(pid)
    return found


def part_of(server: Sshd) -> Path:
    """Where the unfinished object lies on the server."""
    return server.data / "backups" / part_name(NAME, TOKEN)


def chunk(number: int) -> bytes:
    """A chunk that differs from all others."""
    return number.to_bytes(16, "big") + _CONTENT[16:]


def upload(writer: Writer, count: int, events: Events) -> str:
    """Write so many chunks, with something happening before some of them: their SHA-256."""
    digest = hashlib.sha256()
    for number in range(count):
        events.get(number, lambda: None)()
        digest.update(chunk(number))
        writer.write(chunk(number))
    return digest.hexdigest()


def upload_disturbed(server: Sshd, storage: Sftp, count: int, events: Events) -> None:
    """An upload that things happen to, and that arrives whole all the same."""
    writer = storage.create(NAME, TOKEN)
    try:
        digest = upload(writer, count, events)
        writer.commit()
    finally:
        writer.abort()
    assert stored_digest(server) == digest
    assert storage.unfinished("") == []
    storage.delete([NAME])


def stored_digest(server: Sshd) -> str:
    """SHA-256 of what the server really has."""
    digest = hashlib.sha256()
    with open(server.data / "backups" / NAME, "rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A started thread, and a list that will hold what the function gave or raised."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def wait_for(thread: threading.Thread, condition: Callable[[], bool]) -> None:
    """Wait for what a thread brings about."""
    while not condition():
        assert thread.is_alive()
        time.sleep(0.005)


def written(storage: Sftp) -> Writer:
    """A writer that has only its commit left."""
    writer = storage.create(NAME, TOKEN)
    writer.write(b"content")
    writer.flush()
    return writer
