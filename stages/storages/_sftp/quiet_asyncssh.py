"""The one place that imports asyncssh, so that the import does not start a compiler.

asyncssh asks `ctypes.util.find_library` for libnettle (UMAC) and liboqs (an older post-quantum
exchange); where they are missing, that runs gcc and ld and writes files to the temporary directory.
Neither is needed: AES-GCM carries its own MAC, and ML-KEM comes from cryptography.
"""

from __future__ import annotations

import ctypes.util
import getpass
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

_NOT_WANTED = frozenset({"oqs", "liboqs", "nettle", "libnettle", "libnettle-6"})
_lock = threading.Lock()


@contextmanager
def _without_compiler() -> Iterator[None]:
    find_library = ctypes.util.find_library

    def find(name: str) -> str | None:
        return None if name in _NOT_WANTED else find_library(name)

    with _lock:
        ctypes.util.find_library = find
        try:
            yield
        finally:
            ctypes.util.find_library = find_library


with _without_compiler():
    import asyncssh

__all__ = ["asyncssh", "name_the_nameless"]


def name_the_nameless() -> None:
    """Let asyncssh work for a user id without a name, as containers have them.

    It asks for the local user's name even where it has no use for it, and fails without one.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        nobody = SimpleNamespace(getuser=lambda: "nobody")
        setattr(asyncssh.connection, "getpass", nobody)  # noqa: B010
