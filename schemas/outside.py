"""Values from outside the configuration: files, and credentials of systemd.

They are secrets, all of them: no message repeats one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

LARGEST = 1 << 20
"""Bytes of a value."""
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_CREDENTIAL = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9_.@-]*")


class NoValue(Exception):
    """A value cannot be had; neither text repeats it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def of_file(path: Path, what: str, hint: str | None) -> str:
    """The text of a file, without its last line break.

    Args:
        what: how messages call it; the path may be a value of the configuration.
        hint: for a file that cannot be read.

    Raises:
        NoValue: it cannot be read, is too large, or is not text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        # Only the system's own words: the path is a value of the configuration.
        reason = (error.strerror or "unknown error").lower()
        raise NoValue(f"{what} cannot be read: {reason}", hint) from None
    except ValueError:
        raise NoValue(f"{what} cannot be read: no file can have this name") from None
    if len(data) > LARGEST:
        raise NoValue(f"{what} is larger than 1MiB", "it should hold one value")
    return text_of(data, what)


def of_credential(name: str, environ: Mapping[str, str]) -> str:
    """A credential that systemd has handed to this unit (systemd.exec(5), LoadCredential=).

    Raises:
        NoValue: there is none of this name, or there are none at all.
    """
    if not _CREDENTIAL.fullmatch(name):
        raise NoValue('"${cred:...}" names no credential', "write ${cred:NAME}")
    folder = environ.get(_CREDENTIALS)
    if not folder:
        raise NoValue(
            f'there are no credentials: "{_CREDENTIALS}" is not set',
            f"systemd sets it for a unit that has LoadCredential={name}:/path",
        )
    hint = f"add LoadCredential={name}:/path to the unit"
    return of_file(Path(folder, name), f'the credential "{name}"', hint)


def text_of(data: bytes, what: str) -> str:
    """A value without its last line break.

    Raises:
        NoValue: it is not text.
    """
    try:
        value = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NoValue(f"{what} is not UTF-8 text") from None
    value = value[:-1] if value.endswith("\n") else value
    return value[:-1] if value.endswith("\r") else value
