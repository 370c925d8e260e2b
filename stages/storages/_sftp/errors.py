"""What the errors of asyncssh mean to a storage."""

from __future__ import annotations

import asyncio

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable
from stages.storages._sftp.quiet_asyncssh import asyncssh

LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
"""Errors of SFTP that are not answers of the server."""
_UNAVAILABLE = (
    *LOST,
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncio.TimeoutError,
    EOFError,
    OSError,
)
"""What the library raises when the server is gone."""
FAILURES = (asyncssh.Error, OSError, asyncio.TimeoutError, EOFError)
"""Everything the library raises."""
MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


class Lost(StorageUnavailable):
    """The connection broke or fell silent: another one may do."""


def storage_error(
    error: BaseException, server: str, doing: str, loss: BaseException | None = None
) -> StorageError:
    """An error of the library as one of ours.

    Args:
        error: as raised.
        server: its name, for the message.
        doing: what was tried, such as `read "a/b"`.
        loss: why the connection was lost, where that is known; it often tells more.
    """
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        hint = "check owner and mode there"
        return StorageDenied(f'"{server}" did not permit to {doing}', hint)
    if not isinstance(error, _UNAVAILABLE):
        vague = isinstance(error, asyncssh.SFTPFailure)
        hint = "SFTP has one code for most failures; the log of the server may tell more"
        return StorageRefused(
            f'"{server}" refused to {doing}: {reason_of(error)}', hint if vague else None
        )
    return Lost(f'lost the connection to "{server}", could not {doing}: {reason_of(loss or error)}')


def was_closed(server: str) -> StorageUnavailable:
    return StorageUnavailable(f'the connection to "{server}" was closed')


def reason_of(error: BaseException) -> str:
    """The text of a library's error in our style: one short line, no capital, no period."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split()).rstrip(".")[:200] or type(error).__name__
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
