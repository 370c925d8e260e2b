"""What the errors of an SMB server mean to a storage."""

from __future__ import annotations

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable
from stages.storages._smb.types import Malformed, SmbError, Status

FAILURES = (SmbError, Malformed)
"""Everything that an answer of a server can mean; a lost connection is a storage error already."""
MISSING = frozenset(
    {
        Status.OBJECT_NAME_NOT_FOUND,
        Status.OBJECT_PATH_NOT_FOUND,
        Status.OBJECT_PATH_INVALID,
        Status.NO_SUCH_FILE,
        Status.NOT_A_DIRECTORY,
        Status.FILE_IS_A_DIRECTORY,
    }
)
"""There is no file, or directory, whichever was asked for."""
NO_DIRECTORY = frozenset({Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND})
"""What is to be made has no directory to be made in."""

_DENIED = frozenset({Status.ACCESS_DENIED, Status.PRIVILEGE_NOT_HELD, Status.CANNOT_DELETE})
_MAY_PASS = frozenset({Status.SHARING_VIOLATION, Status.FILE_LOCK_CONFLICT, Status.DELETE_PENDING})
_IN_USE = "somebody has it open"
_REASONS: dict[int, str] = {
    Status.STOPPED_ON_SYMLINK: "a part of the path is a symbolic link",
    Status.INVALID_PARAMETER: "it does not understand the request",
    Status.OBJECT_NAME_INVALID: "it does not allow such a name",
    Status.OBJECT_NAME_NOT_FOUND: "it is not there (any more)",
    Status.OBJECT_NAME_COLLISION: "it is there already",
    Status.OBJECT_PATH_INVALID: "a part of the path is not a directory",
    Status.OBJECT_PATH_NOT_FOUND: "a part of the path is not there (any more)",
    Status.OBJECT_PATH_SYNTAX_BAD: "it does not allow such a name",
    Status.SHARING_VIOLATION: _IN_USE,
    Status.FILE_LOCK_CONFLICT: _IN_USE,
    Status.DELETE_PENDING: "it goes away when everybody has closed it",
    Status.QUOTA_EXCEEDED: "the quota of the user is used up",
    Status.DISK_FULL: "no space left on the server",
    Status.MEDIA_WRITE_PROTECTED: "the share is read-only",
    Status.FILE_IS_A_DIRECTORY: "it is a directory",
    Status.NOT_SUPPORTED: "it cannot do that",
    Status.NOT_A_DIRECTORY: "a part of the path is not a directory",
    Status.NAME_TOO_LONG: "the name is too long",
    Status.PATH_NOT_COVERED: "it is a link to another server (DFS); name that one",
    Status.FILE_TOO_LARGE: "the file is larger than its file system allows",
}
_LOGIN_HINTS: dict[int, str] = {
    Status.LOGON_FAILURE: "check user and password",
    Status.ACCESS_DENIED: "check user and password",
    Status.ACCOUNT_RESTRICTION: "the account is restricted; an empty password may be why",
    Status.INVALID_LOGON_HOURS: "the account may not be used at this hour",
    Status.INVALID_WORKSTATION: "the account may not be used from this machine",
    Status.PASSWORD_EXPIRED: "the password has expired",
    Status.PASSWORD_MUST_CHANGE: "the password has to be changed first",
    Status.ACCOUNT_DISABLED: "the account is disabled",
    Status.ACCOUNT_LOCKED_OUT: "the account is locked",
    Status.LOGON_TYPE_NOT_GRANTED: "the account may not log in over the network",
}


def storage_error(error: Exception, server: str, user: str, doing: str) -> StorageError:
    """The storage error for one of `FAILURES`.

    Args:
        error: what was raised.
        server: its name.
        user: who we are there.
        doing: what was tried, such as `read "a/b"`.
    """
    if isinstance(error, Malformed):
        return StorageRefused(
            f'"{server}" does not speak SMB: {error}', "check host and port, and who is on the way"
        )
    status = error.status if isinstance(error, SmbError) else Status.OK
    if status in _DENIED:
        hint = f'check what "{user}" may do with the share, and with its files'
        return StorageDenied(f'"{server}" did not permit to {doing}', hint)
    reason = _REASONS.get(status, f"it answered with {error}")
    kind = StorageUnavailable if status in _MAY_PASS else StorageRefused
    return kind(f'"{server}" refused to {doing}: {reason}')


def login_refusal(error: SmbError, server: str, user: str) -> StorageError:
    hint = _LOGIN_HINTS.get(error.status, f"it answered with {error}")
    return StorageRefused(f'"{server}" refused the login of "{user}"', hint)


def share_refusal(error: SmbError, server: str, share: str, user: str) -> StorageError:
    if error.status == Status.BAD_NETWORK_NAME:
        hint = f'"smbclient -L {server} -U {user}" lists those it has'
        return StorageRefused(f'"{server}" has no share "{share}"', hint)
    doing = f'use the share "{share}"'
    if error.status == Status.ACCESS_DENIED:
        hint = f'may "{user}" use it, and does the server want encryption? then set encrypt: true'
        return StorageDenied(f'"{server}" did not permit to {doing}', hint)
    return StorageRefused(f'"{server}" refused to {doing}', _REASONS.get(error.status, str(error)))


def reason_of(error: BaseException) -> str:
    """The reason in an error, for the end of a message."""
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
