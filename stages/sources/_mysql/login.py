"""Where to connect and as whom: the configuration, completed from an option file."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import SourceError
from schemas.mysql import MysqlServer
from schemas.tls import Tls
from stages._tls import tls_mode

_GROUPS = ("client", "client-server", "client-mariadb")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "r": "\r", "s": " "}
_LINE = re.compile(r"([\w-]+)\s*(?:=\s*(.*))?", re.DOTALL)
_PORT = 3306


@dataclass(frozen=True)
class Login:
    """Everything a connection needs."""

    host: str
    port: int
    socket: str | None
    user: str
    password: str = field(repr=False)
    tls: Tls
    warnings: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """What messages call the server."""
        return self.socket or f"{self.host}:{self.port}"

    @contextlib.contextmanager
    def option_file(self) -> Iterator[int]:
        """The login as an option file that exists only in memory; give `/dev/fd/N` to a child.

        Nothing of it can be seen in the arguments or the environment of a process.
        """
        descriptor = os.memfd_create("nxs-backup-login")
        try:
            # The programs ignore an option file that others may write.
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, self._options().encode())
            yield descriptor
        finally:
            os.close(descriptor)

    def _options(self) -> str:
        options: dict[str, str | None] = {"user": self.user, "password": self.password}
        if self.socket:
            options |= {"socket": self.socket, "protocol": "socket"}
        else:
            options |= {"host": self.host, "port": str(self.port), "protocol": "tcp"}
        tls = self.tls
        options |= {"ssl-ca": tls.ca, "ssl-cert": tls.cert, "ssl-key": tls.key or tls.cert}
        lines = [f"{name}={_quoted(value)}" for name, value in options.items() if value is not None]
        return "\n".join(["[client]", *lines, ""])


def login(spec: MysqlServer) -> Login:
    """The login that a configuration means.

    Raises:
        SourceError: the option file cannot be read or understood.
    """
    options, warnings = _read(spec.option_file) if spec.option_file else ({}, ())
    host, port, socket = spec.host, spec.port, spec.socket
    if host is None and port is None and socket is None:
        host, socket = options.get("host"), options.get("socket")
        if options.get("protocol", "").lower() == "tcp" or host not in (None, "localhost"):
            socket = None
    password = spec.password.get_secret_value() if spec.password else options.get("password", "")
    return Login(
        host=host or "localhost",
        port=port or _port(options.get("port")),
        socket=socket,
        user=spec.user or options.get("user") or getpass.getuser(),
        password=password,
        tls=_tls(spec.tls, options, host or "localhost", socket),
        warnings=warnings,
    )


def login_of_url(url: str, spec: MysqlServer) -> tuple[Login, str | None]:
    """The login for `mysql://user@host:port/database`, and the database; for `restore --to`.

    The password is that of the configuration for its own server and user, else that of the
    variable MYSQL_PWD: an address on the command line must not hold one.

    Raises:
        SourceError: it is no such address, or holds a password.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("mysql", "mariadb") or port == 0 or parts.query or parts.fragment:
        raise SourceError(
            "the address of the server is not understood",
            "write mysql://user@host:port/database; all but mysql:// may be left out",
        )
    if parts.password is not None:
        raise SourceError(
            "the address of the server must not hold a password: others can see it",
            "set the environment variable MYSQL_PWD instead",
        )
    configured = login(spec)
    user = unquote(parts.username) if parts.username else configured.user
    database = unquote(parts.path.strip("/")) or None
    if not parts.hostname:
        target = configured
    else:
        host = unquote(parts.hostname)
        here = host == configured.host and not configured.socket
        port = port or (configured.port if here else _PORT)
        tls = configured.tls if here else _tls(spec.tls, {}, host, None)
        target = Login(host, port, None, user, "", tls)
    own = (target.address, user) == (configured.address, configured.user)
    password = os.environ.get("MYSQL_PWD", configured.password if own else "")
    return (
        Login(target.host, target.port, target.socket, user, password, target.tls),
        database,
    )


def _read(path: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The options of the groups that every client reads, and what is not safe about the file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise SourceError(f'the option file "{path}" cannot be read: {reason}') from None
    warnings: tuple[str, ...] = ()
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        warnings = (f'warning: the option file "{path}" can be read by others; chmod 600 it',)
    return _parse(text), warnings


def _parse(text: str) -> dict[str, str]:
    """Groups, `name`, `name=value`, comments: the format of my.cnf; other groups are left out."""
    options: dict[str, str] = {}
    wanted = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            wanted = line.strip("[]").strip() in _GROUPS
        match = _LINE.fullmatch(line)
        if wanted and match:
            options[match[1].replace("_", "-").lower()] = _value(match[2] or "")
    return options


def _value(text: str) -> str:
    """A value without its quotes and comment, escapes resolved."""
    found, quote, escaped = "", "", False
    for letter in text:
        if escaped:
            found += _ESCAPES.get(letter, letter if letter in "\\'\"" else f"\\{letter}")
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == quote:
            quote = ""
        elif not found and not quote and letter in "'\"":
            quote = letter
        elif letter == "#" and not quote:
            return found.rstrip()
        else:
            found += letter
    return found + "\\" * escaped


def _port(text: str | None) -> int:
    if text is None:
        return _PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SourceError("the port in the option file is no port")
    return int(text)


def _tls(tls: Tls | None, options: Mapping[str, str], host: str, socket: str | None) -> Tls:
    """The settings with nothing left open: what is in force, and the certificates."""
    if tls is None:
        ca, cert, key = (options.get(name) for name in ("ssl-ca", "ssl-cert", "ssl-key"))
        tls = Tls(mode=None, ca=ca, cert=cert, key=key if cert else None)
    # A socket leaves the machine as little as a pipe does; clients do not encrypt there either.
    off_by_default = socket is not None and tls.mode is None
    settled: dict[str, Any] = {"mode": "off" if off_by_default else tls_mode(tls, host)}
    if settled["mode"] != "verify":
        settled["ca"] = None
    return tls.model_copy(update=settled)


def _quoted(value: str) -> str:
    """A value as an option file holds it."""
    for letter, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(letter, escape)
    return f'"{value}"'
