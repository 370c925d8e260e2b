"""What the errors of an NFS server mean to a storage."""

from __future__ import annotations

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable
from stages.storages._nfs.mount import MountError
from stages.storages._nfs.rpc import RpcRejected
from stages.storages._nfs.types import NfsError, Status
from stages.storages._nfs.xdr import Malformed

FAILURES = (NfsError, RpcRejected, Malformed)
"""Everything that an answer of a server can mean; a lost connection is a storage error already."""
MISSING = frozenset({Status.NOENT, Status.NOTDIR})
GONE = frozenset({Status.STALE, Status.BADHANDLE})
"""The server does not know a handle (any more): what it stood for has to be looked up again."""

_DENIED = frozenset({Status.PERM, Status.ACCES})
_MAY_PASS = frozenset({Status.IO, Status.NXIO, Status.NODEV, Status.SERVERFAULT, *GONE})
_REASONS: dict[int, str] = {
    Status.NOENT: "it is not there (any more)",
    Status.IO: "its disk reports an error",
    Status.NXIO: "its disk is gone",
    Status.EXIST: "it is there already",
    Status.NODEV: "its disk is gone",
    Status.NOTDIR: "a part of the path is not a directory",
    Status.FBIG: "the file is larger than its file system allows",
    Status.NOSPC: "no space left on the server",
    Status.ROFS: "the export is read-only",
    Status.NAMETOOLONG: "the name is too long for its file system",
    Status.DQUOT: "the quota of the user is used up",
    Status.STALE: "it was replaced, or is exported no more",
    Status.BADHANDLE: "it was replaced, or is exported no more",
    Status.NOTSUPP: "it cannot do that",
    Status.SERVERFAULT: "it has an internal error",
}
_NO_SUCH_EXPORT = frozenset({2, 20})
"""What the mount protocol answers for a path that is not there, or not a directory."""


def storage_error(error: Exception, server: str, user: str, doing: str) -> StorageError:
    """The storage error for one of `FAILURES`.

    Args:
        error: what was raised.
        server: its name.
        user: who we are there, such as `uid 1000, gid 1000`.
        doing: what was tried, such as `read "a/b"`.
    """
    if isinstance(error, Malformed):
        return StorageRefused(f'"{server}" does not speak NFS: {error}', "check host and ports")
    if isinstance(error, RpcRejected):
        return StorageRefused(f'"{server}" refused to {doing}: {error}', error.hint)
    status = error.status if isinstance(error, NfsError) else None
    if status in _DENIED:
        hint = f"we are {user}; check owner and mode there, and how the export maps users"
        return StorageDenied(f'"{server}" did not permit to {doing}', hint)
    reason = _REASONS.get(status or 0, f"it answered with code {status}")
    kind = StorageUnavailable if status in _MAY_PASS else StorageRefused
    return kind(f'"{server}" refused to {doing}: {reason}')


def mount_error(error: MountError, server: str, export: str) -> StorageError:
    """The storage error for a refused mount."""
    message = f'"{server}" does not let us mount "{export}"'
    if error.status is None:
        return StorageRefused(message, "it wants Kerberos there; export it with sec=sys as well")
    if error.status in _NO_SUCH_EXPORT:
        return StorageRefused(message, f'it has no such export; "showmount -e {server}" lists them')
    hint = "is this machine among those it is exported to? only root has ports that secure demands"
    return StorageRefused(message, hint)


def reason_of(error: BaseException) -> str:
    """The reason in an error, for the end of a message."""
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
