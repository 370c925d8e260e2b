"""A server for each storage that can be served on this machine, and how to reach it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import nfs, s3
from tests.servers.base import GID, HOST, UID
from tests.servers.ftp import PASSWORD as FTP_PASSWORD
from tests.servers.ftp import USER as FTP_USER
from tests.servers.ftp import Ftpd
from tests.servers.sshd import USER, Sshd


@dataclass(frozen=True)
class Place:
    """Where a storage of some type can be."""

    keys: dict[str, Any]
    """What the configuration says, `type` included."""
    data: Path
    """Where its objects lie on the server."""
    server: Any = None


def local(_: ExitStack, folder: Path) -> Place:
    return Place({"type": "local", "path": str(folder / "disk")}, folder / "disk")


def sftp(stack: ExitStack, _: Path) -> Place:
    server = stack.enter_context(Sshd())
    assert isinstance(server, Sshd)
    data = server.data / "backups"
    keys = {
        "type": "sftp",
        "host": HOST,
        "port": server.port,
        "user": USER,
        "key_file": str(server.key),
        "host_key": server.host_key,
        "path": str(data),
    }
    return Place(keys, data, server)


def ftp(stack: ExitStack, _: Path) -> Place:
    server = stack.enter_context(Ftpd())
    data = server.data / "backups"
    keys = {
        "type": "ftp",
        "host": HOST,
        "port": server.port,
        "user": FTP_USER,
        "password": FTP_PASSWORD,
        "path": str(data),
        "tls": {"ca": str(server.ca)},
    }
    return Place(keys, data, server)


def s3_(stack: ExitStack, _: Path) -> Place | None:
    if not s3.can_run():
        return None
    server = stack.enter_context(s3.Versitygw())
    keys = {
        "type": "s3",
        "bucket": s3.BUCKET,
        "endpoint": server.endpoint,
        "access_key": s3.ACCESS_KEY,
        "secret_key": s3.SECRET_KEY,
    }
    return Place(keys, server.data / s3.BUCKET, server)


def nfs_(stack: ExitStack, _: Path) -> Place | None:
    if not nfs.can_run():
        return None
    server = stack.enter_context(nfs.Ganesha())
    keys = {
        "type": "nfs",
        "host": HOST,
        "export": server.export,
        "path": "backups",
        "uid": UID,
        "gid": GID,
        "nfs_port": server.port,
        "mount_port": server.mount_port,
    }
    return Place(keys, server.data / "backups", server)


MAKERS: dict[str, Callable[[ExitStack, Path], Place | None]] = {
    "local": local,
    "sftp": sftp,
    "ftp": ftp,
    "s3": s3_,
    "nfs": nfs_,
}


def start(stack: ExitStack, folder: Path) -> dict[str, Place]:
    """A place of each type that can be had here; `folder` is for what lies on this machine."""
    made = {name: maker(stack, folder) for name, maker in MAKERS.items()}
    return {name: place for name, place in made.items() if place}
