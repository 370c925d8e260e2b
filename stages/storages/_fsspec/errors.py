"""What the errors of drivers mean: each raises what its own library does, OSError or not."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from enum import Enum, auto

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable


class Kind(Enum):
    """What an error is about; the first of these that fits any link of its chain counts."""

    NAME = auto()
    DISTRUST = auto()
    LOGIN = auto()
    PASSING = auto()
    FULL = auto()
    MISSING = auto()
    EXISTS = auto()
    DENIED = auto()
    UNSUPPORTED = auto()
    OTHER = auto()


_ERRNO = {
    Kind.FULL: {errno.ENOSPC, errno.EDQUOT, errno.EFBIG},
    Kind.MISSING: {errno.ENOENT, errno.ENOTDIR},
    Kind.EXISTS: {errno.EEXIST},
    Kind.DENIED: {errno.EACCES, errno.EPERM},
    Kind.UNSUPPORTED: {errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS},
    Kind.PASSING: {errno.EAGAIN, errno.EBUSY, errno.ENETUNREACH, errno.EHOSTUNREACH}
    | {errno.EHOSTDOWN, errno.ENOTCONN, errno.EREMOTEIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM},
}
_CLASSES: dict[Kind, tuple[type[BaseException], ...]] = {
    Kind.NAME: (UnicodeEncodeError,),
    Kind.DISTRUST: (ssl.SSLCertVerificationError,),
    Kind.PASSING: (ConnectionError, TimeoutError, EOFError, socket.gaierror),
    Kind.MISSING: (FileNotFoundError, NotADirectoryError),
    Kind.EXISTS: (FileExistsError,),
    Kind.DENIED: (PermissionError,),
    Kind.UNSUPPORTED: (NotImplementedError,),
}
# Libraries are not imported for this: their errors are told by the names of their classes.
_NAMES = {
    Kind.DISTRUST: re.compile("Certificate|HostKeyNotVerifiable|BadHostKey|KeyExchangeFailed"),
    Kind.LOGIN: re.compile(
        "^PermissionDenied$|Authenticat|LogonFailure|NoCredentials|PartialCredentials"
        "|CredentialsError|RefreshError|ProfileNotFound|BadStatusLogon"
    ),
    Kind.PASSING: re.compile(
        "Connect|Timeout|TransportError|ServiceRe(quest|sponse)Error|ChannelOpenError"
        "|IncompleteRead|HTTPClientError|SSHException|PayloadError"
    ),
    Kind.DENIED: re.compile("SFTPPermissionDenied|AccessDenied"),
    Kind.MISSING: re.compile("NoSuchFile|ResourceNotFound|ObjectPathNotFound|ObjectNameNotFound"),
    Kind.EXISTS: re.compile("ResourceExists|FileAlreadyExists|ObjectNameCollision"),
    Kind.FULL: re.compile("DiskFull|NoSpaceOnFilesystem|QuotaExceeded"),
    Kind.UNSUPPORTED: re.compile("OpUnsupported"),
}
_CODES = {
    Kind.LOGIN: {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"},
    Kind.PASSING: {"SlowDown", "RequestTimeout", "Throttling", "ServiceUnavailable"},
    Kind.EXISTS: {"ExistingObjectIsDirectory"},
}
"""Of services that speak the protocol of S3."""
_STATUS = {
    401: Kind.LOGIN,
    403: Kind.DENIED,
    404: Kind.MISSING,
    408: Kind.PASSING,
    412: Kind.EXISTS,
    429: Kind.PASSING,
    500: Kind.PASSING,
    501: Kind.UNSUPPORTED,
    502: Kind.PASSING,
    503: Kind.PASSING,
    504: Kind.PASSING,
    507: Kind.FULL,
}
_FULL_TEXT = re.compile(
    r"no space left|disk ?full|quota ?exceeded|storage ?full|insufficient ?storage", re.IGNORECASE
)
_REFUSED_TEXT = re.compile(r"failed to connect|connection refused", re.IGNORECASE)


def kind_of(error: BaseException) -> Kind:
    """What an error, or what it was made of, is about."""
    found = {kind for link in _chain(error) for kind in _kinds(link)}
    return next(kind for kind in Kind if kind in found or kind is Kind.OTHER)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # aiohttp wraps the error of the connection without saying so.
        error = error.__cause__ or getattr(error, "os_error", None)


def _kinds(error: BaseException) -> Iterator[Kind]:
    names = [each.__name__ for each in type(error).__mro__[:-1]]
    for kind, pattern in _NAMES.items():
        if any(pattern.search(name) for name in names):
            yield kind
    for kind, classes in _CLASSES.items():
        if isinstance(error, classes):
            yield kind
    for kind, numbers in _ERRNO.items():
        if isinstance(error, OSError) and error.errno in numbers:
            yield kind
    for kind, codes in _CODES.items():
        if _code(error) in codes:
            yield kind
    status = _status(error)
    if status in _STATUS:
        yield _STATUS[status]
    yield from _kinds_by_text(str(error))


def _kinds_by_text(text: str) -> Iterator[Kind]:
    if _FULL_TEXT.search(text):
        yield Kind.FULL
    if _REFUSED_TEXT.search(text):  # smbprotocol has no more than a ValueError for it.
        yield Kind.PASSING


def _code(error: BaseException) -> str:
    answer = getattr(error, "response", None)
    told = answer.get("Error") if isinstance(answer, dict) else None
    return str(told.get("Code", "")) if isinstance(told, dict) else ""


def _status(error: BaseException) -> int:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
            if isinstance(value, str) and value.isdigit():
                return int(value)
    return 0


def is_missing(error: BaseException) -> bool:
    """Whether something is not there, and that is all: not a connection that broke meanwhile."""
    return kind_of(error) is Kind.MISSING


def reason_of(error: BaseException) -> str:
    """The text of an error in our style: one short line, no capital, no period."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    text = " ".join(str(text).split()).rstrip(".")[:200] or type(error).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def storage_error(error: BaseException, server: str, doing: str) -> StorageError:
    """The error to raise.

    Args:
        error: what a driver raised.
        server: what the file system is called in messages.
        doing: what was tried, such as `read "a/b"`.
    """
    kind, why = kind_of(error), reason_of(error)
    if kind is Kind.PASSING:
        return StorageUnavailable(f'"{server}" could not {doing}: {why}')
    if kind is Kind.DENIED:
        hint = "check what the user may do there"
        return StorageDenied(f'"{server}" did not permit to {doing}: {why}', hint)
    text, advice = _REFUSALS.get(kind, _REFUSALS[Kind.OTHER])
    return StorageRefused(text.format(server=server, doing=doing, why=why), advice)


_REFUSALS = {
    Kind.NAME: ('"{server}" could not {doing}: the name is not UTF-8', None),
    Kind.DISTRUST: (
        '"{server}" cannot be told from an impostor: {why}',
        "name its key or authority in storage_options, as the driver wants it",
    ),
    Kind.LOGIN: (
        '"{server}" refused the login: {why}',
        "check user, password or keys in storage_options",
    ),
    Kind.FULL: (
        '"{server}" could not {doing}: {why}',
        "no space left on the server, or a quota is reached",
    ),
    Kind.MISSING: (
        '"{server}" could not {doing}: {why}',
        "check url; buckets and shares must exist",
    ),
    Kind.EXISTS: ('"{server}" could not {doing}: {why}', "something of that name is in the way"),
    Kind.UNSUPPORTED: (
        '"{server}" could not {doing}: {why}',
        "its driver, or the server, does not know how",
    ),
    Kind.OTHER: ('"{server}" refused to {doing}: {why}', "check url and storage_options"),
}
