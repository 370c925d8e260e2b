"""Where to connect and as whom: for the driver, and for the programs of MongoDB."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlencode, urlsplit, urlunsplit

from pymongo.uri_parser import split_hosts

from pipeline.errors import ConfigError, SourceError
from schemas.mongodb import MongodbSource
from schemas.tls import Tls
from stages._tls import ssl_context, tls_mode

PASSWORD = "MONGODB_PASSWORD"
"""Variable with the password for `restore --to`."""
_PORT = 27017
_SCHEMES = ("mongodb", "mongodb+srv")


def address(spec: MongodbSource) -> str:
    """What messages call the server, or the servers, without a login."""
    if spec.uri is not None:
        return urlsplit(spec.uri.get_secret_value()).netloc.rpartition("@")[2]
    return f"[{spec.host}]:{spec.port}" if ":" in spec.host else f"{spec.host}:{spec.port}"


@contextlib.contextmanager
def connection_string(spec: MongodbSource) -> Iterator[str]:
    """The login as a URI, for everybody; files it names exist for as long as the block runs.

    Raises:
        SourceError: the server cannot be reached. ConfigError: a file of TLS cannot be used.
    """
    with contextlib.ExitStack() as stack:
        options = dict(_tls_options(spec, stack))
        if spec.uri is not None:
            yield _with_options(spec.uri.get_secret_value(), options)
            return
        yield f"mongodb://{_who(spec)}{address(spec)}/?{_encoded(_login_options(spec) | options)}"


@contextlib.contextmanager
def config_file(uri: str) -> Iterator[int]:
    """The URI in a configuration file of the programs that exists only in memory.

    Nothing of it can be seen in the arguments or the environment of a process. The password has a
    line of its own: the programs print the URI when they cannot connect. A database in it stays
    only as the one that knows the user: they would take it for the one that is meant.
    """
    parts = urlsplit(uri)
    database = parts.path.strip("/")
    if database:
        source = "" if "authsource=" in parts.query.lower() else f"authSource={database}"
        query = "&".join(filter(None, [parts.query, source]))
        parts = parts._replace(path="/", query=query)
    who, at, servers = parts.netloc.rpartition("@")
    user, colon, password = who.partition(":")
    lines = {"uri": urlunsplit(parts._replace(netloc=user + at + servers))}
    if colon:
        lines["password"] = unquote_plus(password)
    with contextlib.ExitStack() as stack:
        text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in lines.items())
        yield _in_memory(text.encode(), stack)


def login_of_url(url: str, spec: MongodbSource) -> tuple[MongodbSource, str | None]:
    """The login for `mongodb://user@host:port/database`, and the database; for `restore --to`.

    The password is that of the variable MONGODB_PASSWORD, else that of the configuration when user
    and servers are the same: an address on the command line must not hold one.

    Raises:
        SourceError: it is no such address, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc or parts.fragment:
        raise SourceError(
            "the address of the server is not understood",
            "write mongodb://user@host:port/database; user, port and database may be left out",
        )
    login, _, servers = parts.netloc.rpartition("@")
    if ":" in login:
        raise SourceError(
            "the address of the server must not hold a password: others can see it",
            f"set the environment variable {PASSWORD} instead",
        )
    user, password = _own_login(spec, servers)
    if login and unquote(login) != user:
        user, password = unquote(login), None
    password = os.environ.get(PASSWORD, password)
    netloc = servers
    if user:
        secret = f":{quote_plus(password)}" if password is not None else ""
        netloc = f"{quote_plus(user)}{secret}@{servers}"
    query = parts.query or _encoded(_options_there(spec, servers, user))
    uri = urlunsplit((parts.scheme, netloc, "/", query, ""))
    tls = spec.tls
    if tls is None and spec.uri is None and "tls=" not in query.lower():
        tls = Tls(mode=None)  # As for the server that is backed up: with it, unless here.
    values = {"type": "mongodb", "uri": uri, "tls": tls, "timeout": "1h"}
    database = unquote(parts.path.strip("/")) or None
    return MongodbSource.model_validate(values), database


def _options_there(spec: MongodbSource, servers: str, user: str | None) -> dict[str, str]:
    """How to log in, for an address without options."""
    if spec.uri is None and _is_own(spec, servers):
        return _login_options(spec)
    return {"authSource": "admin"} if user else {}


def _is_own(spec: MongodbSource, servers: str) -> bool:
    return split_hosts(servers) == split_hosts(address(spec))


def _own_login(spec: MongodbSource, servers: str) -> tuple[str | None, str | None]:
    """User and password of the configuration, when it is about these servers."""
    if not _is_own(spec, servers):
        return None, None
    if spec.uri is None:
        return spec.user, spec.password.get_secret_value() if spec.password else None
    user, colon, password = (
        urlsplit(spec.uri.get_secret_value()).netloc.rpartition("@")[0].partition(":")
    )
    return unquote(user) or None, unquote(password) if colon else None


def _who(spec: MongodbSource) -> str:
    if spec.user is None:
        return ""
    secret = f":{quote_plus(spec.password.get_secret_value())}" if spec.password else ""
    return f"{quote_plus(spec.user)}{secret}@"


def _login_options(spec: MongodbSource) -> dict[str, str]:
    is_x509 = spec.auth_mechanism == "MONGODB-X509"
    is_known = spec.user is not None or is_x509
    source = spec.auth_source or ("$external" if is_x509 else "admin")
    options = {
        "authSource": source if is_known else None,
        "authMechanism": spec.auth_mechanism,
        "replicaSet": spec.replica_set,
        "directConnection": "true" if spec.replica_set is None and not spec.uri else None,
    }
    return {name: value for name, value in options.items() if value is not None}


def _tls_options(spec: MongodbSource, stack: contextlib.ExitStack) -> Iterator[tuple[str, str]]:
    """The TLS options of a URI; none for one that the user wrote and that is to count."""
    if spec.uri is not None and spec.tls is None:
        return
    host, port = split_hosts(address(spec))[0]
    mode, tls = tls_mode(spec.tls, host), spec.tls or Tls(mode=None)
    context = ssl_context(spec.tls, host)  # Says which file cannot be used.
    if context is None or (
        mode == "prefer" and not _speaks_tls(host, port or _PORT, spec.connect_timeout)
    ):
        yield "tls", "false"
        return
    yield "tls", "true"
    if mode != "verify":
        yield "tlsInsecure", "true"
    if tls.ca is not None:
        yield "tlsCAFile", tls.ca
    if tls.cert is not None:
        yield "tlsCertificateKeyFile", _certificate(tls.cert, tls.key, stack)


def _certificate(cert: str, key: str | None, stack: contextlib.ExitStack) -> str:
    """A file with both: the drivers take no two."""
    if key is None:
        return cert
    try:
        both = Path(cert).read_bytes() + b"\n" + Path(key).read_bytes()
    except OSError as error:
        raise ConfigError(f'"{cert}" or "{key}" cannot be read: {error.strerror}') from None
    return f"/proc/{os.getpid()}/fd/{_in_memory(both, stack)}"


def _in_memory(content: bytes, stack: contextlib.ExitStack) -> int:
    """A file that has no name, and is gone at the end of the block."""
    descriptor = os.memfd_create("nxs-backup-login")
    stack.callback(os.close, descriptor)
    os.fchmod(descriptor, 0o600)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return descriptor


def _speaks_tls(host: str, port: int, patience: float) -> bool:
    """Whether the port takes TLS; one without ends the connection."""
    context = ssl_context(Tls(mode="require"), host)
    assert context is not None
    try:
        with socket.create_connection((host, port), patience) as plain:
            # A server that speaks in the clear may wait for more of what it takes for a message.
            plain.settimeout(min(patience, 3))
            with context.wrap_socket(plain):
                return True
    except OSError:
        return False


def _with_options(uri: str, options: dict[str, str]) -> str:
    if not options:
        return uri
    parts = urlsplit(uri)
    query = "&".join(filter(None, [parts.query, _encoded(options)]))
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, ""))


def _encoded(options: dict[str, str]) -> str:
    return urlencode(options, quote_via=quote)
