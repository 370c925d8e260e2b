"""What the errors of the S3 client mean to a storage."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as ConnectFailed

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable
from stages.storages._s3.http import Stalled

FAILURES = (
    BotoCoreError,
    ClientError,
    aiohttp.ClientError,
    OSError,
    asyncio.TimeoutError,
    EOFError,
    Stalled,
)
"""Everything the client raises."""

_ON_THE_WAY = (ConnectFailed, HTTPClientError, IncompleteReadError, ResponseStreamingError)
"""What the library raises when the service did not answer, or not to the end."""

MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})
"""Ceph says NoSuchKey of an upload that is gone."""
CONFLICT = frozenset({"PreconditionFailed", "412"})
_DENIED = frozenset({"AccessDenied", "Forbidden", "403", "AllAccessDisabled", "UnauthorizedAccess"})
_FULL = frozenset(
    {"QuotaExceeded", "StorageQuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
    | {"InsufficientStorage", "InsufficientCapacity", "TooManyBytes", "507"}
)
_PASSING = frozenset(
    {"SlowDown", "RequestTimeout", "RequestTimeoutException", "Throttling", "ThrottlingException"}
    | {"TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted"}
    # Damaged on the way, or another request for the key at the same moment.
    | {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "ConditionalRequestConflict"}
    # versitygw keeps objects in directories, and removes them together with the last object.
    | {"ExistingObjectIsDirectory"}
)
_LOGIN = {
    "InvalidAccessKeyId": ("does not know the access key", "check access_key"),
    "SignatureDoesNotMatch": ("did not accept the signature", "check secret_key"),
    "ExpiredToken": ("says that the credentials have expired", "get a new session_token"),
    "InvalidToken": ("did not accept the session token", "check session_token"),
    "RequestTimeTooSkewed": ("says that our clock is wrong", "set the clock of this machine"),
    "AuthorizationHeaderMalformed": ("did not accept the signature", "check region"),
    "PermanentRedirect": ("keeps the bucket elsewhere", "check region and endpoint"),
    "IllegalLocationConstraintException": ("keeps the bucket elsewhere", "check region"),
}


def code_of(error: BaseException) -> str:
    """The code of the service's answer; empty when it did not answer."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _answer(error: BaseException) -> dict[str, Any]:
    return error.response if isinstance(error, ClientError) else {}


def status_of(error: BaseException) -> int:
    """The HTTP status of the service's answer; 0 when it did not answer."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: BaseException) -> bool:
    """Whether there is no such object or upload; a missing bucket is something else."""
    return code_of(error) in MISSING


def is_conflict(error: BaseException) -> bool:
    """Whether a condition of ours was not met."""
    return code_of(error) in CONFLICT


def is_unsupported(error: BaseException) -> bool:
    """Whether the service does not know this kind of request, or a header of it."""
    known = {"NotImplemented", "MethodNotAllowed", "MalformedXML", "MissingContentMD5"}
    return code_of(error) in known or status_of(error) in (405, 501)


def translate(error: BaseException, server: str, bucket: str, doing: str) -> StorageError:
    """What an error of the client means.

    Args:
        server: what the service is called in messages.
        bucket: name of the bucket.
        doing: what was tried, such as `read "a/b"`.
    """
    if isinstance(error, ClientError):
        return _answered(error, server, bucket, doing)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        hint = "set access_key and secret_key, a profile, or the role of this machine"
        return StorageRefused("no credentials found", hint)
    if isinstance(error, ProfileNotFound):
        return StorageRefused("the profile does not exist", "check profile and ~/.aws")
    if isinstance(error, Stalled):
        return StorageUnavailable(f'"{server}" stands still, could not {doing}')
    if _is_distrust(error):
        hint = "set tls.ca to the authority that signed it"
        why = reason_of(_root(error))
        return StorageRefused(f'the certificate of "{server}" is not trusted: {why}', hint)
    if isinstance(error, BotoCoreError) and not isinstance(error, _ON_THE_WAY):
        return StorageRefused(f'cannot {doing} on "{server}": {reason_of(error)}')
    return StorageUnavailable(f'cannot reach "{server}" to {doing}: {reason_of(_root(error))}')


def _answered(error: Any, server: str, bucket: str, doing: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    if code in _LOGIN:
        what, hint = _LOGIN[code]
        return StorageRefused(f'"{server}" {what}', hint)
    if code == "NoSuchBucket":
        return StorageRefused(f'bucket "{bucket}" does not exist on "{server}"', "make it first")
    if code in _FULL or status == 507:
        return StorageRefused(f'"{server}" has no room, could not {doing}', "disk full, or a quota")
    if code in _DENIED:
        hint = "check the policy of the user and of the bucket"
        return StorageDenied(f'"{server}" did not permit to {doing}', hint)
    why = reason_of(error)
    if code in _PASSING or status in (408, 429) or (status >= 500 and status != 501):
        return StorageUnavailable(f'"{server}" could not {doing}: {why}')
    return StorageRefused(f'"{server}" refused to {doing}: {why}')


def _is_distrust(error: BaseException) -> bool:
    """A certificate that is not trusted; not a connection that broke while TLS was set up."""
    kinds = ("CertificateError", "CertificateVerif", "SSLCertVerificationError")
    wrapped = isinstance(error, (SSLError, aiohttp.ClientSSLError))
    return wrapped and any(kind in type(_root(error)).__name__ for kind in kinds)


def _root(error: BaseException) -> BaseException:
    """What a wrapper of the library was made of."""
    for _ in range(5):
        inner = getattr(error, "kwargs", {}).get("error") or getattr(error, "os_error", None)
        inner = inner or getattr(error, "certificate_error", None)
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    return error


def reason_of(error: BaseException) -> str:
    """The text of an error in our style: one short line, no capital, no period."""
    if isinstance(error, ClientError):
        told = _answer(error).get("Error", {})
        code = code_of(error)
        message = str(told.get("Message") or "").rstrip(".")
        text = f"{message} ({code})" if code and message else message or code
    else:
        text = getattr(error, "strerror", None) or str(error)
    text = " ".join(text.split()).rstrip(".")[:200] or type(error).__name__
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
