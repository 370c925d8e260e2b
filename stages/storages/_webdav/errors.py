"""What statuses, and the silence of a server, mean to a storage."""

from __future__ import annotations

import ssl
from http import HTTPStatus

import h11

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable

FAILURES = (OSError, h11.ProtocolError)
"""Everything that talking to a server raises."""
TRY_AGAIN = frozenset({408, 423, 425, 429, 502, 503, 504})
"""Statuses that may pass."""
NOT_RESUMED = "WebDAV cannot go on with an upload that broke; only a new run can"
_REASONS = {425: "too early", 451: "unavailable for legal reasons", 507: "insufficient storage"}
_CERTIFICATE_ASKED = (
    "CERTIFICATE_REQUIRED",
    "HANDSHAKE_FAILURE",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_EXPIRED",
)
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
_HINTS = {
    405: "the server does not speak WebDAV there; is `url` the address of its WebDAV service?",
    411: "the server takes no upload whose size is not known before",
    413: "the server limits the size of an upload; raise that limit, or see the stage split",
    414: "the name is too long for the server",
    415: "the server does not take such content",
    422: "the server did not understand the request",
    501: "the server does not speak WebDAV there; is `url` the address of its WebDAV service?",
    507: "no space left on the server, or a quota is reached",
}


class Unreachable(ConnectionError):
    """There is nobody to talk to."""


def described(status: int) -> str:
    """A status for people: `403 forbidden`."""
    try:
        reason = _REASONS.get(status) or HTTPStatus(status).phrase.lower()
    except ValueError:
        return f"status {status}"
    return f"{status} {reason}"


def reason_of(error: BaseException) -> str:
    """The text of an error in our style: short, no capital, no period."""
    if isinstance(error, h11.ProtocolError):
        return "it answered with something that is not HTTP"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "it closed the connection"
    if isinstance(error, ssl.SSLError):
        text = getattr(error, "verify_message", "") or error.reason or ""
        return text.replace("_", " ").lower() or "TLS failed"
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    text = text.rstrip(".")
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def status_error(status: int, server: str, doing: str) -> StorageError:
    """The error for a status that is no success.

    Args:
        status: what the server answered.
        server: `host:port`.
        doing: what was tried, such as `read "a/b"`.
    """
    if status == 403:
        return StorageDenied(
            f'"{server}" did not permit to {doing}: {described(status)}',
            "check owner and mode there, and what the user may do",
        )
    if status == 507:
        return StorageRefused(f'"{server}" could not {doing}: {described(status)}', _HINTS[status])
    if status in TRY_AGAIN or (status >= 500 and status not in _HINTS):
        hint = "its own log tells why; a full disk is one reason" if status == 500 else None
        return StorageUnavailable(f'"{server}" could not {doing}: {described(status)}', hint)
    return StorageRefused(
        f'"{server}" refused to {doing}: {described(status)}',
        _HINTS.get(status, "is `url` the address of a WebDAV collection?"),
    )


def connection_error(error: BaseException, server: str, doing: str) -> StorageError:
    """The error for one of `FAILURES`: refused when another attempt would end alike."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return StorageRefused(
            f'the certificate of "{server}" is not trusted: {reason_of(error)}',
            "name the authority in tls.ca, or set another tls.mode",
        )
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    if any(word in reason for word in _CERTIFICATE_ASKED):
        return StorageRefused(
            f'"{server}" broke the connection off: {reason_of(error)}',
            "it may want a certificate of ours; see tls.cert",
        )
    if any(word in reason for word in _NOT_TLS):
        return StorageRefused(f'"{server}" does not speak TLS', "is it http://, or another port?")
    if isinstance(error, Unreachable):
        return StorageUnavailable(f'"{server}" cannot be reached: {reason_of(error)}')
    if isinstance(error, h11.ProtocolError):
        return StorageRefused(f'"{server}" does not speak HTTP', "check host and port of `url`")
    return StorageUnavailable(
        f'lost the connection to "{server}", could not {doing}: {reason_of(error)}'
    )
