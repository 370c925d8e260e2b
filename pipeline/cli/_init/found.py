"""What of this machine is worth a backup: servers that run here, and the usual directories."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_DIRECTORIES = ("etc", "var/www", "srv", "home", "root")
_SOCKETS = {
    "mysql": ("run/mysqld/mysqld.sock", "var/lib/mysql/mysql.sock", "tmp/mysql.sock"),
    "postgres": ("run/postgresql/.s.PGSQL.5432", "tmp/.s.PGSQL.5432"),
    "redis": ("run/redis/redis-server.sock", "run/redis/redis.sock", "run/valkey/valkey.sock"),
}
_PORTS = {"mysql": 3306, "postgres": 5432, "redis": 6379, "mongodb": 27017}
_PATIENCE = 0.3
"""Seconds for a server of this machine to take a connection."""


def find(root: Path = Path("/"), ports: Mapping[str, int] = _PORTS) -> dict[str, dict[str, Any]]:
    """What there is, by the type of the source that saves it, with the values of its keys.

    A value of None means that the key is not needed: who may use the socket may log in by it.

    Args:
        root: where the file system begins.
        ports: where servers listen on the loopback interface, by type.
    """
    found: dict[str, dict[str, Any]] = {}
    directories = [f"/{name}" for name in _DIRECTORIES if _has_content(root / name)]
    if directories:
        found["files"] = {"paths": directories}
    for name in _PORTS:
        place = _socket(root, _SOCKETS.get(name, ()))
        if place is not None:
            found[name] = _at_socket(name, place)
        elif _listens(ports[name]):
            found[name] = {"host": "127.0.0.1"}
    return found


def _has_content(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError:
        # Not there, or not ours to read: nothing that could be proposed.
        return False


def _socket(root: Path, names: Iterable[str]) -> str | None:
    for name in names:
        try:
            if stat.S_ISSOCK((root / name).stat().st_mode):
                return f"/{name}"
        except OSError:
            continue
    return None


def _at_socket(name: str, place: str) -> dict[str, Any]:
    """How a server is reached there; PostgreSQL wants the directory."""
    address = {"host": str(Path(place).parent)} if name == "postgres" else {"socket": place}
    return {**address, "user": None, "password": None}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), _PATIENCE).close()
    except OSError:
        return False
    return True
