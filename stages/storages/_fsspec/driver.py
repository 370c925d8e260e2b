"""From an address to a file system: finding the driver, and handing it its options."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]
from fsspec.implementations.dirfs import DirFileSystem  # type: ignore[import-untyped]
from fsspec.registry import (  # type: ignore[import-untyped]
    get_filesystem_class,
    known_implementations,
    register_implementation,
)
from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]
from pydantic import SecretStr

from pipeline.errors import StorageRefused
from schemas.storages import FsspecStorage
from stages.storages._fsspec.kinds import kind_of
from stages.storages._fsspec.tree import Tree

_HOSTS = ("endpoint_url", "endpoint", "host", "account_host", "account_name", "instance")
"""Options that name the server, in this order."""
_OF_SSHFS = ("sftp", "ssh")
"""Protocols that belong to sshfs. Its package says so itself, but that is lost in the archive."""

for _protocol in _OF_SSHFS:
    register_implementation(_protocol, "sshfs.spec.SSHFileSystem", clobber=True)


def connect(spec: FsspecStorage) -> Tree:
    """Make the file system, and know its directory.

    Raises:
        StorageRefused: there is no such driver, it does not take these options, or it cannot be
        written to as a storage has to be.
        Exception: whatever the driver raises when it connects.
    """
    _reach(spec.drivers)
    if any(protocol in _OF_SSHFS for protocol in protocols_of(spec.url)):
        # It imports asyncssh, which must not start a compiler.
        importlib.import_module("stages.storages._sftp.quiet_asyncssh")
    options = _options(spec)
    try:
        fs, root = url_to_fs(spec.url, skip_instance_cache=True, **options)
    except ImportError as error:
        raise _cannot_load(spec.url, error) from error
    except TypeError as error:
        raise StorageRefused(f"the driver does not take storage_options: {error}") from error
    while isinstance(fs, DirFileSystem):
        fs, root = fs.fs, fs._join(root)
    if not root.strip("/"):
        raise StorageRefused("url names no directory", "add one, or a bucket, behind the server")
    return Tree(fs, root.rstrip("/"), kind_of(type(fs)).spares_full)


def _reach(directory: str | None) -> None:
    """Have drivers found that are not installed with this program, behind everything that is."""
    if directory is not None and directory not in sys.path:
        sys.path.append(directory)
        importlib.invalidate_caches()
        fsspec.process_entries()


def _options(spec: FsspecStorage) -> dict[str, Any]:
    options: dict[str, Any] = _revealed(spec.storage_options)
    drivers = [_driver(protocol) for protocol in protocols_of(spec.url)]
    if not issubclass(drivers[0], DirFileSystem):
        kind_of(drivers[0])  # Before it is made: some make files on this machine then.
    for driver in drivers:
        if "sshfs.spec" in [each.__module__ for each in driver.__mro__]:
            # By itself it trusts every host; this makes it look into the usual files.
            options.setdefault("known_hosts", ())
    return options


def _driver(protocol: str) -> type[AbstractFileSystem]:
    try:
        found: type[AbstractFileSystem] = get_filesystem_class(protocol)
    except ImportError as error:
        raise _cannot_load(protocol, error) from error
    except ValueError:
        raise StorageRefused(
            f'no driver for "{protocol}" is known',
            "pip install --target DIRECTORY the package that has it, and set drivers to it",
        ) from None
    return found


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {name: _revealed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_revealed(each) for each in value]
    return value


def _cannot_load(url: str, error: ImportError) -> StorageRefused:
    protocol = protocols_of(url)[0]
    module = str(known_implementations.get(protocol, {}).get("class", protocol)).split(".")[0]
    causes = [each for each in (error.__cause__, error) if isinstance(each, ImportError)]
    missing = next((each.name for each in causes if each.name), module)
    package = missing.split(".")[0].replace("_", "-")
    return StorageRefused(
        f'the driver for "{protocol}" cannot be loaded: "{missing}" is not installed',
        f"pip install --target DIRECTORY {package}, with this version of Python, and set drivers "
        "to that directory",
    )


# What messages and facts say


def protocols_of(url: str) -> list[str]:
    """The protocols of an address, the outermost first: `dir::s3://bucket` has two."""
    return [bit.partition("://")[0] for bit in url.split("::")]


def server_of(spec: FsspecStorage) -> str:
    """What the file system is called in messages, without anything secret."""
    places = [spec.storage_options, spec.storage_options.get("client_kwargs")]
    given = [place.get(name) for place in places if isinstance(place, dict) for name in _HOSTS]
    host = next((value for value in given if isinstance(value, str) and value), None)
    if host is None or "://" not in host:
        protocol, _, rest = spec.url.split("::")[-1].partition("://")
        host = f"{protocol}://{host or rest}"
    protocol, _, rest = host.partition("://")
    server = rest.split("/")[0].rpartition("@")[2]
    port = spec.storage_options.get("port")
    return f"{protocol}://{server}:{port}" if port else f"{protocol}://{server}"


def facts_of(tree: Tree, spec: FsspecStorage) -> Sequence[str]:
    """What is known about a file system, one line each."""
    package = type(tree.fs).__module__.split(".")[0]
    version = getattr(sys.modules[package], "__version__", "of unknown version")
    facts = [
        f'directory "{tree.root}" on "{server_of(spec)}"',
        f"driver: {package} {version}",
        kind_of(type(tree.fs)).fact,
        "an upload that breaks cannot go on: it fails",
    ]
    own = _OWN_TYPES.get(protocols_of(spec.url)[-1])
    if own:
        facts.append(f"type: {own} does the same, and more")
    return [*facts, *_doubts(tree.fs, spec)]


_OWN_TYPES = {
    "file": "local",
    "local": "local",
    "s3": "s3",
    "s3a": "s3",
    "sftp": "sftp",
    "ssh": "sftp",
    "smb": "smb",
}


def _doubts(fs: AbstractFileSystem, spec: FsspecStorage) -> Sequence[str]:
    """What is allowed, and not wise."""
    options, modules = spec.storage_options, [each.__module__ for each in type(fs).__mro__]
    doubts = []
    if ("sshfs.spec" in modules and options.get("known_hosts", ()) is None) or (
        "fsspec.implementations.sftp" in modules and options.get("host_key_policy") != "reject"
    ):
        doubts.append("warning: the host key is not checked; anyone on the way can pose as it")
    if server_of(spec).startswith("http://"):
        doubts.append("warning: the endpoint is http; backups travel in the clear")
    return doubts
