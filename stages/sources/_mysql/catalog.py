"""What a server has, and what of it the configuration chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pipeline.errors import SourceError
from schemas.mysql import MysqlSource
from stages.sources._mysql.columns import Column, column
from stages.sources._mysql.link import Link, quoted

SYSTEM = frozenset({"information_schema", "performance_schema", "mysql", "sys", "ndbinfo"})
_WITHOUT_ROWS = frozenset(
    {"MRG_MYISAM", "MERGE", "FEDERATED", "CONNECT", "SPIDER", "PERFORMANCE_SCHEMA", "S3"}
)
"""Engines whose tables only show the rows of others."""
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})


@dataclass(frozen=True)
class Table:
    """A table, as it was when the dump began."""

    database: str
    name: str
    engine: str
    size: int
    """Bytes of its rows, as the server estimates them."""

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f'"{self.database}.{self.name}"'

    @property
    def has_rows(self) -> bool:
        return self.engine.upper() not in _WITHOUT_ROWS


@dataclass(frozen=True)
class Contents:
    """What of a database is dumped."""

    name: str
    tables: list[Table] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Tables and views that the configuration does not choose."""


class Choice:
    """What the configuration chooses."""

    def __init__(self, spec: MysqlSource) -> None:
        self._spec = spec

    def databases(self, existing: Sequence[str]) -> list[str]:
        """The chosen ones, sorted.

        Raises:
            SourceError: one that is named does not exist, or there is none.
        """
        spec = self._spec
        if spec.databases == "all":
            found = {name for name in existing if name not in SYSTEM and not _is_no_name(name)}
        else:
            found = set()
            for pattern in spec.databases:
                matching = {n for n in existing if n == pattern or fnmatchcase(n, pattern)}
                if not matching:
                    raise SourceError(
                        f'there is no database "{pattern}", or it may not be seen',
                        "see what SHOW DATABASES tells this user",
                    )
                found |= matching
        found = {name for name in found if not _matches(spec.exclude, name)}
        if not found:
            raise SourceError("there is no database to dump", "see databases and exclude")
        return sorted(found)

    def takes(self, database: str, table: str) -> bool:
        """Whether a table or view is dumped."""
        spec = self._spec
        chosen = not spec.tables or _fits(spec.tables, database, table)
        return chosen and not _fits(spec.exclude_tables, database, table)

    def takes_rows(self, table: Table) -> bool:
        return table.has_rows and not _fits(self._spec.schema_only, table.database, table.name)

    def takes_definition(self, table: Table) -> bool:
        return not _fits(self._spec.data_only, table.database, table.name)


def _is_no_name(name: str) -> bool:
    """A folder of the file system that the server takes for a database: `#mysql50#lost+found`."""
    return name.startswith("#mysql50#")


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _fits(patterns: Sequence[str], database: str, table: str) -> bool:
    names = (f"{database}.{table}", table)
    return any(fnmatchcase(names["." not in pattern], pattern) for pattern in patterns)


def databases(link: Link) -> list[str]:
    """All that the user may see."""
    return [name for (name,) in link.query("SHOW DATABASES")]


def contents(link: Link, database: str, choice: Choice) -> Contents:
    """The chosen tables, views and sequences of a database, sorted by name."""
    found = Contents(database)
    for name, kind, engine, size in link.query(
        "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, DATA_LENGTH FROM information_schema.TABLES "
        "WHERE TABLE_SCHEMA = %s ORDER BY CAST(TABLE_NAME AS BINARY)",
        [database],
    ):
        if not choice.takes(database, name):
            found.left_out.append(name)
        elif kind == "SEQUENCE":
            found.sequences.append(name)
        elif "VIEW" in kind:
            found.views.append(name)
        elif kind != "TEMPORARY":
            found.tables.append(Table(database, name, engine or "", int(size or 0)))
    return found


def engines_without_transactions(link: Link) -> set[str]:
    """Whose tables no snapshot shows."""
    rows = link.query("SELECT ENGINE, TRANSACTIONS FROM information_schema.ENGINES")
    return {engine.upper() for engine, transactions in rows if transactions != "YES"}


def columns(link: Link, table: Table) -> list[Column]:
    """The columns of a table in their order."""
    rows = link.rows(
        "SELECT COLUMN_NAME name, DATA_TYPE type, CHARACTER_SET_NAME charset, IS_NULLABLE nullable,"
        " COLUMN_KEY in_key, EXTRA extra, GENERATION_EXPRESSION expression, COLUMN_TYPE full_type"
        " FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
        " ORDER BY ORDINAL_POSITION",
        [table.database, table.name],
    )
    return [column(row) for row in rows]


def key_columns(link: Link, table: Table) -> list[str]:
    """The columns of the primary key in the order of the key."""
    rows = link.query(
        "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s"
        " AND TABLE_NAME = %s AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
        [table.database, table.name],
    )
    return [name for (name,) in rows]


def ranges(link: Link, table: Table, key: Column, size: int) -> list[str]:
    """Conditions that cut a table into parts of about `size` bytes by its integer key."""
    count = table.size // size
    if count < 2 or key.type not in _INTEGERS:
        return []
    name = quoted(key.name)
    place = f"{quoted(table.database)}.{quoted(table.name)}"
    low, high = link.query(f"SELECT MIN({name}), MAX({name}) FROM {place}")[0]
    if low is None:
        return []
    step = (int(high) - int(low)) // count + 1
    bounds = range(int(low) + step, int(high) + 1, step)
    starts: list[int | None] = [None, *bounds]
    ends: list[int | None] = [*bounds, None]
    return [_between(name, low, high) for low, high in zip(starts, ends, strict=True)]


def _between(name: str, low: int | None, high: int | None) -> str:
    bounds = [f"{name} >= {low}"] * (low is not None) + [f"{name} < {high}"] * (high is not None)
    return " AND ".join(bounds) or "TRUE"
