"""Jobs of the types postgresql and postgresql_basebackup."""

from __future__ import annotations

from pipeline.convert.notes import Notes
from pipeline.convert.servers import (
    Block,
    Where,
    databases,
    host_and_port,
    login,
    without_login,
)
from schemas.v3.model import ENV, Source

_LOGIN = ("--dbname", "--host", "--port", "--username", "--password", "--jobs", "--no-password")
_LOGIN_SHORT = ("-d", "-h", "-p", "-U", "-W", "-j", "-w")
_SSL_MODES = {"disable": "off", "allow": "prefer", "prefer": "prefer", "require": "require"}
_NEEDLESS = frozenset({"-P", "--progress", "-v", "--verbose", "--wal-method=stream", "-Xs"})
"""Options of pg_basebackup that say what is done anyway."""


def postgres(where: Where, notes: Notes) -> Block:
    """pg_dump as plain SQL."""
    source = where.source
    block: Block = {"type": "postgres", **_server(where, notes)}
    names = databases(where, notes)
    excluded = [name for name in source.excludes if "." not in name]
    if "all" not in names:
        block["databases"] = [notes.text((), name) for name in names if name not in excluded]
    elif excluded:
        block["exclude"] = [notes.text((), name) for name in excluded]
    tables = sorted({table for _, table in excluded_tables(source)})
    if tables:
        block["exclude_tables"] = [notes.text((), table) for table in tables]
    block["format"] = "plain"
    if block["user"] != "postgres":
        block["role_passwords"] = False
    notes.danger(
        where.path, "roles and tablespaces were not saved; now they are, as the artifact globals"
    )
    _extra(block, where, notes)
    _about_slave(where, notes)
    return block


def _extra(block: Block, where: Where, notes: Notes) -> None:
    rest = []
    for option in without_login(where.extra, _LOGIN, _LOGIN_SHORT, where, notes):
        if option in ("-Fc", "--format=custom", "--format=c"):
            block["format"] = "custom"
        elif not option.startswith(("-F", "--format", "-f", "--file")):
            rest.append(notes.text((), option))
    if rest:
        block["extra_args"] = rest


def excluded_tables(source: Source) -> list[tuple[str, str]]:
    """(database, table) of `excludes`; what pg_dump never dumps is left out."""
    pairs = [name.split(".", 1) for name in source.excludes if "." in name]
    own = ("information_schema", "pg_catalog")
    return [(database, table) for database, table in pairs if table not in own]


def postgres_physical(where: Where, notes: Notes) -> Block:
    """pg_basebackup."""
    block: Block = {"type": "postgres_physical", **_server(where, notes)}
    block["checkpoint"] = "spread"
    for option in without_login(where.extra, _LOGIN, _LOGIN_SHORT, where, notes):
        name, _, value = option.partition("=")
        if name in ("--checkpoint", "-cfast", "-cspread"):
            block["checkpoint"] = "fast" if "fast" in option else "spread"
        elif name == "--label" and value:
            block["label"] = notes.text((), value)
        elif option not in _NEEDLESS:
            message = (
                "an option of pg_basebackup was left out; look at the keys wal, slot and label"
            )
            notes.decide(where.extra_key, message, where.place("source"))
    if where.rate:
        block["max_rate"] = f"{min(max(where.rate // 1024, 32), 1 << 20)}KiB/s"
    _about_slave(where, notes)
    return block


def _about_slave(where: Where, notes: Notes) -> None:
    if where.source.is_slave:
        notes.dropped((*where.path, "is_slave"), "v3 did not use it here either")


def _server(where: Where, notes: Notes) -> Block:
    connect = where.connect
    block: Block = {}
    if connect.socket:
        block["host"] = notes.text(where.key("socket"), connect.socket.partition("/.s.PGSQL.")[0])
    else:
        block.update(host_and_port(where, "5432", notes))
    user, _, database = connect.db_user.partition("@")
    login(block, where, user or "postgres", notes)
    if ENV.search(connect.db_user):
        message = "a user such as user@database has to be split into user and database here"
        notes.decide(where.key("db_user"), message, where.place("source"))
    database = database or _first_database(where) or user
    if database not in ("", "postgres"):
        block["database"] = notes.text((), database)
    if not connect.socket:
        block["tls"] = _tls(where, notes)
    return block


def _first_database(where: Where) -> str:
    """v3 needed no other than those that it dumped; for all of them, that of the user's name."""
    names = where.source.target_dbs
    return names[0] if names and "all" not in names else ""


def _tls(where: Where, notes: Notes) -> Block:
    connect = where.connect
    key = where.key("psql_ssl_mode")
    if connect.psql_ssl_crl:
        notes.dropped(where.key("psql_ssl_crl"), "lists of revoked certificates are not read")
    mode = _SSL_MODES.get(connect.psql_ssl_mode, "verify")
    # libpq checks the certificate with `require` too when it is told an authority.
    if connect.psql_ssl_root_cert and mode in ("require", "verify"):
        if connect.psql_ssl_mode != "verify-full":
            notes.changed(key, "the name in the certificate counts too")
        ca = notes.text(where.key("psql_ssl_root_cert"), connect.psql_ssl_root_cert)
        return {"mode": "verify", "ca": ca}
    if mode != "verify":
        message = "the certificate of the server is not checked, as in v3: verify would do that"
        notes.danger(key, message)
    return {"mode": mode}
