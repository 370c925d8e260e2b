"""A real SMB server and storages on it, as fixtures of a base class."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.stage import CHUNK
from schemas.storages import SmbStorage
from stages.storages.smb import Smb
from tests.contracts.storage_subject import NAME, put, read
from tests.servers.base import HOST
from tests.servers.smb import PASSWORD, SHARE, USER, Smbd

MakeStorage = Callable[..., Smb]


@pytest.mark.integration
class SmbTests:
    """Derive a `Test...` class; its tests share one server."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Smbd]:
        with Smbd() as smbd:
            yield smbd

    @pytest.fixture
    def storage_on(self) -> Iterator[MakeStorage]:
        """Makes storages on a server, all in the same directory, and closes them."""
        with ExitStack() as stack:
            path = secrets.token_hex(8)

            def make(server: Smbd, **changes: Any) -> Smb:
                values = {
                    "host": HOST,
                    "port": server.port,
                    "share": SHARE,
                    "path": path,
                    "user": USER,
                    "password": PASSWORD,
                }
                storage = Smb(SmbStorage.model_validate({"type": "smb", **values, **changes}))
                stack.callback(storage.close)
                return storage

            yield make


def works(storage: Smb) -> bool:
    """Whether an object can be written, read and deleted there."""
    content = os.urandom(3 * CHUNK + 17)
    put(storage, NAME, [content])
    came_back = read(storage, NAME)
    storage.delete([NAME])
    return came_back == content


def path_of(server: Smbd, storage: Smb, name: str) -> Path:
    """Where an object lies on the server."""
    return server.data / storage._spec.path / name


def some_chunks(number: int) -> list[bytes]:
    """Different chunks, of odd sizes."""
    return [os.urandom(CHUNK - 7 * at) for at in range(number)]


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
