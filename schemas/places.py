"""Where a storage is, to tell when two of them are one place; nothing is looked up but links."""

from __future__ import annotations

import os.path
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from schemas import storages
from schemas.base import Spec
from schemas.s3 import S3Storage

Place = tuple[object, ...]
"""What is the same only for storages that are one place."""


def place(spec: Spec) -> Place | None:
    """The place of a storage; None for one that only a module knows."""
    found = _PLACES.get(type(spec))
    return None if found is None else (spec.__class__.__name__, *found(spec))


def folds_case(spec: Spec) -> bool:
    """Whether names that differ only in case are one name there."""
    return isinstance(spec, storages.SmbStorage)


def _path(path: str) -> str:
    """A path without what does not count; a relative one stays relative."""
    return os.path.normpath(path).lstrip("/") if path.strip("/") else ""


def _absolute_or_not(path: str) -> tuple[bool, str]:
    return path.startswith("/"), _path(path)


def _ssh(spec: storages.SftpStorage) -> Place:
    # Servers may give each user a root of their own.
    return spec.host.lower(), spec.port, spec.user, *_absolute_or_not(spec.path)


def _ftp(spec: storages.FtpStorage) -> Place:
    port = spec.port or (990 if spec.implicit_tls else 21)
    return spec.host.lower(), port, spec.user, *_absolute_or_not(spec.path)


def _s3(spec: S3Storage) -> Place:
    return (spec.endpoint or "").rstrip("/").lower(), spec.bucket, _path(spec.path)


def _nfs(spec: storages.NfsStorage) -> Place:
    return spec.host.lower(), spec.nfs_port, _path(f"{spec.export}/{spec.path}")


def _smb(spec: storages.SmbStorage) -> Place:
    return spec.host.lower(), spec.port, spec.share.lower(), _path(spec.path).lower()


def _webdav(spec: storages.WebdavStorage) -> Place:
    parts = urlsplit(spec.url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.hostname, port, spec.user, _path(unquote(parts.path))


def _fsspec(spec: storages.FsspecStorage) -> Place:
    # The options may name another server; secrets among them show as stars, and do not count.
    return spec.url.rstrip("/"), str(spec.storage_options)


_PLACES: dict[type[Spec], Callable[[Any], Place]] = {
    storages.LocalStorage: lambda spec: (os.path.realpath(spec.path),),
    storages.SftpStorage: _ssh,
    storages.FtpStorage: _ftp,
    S3Storage: _s3,
    storages.NfsStorage: _nfs,
    storages.SmbStorage: _smb,
    storages.WebdavStorage: _webdav,
    storages.FsspecStorage: _fsspec,
    storages.MemoryStorage: lambda spec: (_path(spec.path),),
}
