"""Real WebDAV servers and storages on them, as fixtures of a base class; answers that get lost."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pipeline.stage import CHUNK, Writer
from schemas.storages import WebdavStorage
from stages.storages._webdav.session import Patience
from stages.storages.webdav import Webdav
from tests.contracts.storage_subject import NAME, put, read
from tests.servers.base import Server
from tests.servers.proxy import Proxy, Route, reset
from tests.servers.webdav import PASSWORD, USER, Apache, Nginx

HASTY = Patience(seconds=0.5, first_delay=0.1, longest_delay=0.1)
MakeStorage = Callable[..., Webdav]


@pytest.mark.integration
class WebdavTests:
    """Derive a `Test...` class; its tests share one server of each kind."""

    @pytest.fixture(scope="class")
    @classmethod
    def apache(cls) -> Iterator[Apache]:
        with Apache() as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def nginx(cls) -> Iterator[Nginx]:
        with Nginx() as server:
            yield server

    @pytest.fixture
    def storage_at(self) -> Iterator[MakeStorage]:
        """Makes storages, by default with user and password; closed at the end."""
        with ExitStack() as stack:

            def make(url: str, patience: Patience | None = None, **changes: Any) -> Webdav:
                values = {"type": "webdav", "url": url, "user": USER, "password": PASSWORD}
                storage = Webdav(WebdavStorage.model_validate({**values, **changes}), patience)
                stack.callback(storage.close)
                return storage

            yield make


def works(storage: Webdav) -> bool:
    put(storage, NAME, [b"content"])
    content = read(storage, NAME)
    storage.delete([NAME])
    return content == b"content"


def write(writer: Writer, count: int) -> str:
    """Write so many random chunks: their SHA-256."""
    digest = hashlib.sha256()
    for _ in range(count):
        chunk = os.urandom(CHUNK)
        digest.update(chunk)
        writer.write(chunk)
    return digest.hexdigest()


def write_all(writer: Writer, count: int) -> None:
    """The same, until the storage says that it has them."""
    write(writer, count)
    writer.flush()


def stored_digest(server: Server, directory: str, name: str = NAME) -> str:
    """SHA-256 of what the server really has."""
    return hashlib.sha256((server.data / directory / name).read_bytes()).hexdigest()


class Meddler(Proxy):
    """Loses or delays the next answer that starts with some bytes; others pass."""

    def __init__(self, target: int) -> None:
        self.start: bytes | None = None
        self.delay: float | None = None
        """In seconds; None: the connection is reset instead."""
        self.met = 0
        super().__init__(target)

    def __enter__(self) -> Meddler:
        return self

    def meddle(self, start: bytes, delay: float | None = None) -> None:
        self.delay, self.start = delay, start

    def _pass_on(self, block: bytes, route: Route, sink: socket.socket, upwards: bool) -> None:
        if not upwards and self.start is not None and block.startswith(self.start):
            self.start = None
            self.met += 1
            if self.delay is None:
                reset([sink])
            else:
                time.sleep(self.delay)
        super()._pass_on(block, route, sink, upwards)
