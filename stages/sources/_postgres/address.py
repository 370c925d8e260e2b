"""Where a server is, as libpq and its programs are told: a connection string."""

from __future__ import annotations

import os
import ssl

from pipeline.errors import ConfigError
from schemas.postgres import PostgresServer
from stages._tls import tls_mode

_SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_PATIENCE = {
    "connect_timeout": "15",
    "keepalives_idle": "60",
    "keepalives_interval": "15",
    "keepalives_count": "8",
    # Ours may rightly take nothing for long, while a storage is slow: no tcp_user_timeout.
}
NAME = "nxs-backup"


def connection_string(
    server: PostgresServer,
    database: str | None,
    with_password: bool = False,
    extra: dict[str, str] | None = None,
) -> str:
    """What libpq connects with; None as the database is a connection for replication.

    Args:
        with_password: only for our own process: the arguments of a program can be seen by all.
    """
    settings = {
        "host": server.host,
        "port": str(server.port),
        "user": server.user,
        "dbname": database if database is not None else "replication",
        "application_name": NAME,
        "gssencmode": "disable",
        **_PATIENCE,
        **_tls(server),
        **(extra or {}),
    }
    if database is None:
        settings["replication"] = "true"
    if server.passfile is not None:
        settings["passfile"] = server.passfile
    if with_password and server.password is not None:
        settings["password"] = server.password.get_secret_value()
    return " ".join(f"{key}={_quoted(value)}" for key, value in settings.items())


def environment(server: PostgresServer) -> dict[str, str]:
    """The environment that gives a program the password."""
    if server.password is None:
        return {}
    return {"PGPASSWORD": server.password.get_secret_value()}


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _tls(server: PostgresServer) -> dict[str, str]:
    tls = server.tls
    if server.host.startswith("/"):
        return {}  # TLS is not spoken over a Unix socket.
    mode = tls_mode(tls, server.host)
    settings = {"sslmode": {"verify": "verify-full", "off": "disable"}.get(mode, mode)}
    if mode == "verify":
        given = tls.ca if tls is not None else None
        settings["sslrootcert"] = given or _system_certificates()
    if tls is not None and tls.cert is not None:
        settings["sslcert"] = tls.cert
        settings["sslkey"] = tls.key or tls.cert
    return settings


def _system_certificates() -> str:
    # Not libpq's own word for them, "system": older programs do not know it, and the OpenSSL inside
    # a wheel looks for them where no system has them.
    found = ssl.get_default_verify_paths().cafile
    for path in (found, *_SYSTEM_CERTIFICATES):
        if os.path.exists(path or ""):
            return path
    raise ConfigError(
        "this system has no file with the certificates of authorities", "give one as `tls.ca`"
    )
