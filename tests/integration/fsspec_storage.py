"""What the tests of fsspec share: its storages over servers of different protocols."""

from __future__ import annotations

from typing import Any

from schemas.storages import FsspecStorage
from tests.servers.base import HOST
from tests.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY
from tests.servers.sshd import USER, Sshd


def spec_of(url: str, **keys: Any) -> FsspecStorage:
    return FsspecStorage.model_validate({"type": "fsspec", "url": url, **keys})


def over_ssh(server: Sshd, path: object, port: int = 0, **keys: Any) -> FsspecStorage:
    """Through sshfs; `keys` may hold options of its own, None leaves one out."""
    options = {
        "username": USER,
        "client_keys": [str(server.key)],
        "known_hosts": str(server.known_hosts("*")),
        "port": port or server.port,
        **keys.pop("options", {}),
    }
    return spec_of(f"sftp://{HOST}{path}", storage_options=options, **keys)


def over_s3(port: int, path: str, **keys: Any) -> FsspecStorage:
    """Through s3fs."""
    options = {
        "key": ACCESS_KEY,
        "secret": SECRET_KEY,
        "endpoint_url": f"http://{HOST}:{port}",
        **keys.pop("options", {}),
    }
    bucket = keys.pop("bucket", BUCKET)
    return spec_of(f"s3://{bucket}/{path}", storage_options=options, **keys)
