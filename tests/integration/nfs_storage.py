"""A real NFS server and storages on it, as fixtures of a base class."""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from schemas.storages import NfsStorage
from stages.storages._nfs.types import Call
from stages.storages._nfs.xdr import Unpacker, pack_hyper, pack_opaque, pack_uint
from stages.storages.nfs import Nfs
from tests.contracts.storage_subject import NAME, put, read
from tests.servers.base import GID, HOST, UID
from tests.servers.nfs import REASON, Ganesha, can_run

MakeStorage = Callable[..., Nfs]


@pytest.mark.integration
@pytest.mark.skipif(not can_run(), reason=REASON)
class NfsTests:
    """Derive a `Test...` class; its tests share one server."""

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls) -> Iterator[Ganesha]:
        with Ganesha() as ganesha:
            yield ganesha

    @pytest.fixture
    def storage_on(self) -> Iterator[MakeStorage]:
        """Makes storages on a server, each in a directory of its own, and closes them."""
        with ExitStack() as stack:
            path = secrets.token_hex(8)

            def make(server: Ganesha, **changes: Any) -> Nfs:
                values = {
                    "host": HOST,
                    "export": server.export,
                    "path": path,
                    "nfs_port": server.port,
                    "mount_port": server.mount_port,
                    "uid": UID,
                    "gid": GID,
                }
                storage = Nfs(NfsStorage(type="nfs", **{**values, **changes}))
                stack.callback(storage.close)
                return storage

            yield make


def works(storage: Nfs) -> bool:
    """Whether an object can be written, read and deleted there."""
    put(storage, NAME, [b"content"])
    content = read(storage, NAME)
    storage.delete([NAME])
    return content == b"content"


def path_of(server: Ganesha, storage: Nfs, name: str) -> Path:
    """Where an object lies on the server."""
    return server.data / storage._spec.path / name


def set_size(storage: Nfs, name: str, size: int) -> None:
    """Change the size of an object through the server, which would not see it happen otherwise."""
    with storage._client.session("change the size") as session:
        node = storage._tree(session).locate(name)
        assert node
        size_only = pack_uint(0, 0, 0, 1) + pack_hyper(size) + pack_uint(0, 0)
        arguments = pack_opaque(node.handle) + size_only + pack_uint(0)
        session.call(Call(2, arguments, Unpacker.boolean))


def is_waiting(thread: threading.Thread) -> bool:
    """Whether a thread waits for its connection."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "_poll"


def some_chunks(number: int) -> list[bytes]:
    """Different chunks, of odd sizes."""
    return [os.urandom((1 << 20) - 7 * at) for at in range(number)]


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
