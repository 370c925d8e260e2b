"""What the tests of the PostgreSQL sources share."""

from __future__ import annotations

import re
from typing import Any

from pipeline.context import StageContext
from pipeline.stage import Artifact, Source
from schemas.postgres import PostgresPhysicalSource, PostgresSource
from stages.sources.postgres import Postgres
from stages.sources.postgres_physical import PostgresPhysical
from tests.servers.postgres import Postgresql


def logical(server: Postgresql, **more: Any) -> Postgres:
    keys = {"type": "postgres", **server.keys, "programs": str(server.bin), **more}
    return Postgres(PostgresSource.model_validate(keys), "shop")


def physical(server: Postgresql, **more: Any) -> PostgresPhysical:
    keys = {"type": "postgres_physical", **server.keys, "programs": str(server.bin), **more}
    return PostgresPhysical(PostgresPhysicalSource.model_validate(keys), "shop")


def read(source: Source, name: str = "shop", context: StageContext | None = None) -> list[bytes]:
    return list(source.stream(artifact(source, name), context or StageContext()))


def artifact(source: Source, name: str = "shop") -> Artifact:
    return next(each for each in source.artifacts() if each.name == name)


def definition(server: Postgresql, database: str) -> str:
    """All of a database but its rows, as pg_dump prints it."""
    text = server.program("pg_dump", "--schema-only", "--create", database=database)
    return re.sub(r"\\(un)?restrict \w+\n", "", text)


def roles(server: Postgresql) -> str:
    text = server.program("pg_dumpall", "--globals-only")
    return re.sub(r"\\(un)?restrict \w+\n", "", text)


def contents(server: Postgresql, database: str) -> dict[str, str]:
    """A digest of the rows of each table, of each sequence and of all large objects."""
    tables = server.execute(
        "SELECT c.oid::regclass::text, "
        "CASE relkind WHEN 'S' THEN '(t.last_value, t.is_called)' ELSE 't' END "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname !~ '^pg_' "
        "AND n.nspname <> 'information_schema' ORDER BY 1",
        database,
    )
    found = {
        table: server.execute(
            f"SELECT md5(coalesce(string_agg(row, '' ORDER BY row), '')) || count(*) "
            f"FROM (SELECT {row}::text AS row FROM {table} t) AS rows",
            database,
        )[0][0]
        for table, row in tables
    }
    objects = "SELECT md5(string_agg(oid || md5(lo_get(oid)), '' ORDER BY oid)) "
    found["large objects"] = server.execute(objects + "FROM pg_largeobject_metadata", database)[0][
        0
    ]
    return found


def left_behind(server: Postgresql) -> list[Any]:
    """Slots, replication and sessions of ours that are still there."""
    return server.execute(
        "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name ~ '^nxs' "
        "UNION ALL SELECT backend_type FROM pg_stat_activity "
        "WHERE application_name = 'nxs-backup'"
    )
