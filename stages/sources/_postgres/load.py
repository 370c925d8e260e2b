"""Brings an artifact back into a server: `restore --to postgres://user@host:port/database`."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import chain

import psycopg
from psycopg import pq

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import Artifact
from schemas.postgres import PostgresSource
from schemas.tls import Tls
from stages._child import Child, Program
from stages.sources._files.untar import TarReader
from stages.sources._postgres.address import connection_string, environment
from stages.sources._postgres.clients import Client, find
from stages.sources._postgres.errors import tidied
from stages.sources._postgres.link import Link
from stages.sources._postgres.look import databases, quoted

_UNDERSTOOD = ("host", "port", "user", "dbname", "sslmode")
_MODES = {"verify-full": "verify", "require": "require", "prefer": "prefer", "disable": "off"}
_COPY = re.compile(r"\\copy (.*) from '(data/[^']*)' (with \(.*\))")
_SCRIPT = 64 << 20
_CLUSTER = b"-- PostgreSQL database cluster dump"
_EXISTS = "already exists"
# Dumps as SQL bring large objects in a transaction of their own.
_HARMLESS = ("there is already a transaction in progress", "there is no transaction in progress")


def load(
    spec: PostgresSource,
    chunks: Iterator[bytes],
    artifact: Artifact,
    url: str,
    overwrite: bool,
    context: StageContext,
) -> Sequence[str]:
    """Bring a stream back.

    With a database in the address, its objects go into that one, which is made when it does not
    exist, all of them or none (but for SQL with large objects). Without one, a dump makes its own
    database again.

    Raises:
        SourceError: the address is not understood, or the server did not take everything.
    """
    server, database = _server(spec, url)
    with Link(server, server.database, context.teardown) as link:
        version, existing = link.version, databases(link)
    if artifact.suffix == ".sql":
        first = next(chunks, b"")
        chunks = chain([first] if first else [], chunks)
        if _CLUSTER in first:
            return _load_globals(server, version, chunks, context)
    name = database or artifact.name
    exists = name in existing
    if exists and not overwrite and _has_tables(server, name, context):
        raise SourceError(
            f'the database "{name}" is not empty', "name another one, or give --overwrite"
        )
    target = _Target(server, version, artifact.suffix, context)
    if artifact.suffix == ".dump" and database is None:
        return target.load_own(chunks, exists, overwrite)
    if exists and not overwrite:
        return target.load_into(name, chunks)
    return target.load_new(name, chunks, replace=exists)


def _server(spec: PostgresSource, url: str) -> tuple[PostgresSource, str | None]:
    """The server that an address names, and the database."""
    if not url.startswith(("postgres://", "postgresql://")):
        raise SourceError("the address is not understood", "write postgres://USER@HOST/DATABASE")
    try:
        parsed = pq.Conninfo.parse(url.encode())
    except psycopg.Error:
        raise SourceError("the address is not understood") from None
    given = {option.keyword.decode(): option.val.decode() for option in parsed if option.val}
    if "password" in given:
        raise SourceError(
            "a password in an address can be seen by everybody on this machine",
            "leave it out, and set PGPASSWORD",
        )
    odd = [key for key in given if key not in _UNDERSTOOD]
    mode = given.get("sslmode")
    if odd or (mode and mode not in _MODES):
        raise SourceError(f'the address has "{(odd or ["sslmode"])[0]}", which is not understood')
    changed: dict[str, object] = {
        "host": given.get("host", spec.host),
        "port": int(given.get("port", spec.port)),
        "user": given.get("user", spec.user),
    }
    if mode:
        changed["tls"] = Tls.model_validate({"mode": _MODES[mode]})
    if "PGPASSWORD" in os.environ:
        changed["password"] = None
    return spec.model_copy(update=changed), given.get("dbname")


def _has_tables(server: PostgresSource, database: str, context: StageContext) -> bool:
    with Link(server, database, context.teardown) as link:
        found = link.rows(
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' LIMIT 1"
        )
    return bool(found)


class _Target:
    """A server that a stream of some kind goes into."""

    def __init__(
        self, server: PostgresSource, version: int, suffix: str, context: StageContext
    ) -> None:
        self._server = server
        self._version = version
        self._suffix = suffix
        self._context = context

    def load_own(self, chunks: Iterator[bytes], exists: bool, overwrite: bool) -> Sequence[str]:
        """A dump in the custom format makes its own database, with its owner and settings."""
        if exists and not overwrite:
            raise SourceError(
                "the database exists", "name it in the address, or give --overwrite to replace it"
            )
        argv = [*self._pg_restore(self._server.database), "--create", "--exit-on-error"]
        argv += ["--clean", "--if-exists"] if exists else []
        return _run(self._server, argv, chunks, self._context)

    def load_new(self, name: str, chunks: Iterator[bytes], replace: bool) -> Sequence[str]:
        """Into a database that is made for it, and is gone again when that fails. One that is
        replaced stays until the new one is complete.
        """
        made = f"{name[:40]}_{secrets.token_hex(4)}" if replace else name
        self._execute(f"CREATE DATABASE {quoted(made)} TEMPLATE template0")
        try:
            problems = self.load_into(made, chunks)
            if replace:
                self._execute(f"DROP DATABASE {quoted(name)}")
                self._execute(f"ALTER DATABASE {quoted(made)} RENAME TO {quoted(name)}")
        except BaseException:
            self._execute(f"DROP DATABASE IF EXISTS {quoted(made)}", StageContext())
            raise
        return problems

    def load_into(self, name: str, chunks: Iterator[bytes]) -> Sequence[str]:
        """Into a database that is there, and empty."""
        if self._suffix == ".tar":
            return _load_export(self._server, name, chunks, self._context)
        argv = self._pg_restore(name) if self._suffix == ".dump" else self._psql(name)
        return _run(self._server, [*argv, "--single-transaction"], chunks, self._context)

    def _pg_restore(self, database: str) -> list[str]:
        client = find("pg_restore", self._version, self._server.programs, self._context)
        return _program(client, self._server, database)

    def _psql(self, database: str) -> list[str]:
        client = find("psql", self._version, self._server.programs, self._context)
        return [*_psql(client, self._server, database), "--set=ON_ERROR_STOP=1"]

    def _execute(self, statement: str, context: StageContext | None = None) -> None:
        teardown = (context or self._context).teardown
        with Link(self._server, self._server.database, teardown) as link:
            link.rows(statement)


def _load_globals(
    server: PostgresSource, version: int, chunks: Iterator[bytes], context: StageContext
) -> Sequence[str]:
    """Roles and tablespaces; those that exist get the settings and passwords of the backup."""
    client = find("psql", version, server.programs, context)
    said = _run(server, _psql(client, server, server.database), chunks, context)
    return [line for line in said if "ERROR:" in line and _EXISTS not in line]


def _program(client: Client, server: PostgresSource, database: str) -> list[str]:
    return [client.path, f"--dbname={connection_string(server, database)}", "--no-password"]


def _psql(client: Client, server: PostgresSource, database: str) -> list[str]:
    return [*_program(client, server, database), "--no-psqlrc", "--quiet", "--output=/dev/null"]


def _run(
    server: PostgresSource, argv: list[str], chunks: Iterator[bytes], context: StageContext
) -> Sequence[str]:
    """What the program complained about, although it ended well."""
    program = Program(argv, env=environment(server))
    with Child(program, context, SourceError, feed=True) as child:
        try:
            for _ in child.output(chunks):
                pass
        except SourceError as error:
            raise tidied(error) from None
        said = [line.strip() for line in child.stderr.splitlines()]
    return [line for line in said if line and not line.endswith(_HARMLESS)]


def _load_export(
    server: PostgresSource, database: str, chunks: Iterator[bytes], context: StageContext
) -> Sequence[str]:
    """An export, in one transaction."""
    commands: dict[str, str] = {}
    with Link(server, database, context.teardown, server.silence) as link:
        link.rows("BEGIN")
        reader = TarReader(chunks)
        for member in reader:
            name, data = member.name.decode(), (bytes(piece) for piece in reader.data())
            if name == "load.sql":
                script = _script(data)
                commands = {
                    file: f"COPY {table} FROM STDIN {how}"
                    for table, file, how in _COPY.findall(script)
                }
            elif name in ("before.sql", "after.sql"):
                link.rows(_script(data))
            elif name in commands:
                link.copy_in(commands.pop(name), data)
            else:
                raise SourceError(f'"{name}" is not part of an export')
        if commands:
            raise SourceError(f'the export lacks "{next(iter(commands))}"')
        link.rows("COMMIT")
    return []


def _script(pieces: Iterator[bytes]) -> str:
    text = b"".join(pieces)
    if len(text) > _SCRIPT:
        raise SourceError("a script of the export is too large")
    return text.decode()
