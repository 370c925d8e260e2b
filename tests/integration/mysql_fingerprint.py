"""Everything a database has, as a dictionary that can be compared with that of a copy."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from pymysql.cursors import DictCursor  # type: ignore[import-untyped]

from tests.servers.mariadb import MariaDb

_SCHEMA_COLUMNS = {
    "COLUMNS": "TABLE_SCHEMA",
    "STATISTICS": "TABLE_SCHEMA",
    "KEY_COLUMN_USAGE": "TABLE_SCHEMA",
    "REFERENTIAL_CONSTRAINTS": "CONSTRAINT_SCHEMA",
    "CHECK_CONSTRAINTS": "CONSTRAINT_SCHEMA",
    "PARTITIONS": "TABLE_SCHEMA",
    "TRIGGERS": "TRIGGER_SCHEMA",
    "VIEWS": "TABLE_SCHEMA",
    "ROUTINES": "ROUTINE_SCHEMA",
    "PARAMETERS": "SPECIFIC_SCHEMA",
    "EVENTS": "EVENT_SCHEMA",
}
_VOLATILE = frozenset(
    {"CARDINALITY", "CREATED", "CREATE_TIME", "UPDATE_TIME", "CHECK_TIME", "LAST_ALTERED"}
    | {"TABLE_ROWS", "AVG_ROW_LENGTH", "DATA_LENGTH", "INDEX_LENGTH", "DATA_FREE", "CHECKSUM"}
    | {"MAX_DATA_LENGTH", "ORIGINATOR", "LAST_EXECUTED"}
)


def fingerprint(server: MariaDb, database: str) -> dict[str, Any]:
    """Checksums and exact contents of tables, definitions of all objects, information_schema."""
    with server.session(database=database, cursorclass=DictCursor, charset="utf8mb4") as session:
        return _Look(session, database).everything()


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is not the same; empty when all is."""
    keys = one.keys() | other.keys()
    return {
        key: (one.get(key), other.get(key))
        for key in sorted(keys)
        if one.get(key) != other.get(key)
    }


class _Look:
    def __init__(self, session: Any, database: str) -> None:
        self._session = session
        self._database = database
        self.rows("SET time_zone='+00:00', sql_mode=''")

    def rows(self, sql: str, arguments: Any = None) -> list[dict[str, Any]]:
        with self._session.cursor() as cursor:
            cursor.execute(sql, arguments)
            return list(cursor.fetchall())

    def everything(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "database": self.rows(f"SHOW CREATE DATABASE {_q(self._database)}")
        }
        for row in self.rows("SHOW FULL TABLES"):
            name, kind = row.values()
            if kind == "VIEW":
                found[f"view {name}"] = self._view(name)
            elif kind == "SEQUENCE":
                found[f"sequence {name}"] = self.rows(f"SHOW CREATE SEQUENCE {_q(name)}")
                found[f"position of {name}"] = self.rows(f"SELECT * FROM {_q(name)}")
            else:
                found |= self._table(name)
        return found | self._programs() | self._schema()

    def _view(self, name: str) -> Any:
        return self.rows(f"SHOW CREATE VIEW {_q(name)}")

    def _table(self, name: str) -> dict[str, Any]:
        definition = self.rows(f"SHOW CREATE TABLE {_q(name)}")[0]["Create Table"]
        columns = self.rows(
            "SELECT COLUMN_NAME name, DATA_TYPE type FROM information_schema.COLUMNS "
            "WHERE TABLE_SCHEMA=%s AND TABLE_NAME=%s ORDER BY ORDINAL_POSITION",
            (self._database, name),
        )
        exact = [_exact(each["name"], each["type"]) for each in columns]
        named = ",".join(f"{text} AS c{number}" for number, text in enumerate(exact))
        found = {
            f"definition of {name}": definition,
            f"checksum of {name}": self.rows(f"CHECKSUM TABLE {_q(name)}")[0]["Checksum"],
            f"rows of {name}": self._digest(f"SELECT {named} FROM {_q(name)}"),
        }
        if "WITH SYSTEM VERSIONING" in re.sub("'[^']*'", "", definition):
            hidden = "" if "ROW START" in definition else ", row_start, row_end"
            past = f"SELECT *{hidden} FROM {_q(name)} FOR SYSTEM_TIME ALL"
            found[f"past of {name}"] = self._digest(past)
        return found

    def _digest(self, sql: str) -> str:
        rows = sorted(repr(tuple(row.values())) for row in self.rows(sql))
        return f"{len(rows)} {hashlib.sha256('|'.join(rows).encode()).hexdigest()}"

    def _programs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for row in self.rows("SHOW TRIGGERS"):
            shown = self.rows(f"SHOW CREATE TRIGGER {_q(row['Trigger'])}")
            found[f"trigger {row['Trigger']}"] = [{**each, "Created": None} for each in shown]
        for kind in ("FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY"):
            for row in self.rows(f"SHOW {kind} STATUS WHERE Db=%s", (self._database,)):
                found[f"{kind} {row['Name']}"] = self.rows(f"SHOW CREATE {kind} {_q(row['Name'])}")
        for row in self.rows("SHOW EVENTS"):
            found[f"event {row['Name']}"] = self.rows(f"SHOW CREATE EVENT {_q(row['Name'])}")
        return found

    def _schema(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for table, column in _SCHEMA_COLUMNS.items():
            rows = self.rows(
                f"SELECT * FROM information_schema.{table} WHERE {column}=%s", (self._database,)
            )
            kept = [{key: row[key] for key in row if key not in _VOLATILE} for row in rows]
            texts = [json.dumps(row, default=str, sort_keys=True) for row in kept]
            found |= {f"{table} {text}": texts.count(text) for text in texts}
        return found


def _exact(name: str, kind: str) -> str:
    """A value in full: FLOAT is shown with 6 digits otherwise."""
    return f"{_q(name)}+0e0" if kind == "float" else f"SHA2({_q(name)}, 256)"


def _q(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
