"""What the replies of an FTP server, and the silence of one, mean to a storage."""

from __future__ import annotations

import ftplib
import ssl

from pipeline.errors import StorageDenied, StorageError, StorageRefused, StorageUnavailable

FAILURES = (ftplib.Error, OSError, EOFError)
"""Everything that talking to a server raises."""
NOT_UNDERSTOOD = frozenset({"500", "501", "502", "504"})
_FULL = frozenset({"452", "552"})
_GOING_AWAY = "421"
_MAY_PASS = frozenset({"425", "426", "450", "451"})
_ABSENT = ("no such", "not found", "cannot find", "not exist", "n't exist")
_DENIED = ("denied", "permission", "permitted", "not allowed", "forbidden", "failed to open")
_TOO_MANY = ("maximum", "too many", "exceeded the limit")


def code_of(error: BaseException) -> str:
    """The three digits of a reply; empty when there was none."""
    return str(error)[:3] if isinstance(error, ftplib.Error) else ""


def is_absent(error: BaseException) -> bool:
    """Whether a reply says in so many words that something is not there."""
    return any(word in str(error).lower() for word in _ABSENT)


def is_present(error: BaseException) -> bool:
    """Whether a reply says that something is there already."""
    return "exist" in str(error).lower() and not is_absent(error)


def is_denied(error: BaseException) -> bool:
    """Whether a reply speaks of permissions: its code alone says the same for a missing file."""
    # Names stand in replies as well, and may be made of such words.
    return any(word in str(error).lower() for word in _DENIED) and not is_absent(error)


def is_lost(error: BaseException) -> bool:
    """Whether the connection cannot be used any more."""
    return not isinstance(error, ftplib.Error) or code_of(error) == _GOING_AWAY


def reason_of(error: BaseException) -> str:
    """The text of an error in our style: one short line, no code, no capital, no period."""
    if isinstance(error, ftplib.Error):
        text = str(error).lstrip("0123456789- ")
    elif isinstance(error, (EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        text = "it closed the connection"
    elif isinstance(error, ssl.SSLError):
        text = getattr(error, "verify_message", "") or error.reason or ""
        text = text.replace("_", " ").lower()
    else:
        text = (isinstance(error, OSError) and error.strerror) or str(error)
    text = " ".join(text.split()).rstrip(".")[:200] or type(error).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def storage_error(error: BaseException, server: str, doing: str) -> StorageError:
    """The error to raise.

    Args:
        error: one of `FAILURES`.
        server: `host:port`.
        doing: what was tried, such as `read "a/b"`.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return StorageRefused(
            f'the certificate of "{server}" is not trusted: {reason_of(error)}',
            "name the authority in tls.ca, or set another tls.mode",
        )
    code = code_of(error)
    if is_lost(error):
        return StorageUnavailable(
            f'lost the connection to "{server}", could not {doing}: {reason_of(error)}'
        )
    if code in _FULL:
        return StorageRefused(
            f'"{server}" could not {doing}: {reason_of(error)}',
            "no space left on the server, or a quota is reached",
        )
    if is_denied(error):
        return StorageDenied(
            f'"{server}" did not permit to {doing}: {reason_of(error)}',
            "check owner and mode there, and what the user may do",
        )
    if code in _MAY_PASS:
        return StorageUnavailable(f'"{server}" could not {doing}: {reason_of(error)}')
    return StorageRefused(f'"{server}" refused to {doing}: {reason_of(error)}')


def login_error(error: BaseException, server: str, user: str) -> StorageError:
    """What a refused USER or PASS means; the server's words are left out, they could tell more."""
    if is_lost(error):
        return storage_error(error, server, "log in")
    if any(word in str(error).lower() for word in _TOO_MANY) or code_of(error)[:1] == "4":
        return StorageUnavailable(f'"{server}" takes no more logins of "{user}" now')
    return StorageRefused(f'"{server}" refused the login of "{user}"', "check user and password")
