"""What a storage does over one FTP connection, whichever of its commands the server knows."""

from __future__ import annotations

import ftplib
import posixpath
from collections.abc import Iterator
from contextlib import suppress

from stages.storages._ftp.errors import (
    NOT_UNDERSTOOD,
    code_of,
    is_absent,
    is_denied,
    is_lost,
    is_present,
)
from stages.storages._ftp.listing import Entry, parse_list, parse_mlsd
from stages.storages._ftp.wire import Wire

_MISSING = frozenset({"550", "553", "501"})
"""Codes that servers have for what is not there; alas not for that alone."""
_REFUSED = (ftplib.error_perm, ftplib.error_temp)


class FileMissing(Exception):
    """There is no such file, or no such directory."""


def is_missing(error: ftplib.Error) -> bool:
    """Whether a reply can mean that something is not there."""
    return code_of(error) in _MISSING and not is_denied(error)


class Client(Wire):
    """One connection that is logged in; paths are absolute."""

    features: frozenset[str] = frozenset()
    """Commands beyond the old ones, as the server tells them."""

    def log_in(self, user: str, password: str) -> None:
        """Give name and password; `features` and binary transfers come with it.

        Raises:
            LoginRefused: they do not fit.
        """
        try:
            if self.sendcmd(f"USER {user}")[0] == "3":
                self.voidcmd(f"PASS {password}")
        except ftplib.Error as error:
            raise LoginRefused(error) from None

    def get_ready(self, encrypted: bool) -> None:
        """After the login: protect the data connections, and settle how bytes and names go."""
        if encrypted:
            self.voidcmd("PBSZ 0")
            self.voidcmd("PROT P")
        self.features = self._ask_features()
        if "UTF8" in self.features:
            with suppress(*_REFUSED):  # The newer standard has it on without being asked.
                self.sendcmd("OPTS UTF8 ON")
        self.voidcmd("TYPE I")
        self.logged_in()

    def _ask_features(self) -> frozenset[str]:
        try:
            _, *lines = self.sendcmd("FEAT").splitlines()
        except _REFUSED:
            return frozenset()
        return frozenset(line.split()[0].upper() for line in lines if line[:1] == " " and line[1:])

    def home(self) -> str:
        """The directory one is in after the login."""
        return ftplib.parse257(self.sendcmd("PWD")) or "/"

    # Looking

    def size_of(self, path: str) -> int | None:
        """The size of a file, in bytes; None when the server does not tell.

        Raises:
            FileMissing: there is no such file.
        """
        try:
            return int(self.sendcmd(f"SIZE {path}").split()[1])
        except _REFUSED as error:
            if is_missing(error) and code_of(error) not in NOT_UNDERSTOOD:
                raise FileMissing from error
            if is_lost(error):
                raise
        except (IndexError, ValueError):
            pass  # A reply without a number tells nothing.
        return None

    def exists(self, path: str) -> bool:
        """Whether there is anything of this name.

        False as well when the server lets us ask in no way at all, as it may do with users who
        are to write only.
        """
        newer = ["MLST"] if "MLST" in self.features else []
        for question in ("SIZE", *newer, "RNFR"):
            try:
                self.sendcmd(f"{question} {path}")
            except _REFUSED as error:
                if is_lost(error):
                    raise
                if is_absent(error):
                    return False
            else:
                # After a RNFR, some servers take nothing but a RNTO.
                self.is_spent = self.is_spent or question == "RNFR"
                return True
        return False

    def is_directory(self, path: str) -> bool:
        try:
            self.sendcmd(f"CWD {path}")
        except _REFUSED as error:
            if is_lost(error):
                raise
            return False
        return True

    def list_directory(self, path: str) -> list[Entry]:
        """Files and directories, hidden ones too.

        Raises:
            FileMissing: there is no such directory.
            NotUnderstood: the server lists in a way we do not know.
        """
        try:
            if "MLST" in self.features:
                return list(parse_mlsd(self._lines(f"MLSD {path}")))
            # Not as an argument: some servers take blanks and brackets there for patterns.
            self.sendcmd(f"CWD {path}")
            return self._list_here()
        except _REFUSED as error:
            if is_lost(error) or not is_missing(error) or self._may_exist(path):
                raise
            raise FileMissing from error

    def _may_exist(self, path: str) -> bool:
        """Whether a directory is there, if only we may not look into it."""
        try:
            self.sendcmd(f"CWD {path}")
        except _REFUSED as error:
            return is_denied(error)
        return True

    def _list_here(self) -> list[Entry]:
        """LIST the working directory, with hidden files where the server has a way to ask."""
        with suppress(*_REFUSED):
            lines = list(self._lines("LIST -a"))
            # A server that took it for a name, or showed nothing hidden, has not listed this.
            if any(line.endswith(" .") for line in lines):
                return list(parse_list(lines))
        return list(parse_list(self._lines("LIST")))

    def _lines(self, command: str) -> Iterator[str]:
        rest = b""
        for chunk in self.download(command):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.rstrip(b"\r").decode("utf-8", "surrogateescape")
        if rest:
            yield rest.decode("utf-8", "surrogateescape")

    # Changing

    def make_directories(self, path: str) -> None:
        """Make a directory and those above it; existing ones are fine."""
        if path in ("", "/") or self.is_directory(path):
            return
        self.make_directories(posixpath.dirname(path))
        try:
            self.sendcmd(f"MKD {path}")
        except _REFUSED as error:
            # Somebody may have been faster, and may have removed it again.
            if is_lost(error) or not (is_present(error) or self.is_directory(path)):
                raise

    def store(self, path: str, offset: int) -> None:
        """Start to write a file from an offset on; what lies before it stays.

        Bytes that the server still has of a connection that broke are written to the same place
        again, unlike with `append`.
        """
        self.start_upload(f"STOR {path}", offset)

    def append(self, path: str) -> None:
        """Start to write at the end of a file."""
        self.start_upload(f"APPE {path}")

    def remove(self, path: str) -> None:
        """Remove a file; one that does not exist is fine."""
        try:
            self.sendcmd(f"DELE {path}")
        except _REFUSED as error:
            if is_lost(error) or not is_missing(error) or self.exists(path):
                raise

    def remove_empty_parents(self, root: str, name: str) -> None:
        """Remove the directories above an object that hold nothing any more, but never the root."""
        parts = name.split("/")[:-1]
        with suppress(*_REFUSED):  # Not empty: the usual end.
            while parts:
                self.sendcmd(f"RMD {posixpath.join(root, *parts)}")
                parts.pop()


class LoginRefused(Exception):
    """User and password are not accepted; `reply` has the server's words."""

    def __init__(self, reply: ftplib.Error) -> None:
        super().__init__("login refused")
        self.reply = reply
