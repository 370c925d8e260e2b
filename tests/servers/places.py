"""A server for each storage that can be served on this machine, and how to reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import nfs, s3
from tests.servers.base import GID, HOST, UID
from tests.servers.ftp import FAR_HOST, Ftpd
from tests.servers.ftp import PASSWORD as FTP_PASSWORD
from tests.servers.ftp import USER as FTP_USER
from tests.servers.ftp_proxy import FtpProxy
from tests.servers.proxy import Proxy
from tests.servers.smb import PASSWORD as SMB_PASSWORD
from tests.servers.smb import SHARE, Smbd
from tests.servers.smb import USER as SMB_USER
from tests.servers.sshd import USER, Sshd
from tests.servers.webdav import PASSWORD as WEBDAV_PASSWORD
from tests.servers.webdav import USER as WEBDAV_USER
from tests.servers.webdav import Apache


@dataclass(frozen=True)
class Place:
    """Where a storage of some type can be."""

    keys: dict[str, Any]
    """What the configuration says, `type` included."""
    data: Path
    """Where its objects lie on the server."""
    server: Any = None

    @contextmanager
    def through_a_proxy(self, rate: int | None = None) -> Iterator[tuple[dict[str, Any], Proxy]]:
        """The configuration of the same place with a network in between, and that network."""
        if isinstance(self.server, Ftpd):
            with FtpProxy(self.server.port, self.server.passive_ports, rate) as proxy:
                yield {**self.keys, "host": FAR_HOST}, proxy
            return
        here = self.server.port
        with Proxy(here, rate) as proxy:
            yield {key: _moved(value, here, proxy.port) for key, value in self.keys.items()}, proxy


def _moved(value: Any, before: int, after: int) -> Any:
    """A port, or an address with one, after it has changed."""
    if isinstance(value, str):
        return value.replace(f":{before}", f":{after}")
    return after if value == before else value


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


def fsspec(stack: ExitStack, _: Path) -> Place:
    server = stack.enter_context(Sshd())
    assert isinstance(server, Sshd)
    data = server.data / "backups"
    keys = {
        "type": "fsspec",
        "url": f"sftp://{HOST}:{server.port}{data}",
        "storage_options": {
            "username": USER,
            "client_keys": [str(server.key)],
            "known_hosts": str(server.known_hosts("*")),
        },
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


def smb(stack: ExitStack, _: Path) -> Place:
    server = stack.enter_context(Smbd())
    keys = {
        "type": "smb",
        "host": HOST,
        "port": server.port,
        "share": SHARE,
        "path": "backups",
        "user": SMB_USER,
        "password": SMB_PASSWORD,
    }
    return Place(keys, server.data / "backups", server)


def webdav(stack: ExitStack, _: Path) -> Place:
    server = stack.enter_context(Apache())
    keys = {
        "type": "webdav",
        "url": server.url("backups"),
        "user": WEBDAV_USER,
        "password": WEBDAV_PASSWORD,
    }
    return Place(keys, server.data / "backups", server)


MAKERS: dict[str, Callable[[ExitStack, Path], Place | None]] = {
    "local": local,
    "sftp": sftp,
    "fsspec": fsspec,
    "ftp": ftp,
    "s3": s3_,
    "nfs": nfs_,
    "smb": smb,
    "webdav": webdav,
}


def start(stack: ExitStack, folder: Path) -> dict[str, Place]:
    """A place of each type that can be had here; `folder` is for what lies on this machine."""
    made = {name: maker(stack, folder) for name, maker in MAKERS.items()}
    return {name: place for name, place in made.items() if place}
