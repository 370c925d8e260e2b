"""What `check --connect` tells about a server: versions, privileges, limits that remain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipeline.errors import SourceError
from schemas.mysql import MysqlSource
from stages.sources._mysql import catalog, client, replica
from stages.sources._mysql.catalog import Choice
from stages.sources._mysql.link import Link

_OLDEST = {True: (10, 3), False: (5, 7)}
"""MariaDB and MySQL before these have no information that a dump needs."""
_LONG = 60
"""Seconds after which a statement that runs is worth a line."""


def facts(link: Link, spec: MysqlSource) -> list[str]:
    """Look at everything that a dump needs; no rows are read.

    Raises:
        SourceError: a dump would fail, or leave something out.
    """
    check_version(link)
    found = [*_server(link), *link.login.warnings]
    chosen = Choice(spec).databases(catalog.databases(link))
    found.append(f"{_number(len(chosen), 'database')}: {', '.join(chosen)}")
    found += _contents(link, spec, chosen)
    found += _rights(link, spec, chosen)
    found += _replication(link, spec)
    if spec.method == "client":
        found.append(client.version(link, spec))
    return found


def check_version(link: Link) -> None:
    """Refuse a server that is too old to be read in full."""
    if link.release < _OLDEST[link.is_mariadb]:
        raise SourceError(
            f'"{link.login.address}" has version {link.version}, which is too old',
            "MariaDB 10.3 and MySQL 5.7 are the oldest that can be dumped",
        )


def _server(link: Link) -> Iterator[str]:
    encrypted = link.status("Ssl_cipher").get("Ssl_cipher")
    name = "MariaDB" if link.is_mariadb else "MySQL"
    how = f"encrypted with {encrypted}" if encrypted else "not encrypted"
    yield f'"{link.login.address}" is {name} {link.version}, connection {how}'
    known = link.variables("max_allowed_packet", "log_bin", "max_statement_time")
    packet = int(known.get("max_allowed_packet", "0"))
    yield f"max_allowed_packet is {packet >> 20} MiB: larger values have to be loaded with a larger"
    if known.get("log_bin") != "ON":
        yield "log_bin is off: there will be no position to recover from to a point in time"


def _contents(link: Link, spec: MysqlSource, databases: Sequence[str]) -> Iterator[str]:
    choice = Choice(spec)
    every = [catalog.contents(link, name, choice) for name in databases]
    tables = [table for contents in every for table in contents.tables]
    views = sum(len(contents.views) for contents in every)
    if not tables and not views:
        raise SourceError("there is no table to dump", "see tables and exclude_tables")
    size = sum(table.size for table in tables) >> 20
    yield f"{_number(len(tables), 'table')} and {_number(views, 'view')}, about {size} MiB of rows"
    unreadable = [table.shown for table in tables if not table.engine]
    if unreadable:
        raise SourceError(f"the server itself cannot read {', '.join(unreadable[:10])}")
    engines = catalog.engines_without_transactions(link)
    outside = sorted({t.engine for t in tables if t.engine.upper() in engines and t.has_rows})
    if outside and spec.lock != "full":
        yield (
            f"warning: tables of {', '.join(outside)} have no transactions: they will not be of "
            "the same moment as the rest; `lock: full` would make them so"
        )


def _rights(link: Link, spec: MysqlSource, databases: Sequence[str]) -> Iterator[str]:
    rights = Rights(link)
    needed = ["SELECT", "SHOW VIEW"]
    needed += ["TRIGGER"] * spec.triggers + ["EVENT"] * spec.events
    for database in databases:
        missing = [name for name in needed if not rights.on(database, name)]
        if missing:
            raise SourceError(
                f'the privilege {" and ".join(missing)} on "{database}" is missing',
                "grant it, or leave the objects that need it out",
            )
    if spec.routines and not rights.sees_routines:
        need = "SELECT on mysql.proc" if link.is_mariadb else "SHOW_ROUTINE"
        raise SourceError(
            f"the privilege {need} is missing: routines would be left out in silence",
            "grant it, or set `routines: false`",
        )
    if spec.users and not rights.on("mysql", "SELECT"):
        raise SourceError("the privilege SELECT on mysql.* is missing", "`users: true` needs it")
    yield "privileges for all that is to be dumped are there"
    yield from _lock(link, spec, rights)


def _lock(link: Link, spec: MysqlSource, rights: Rights) -> Iterator[str]:
    can_lock = rights.has("RELOAD", "FLUSH_TABLES")
    if spec.lock == "full" and not can_lock:
        raise SourceError("the privilege RELOAD is missing", "`lock: full` needs it")
    if spec.lock == "auto" and not can_lock:
        yield (
            "warning: the privilege RELOAD is missing: without the log of MariaDB and BINLOG "
            "MONITOR, tables are read over one connection, and there is no log position"
        )
    if rights.has("PROCESS"):
        rows = link.query(
            "SELECT MAX(TIME) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Query'"
        )
        longest = float(rows[0][0] or 0)
        if longest > _LONG:
            yield f"warning: a statement runs for {longest:.0f} s; a lock has to wait for it"


def _replication(link: Link, spec: MysqlSource) -> Iterator[str]:
    try:
        replications = replica.status(link)
    except SourceError as error:
        if spec.stop_slave:
            raise
        if "denies access" not in error.message:
            raise
        return
    if spec.stop_slave and not replications:
        raise SourceError(
            f'"{link.login.address}" is no replica', "leave stop_slave out of its backup"
        )
    for name, row in replications:
        lag = row.get("Seconds_Behind_Master") or row.get("Seconds_Behind_Source")
        named = f' "{name}"' if name else ""
        yield f"replica{named}, {lag if lag is not None else 'an unknown number of'} s behind"


class Rights:
    """What the account of a connection may do, from SHOW GRANTS and its roles."""

    def __init__(self, link: Link) -> None:
        self._global: set[str] = set()
        self._on: dict[str, set[str]] = {}
        for (grant,) in link.query("SHOW GRANTS"):
            self._take(grant)
        # MySQL shows what comes from roles only when they are named.
        if not link.is_mariadb and link.release >= (8, 0):
            roles = link.query("SELECT CURRENT_ROLE()")[0][0]
            if roles and roles != "NONE":
                for (grant,) in link.query(f"SHOW GRANTS FOR CURRENT_USER() USING {roles}"):
                    self._take(grant)
        self.sees_routines = self._sees_routines(link)

    def _take(self, grant: str) -> None:
        match = re.match(r"GRANT (.+?) ON (?:TABLE )?(\S+|`(?:[^`]|``)+`\.\S+) TO ", grant)
        if not match:
            return
        names = {re.sub(r"\s*\(.*", "", name).strip() for name in match[1].split(",")}
        if match[2] == "*.*":
            self._global |= names
        else:
            self._on.setdefault(match[2], set()).update(names)

    def has(self, *any_of: str) -> bool:
        """Whether it has one of these for the whole server."""
        return bool(self._global & {"ALL PRIVILEGES", *any_of})

    def on(self, database: str, name: str) -> bool:
        """Whether it has a privilege on a database, or on something in it: more is not asked."""
        if self.has(name):
            return True
        for place, names in self._on.items():
            pattern = place.rpartition(".")[0].strip("`").replace("``", "`")
            if _like(pattern, database) and names & {"ALL PRIVILEGES", name}:
                return True
        return False

    def _sees_routines(self, link: Link) -> bool:
        if self.has("SELECT") or self.has("SHOW_ROUTINE"):
            return True
        if not link.is_mariadb:
            return False
        places = [place.replace("`", "") for place, names in self._on.items() if "SELECT" in names]
        return "mysql.*" in places or "mysql.proc" in places


def _like(pattern: str, text: str) -> bool:
    """The patterns of GRANT: `%` and `_`, and a backslash before one that is meant as it is."""
    parts = re.findall(r"\\.|.", pattern)
    wild = {"%": ".*", "_": "."}
    expression = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
    return re.fullmatch(expression, text) is not None


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)
