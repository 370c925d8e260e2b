"""A table as statements: its definition and its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from stages.sources._mysql import catalog, snapshot
from stages.sources._mysql.catalog import Table
from stages.sources._mysql.columns import Column, RowFormat, row_format
from stages.sources._mysql.link import Link, quoted
from stages.sources._mysql.rows import Inserts, Select
from stages.sources._mysql.script import unbound

PART = 8 * CHUNK
"""So many bytes of a large table are one job, when there are several connections."""
_HISTORY_ON = b"SET @@SESSION.system_versioning_insert_history=1;\n"
_HISTORY_OFF = b"SET @@SESSION.system_versioning_insert_history=0;\n"
_VERSIONED = re.compile(r"\bWITH SYSTEM VERSIONING\b")
_QUOTED = re.compile(r"`(?:[^`]|``)*`|'(?:[^'\\]|\\.|'')*'", re.DOTALL)


@dataclass
class Read:
    """What a job has read."""

    tables: int = 0
    rows: int = 0
    largest: int = 0
    """Bytes of the largest statement."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """A table or a part of one, to be read over one connection."""

    table: Table
    definition: bool = True
    rows: bool = True
    condition: str = ""
    """Of the part; empty for all rows."""
    history: bool = True
    insert_size: int = CHUNK
    max_packet: int = 1 << 24

    def chunks(self, link: Link, read: Read) -> Iterator[bytes]:
        """The statements. The definition cannot change until the rows are read.

        Raises:
            SourceError: they are not complete.
        """
        table = self.table
        try:
            link.execute(f"USE {quoted(table.database)}")
            definition = link.query(f"SHOW CREATE TABLE {quoted(table.name)}")[0][1]
            if self.definition:
                read.tables += 1
                made = unbound(definition, table.database)
                yield f"DROP TABLE IF EXISTS {quoted(table.name)};\n{made};\n".encode()
            if self.rows:
                yield from self._rows(link, read, definition)
        except SourceError as error:
            raise SourceError(f"table {table.shown}: {error.message}", error.hint) from None
        snapshot.release(link)

    def _rows(self, link: Link, read: Read, definition: str) -> Iterator[bytes]:
        reading = _reading(link, self, definition)
        if reading.warning:
            read.warnings.append(reading.warning)
        if reading.format.raw:
            link.execute("SET character_set_results = NULL")
        inserts = Inserts(link, reading.select, self.insert_size)
        for number, chunk in enumerate(inserts.statements()):
            yield _HISTORY_ON + chunk if reading.history and not number else chunk
        if reading.history and inserts.rows:
            yield _HISTORY_OFF
        if reading.format.raw:
            link.execute("SET NAMES utf8mb4")
        read.rows += inserts.rows
        read.largest = max(read.largest, inserts.largest)


@dataclass(frozen=True)
class _Reading:
    select: Select
    format: RowFormat
    history: bool
    warning: str = ""


def _reading(link: Link, job: Job, definition: str) -> _Reading:
    table = job.table
    every = catalog.columns(link, table)
    versioned = bool(_VERSIONED.search(_QUOTED.sub("", definition)))
    history, warning = _history(link, job, every) if versioned else (False, "")
    chosen = _written(every, history)
    # With nothing but generated columns a row can still be counted.
    formatted = row_format(chosen, job.max_packet) if chosen else RowFormat("'DEFAULT'", (), False)
    names = [quoted(each.name) for each in chosen or every[:1]]
    into = f"INSERT INTO {quoted(table.name)} ({','.join(names)}) VALUES\n"
    source = quoted(table.name) + " FOR SYSTEM_TIME ALL" * history
    sql = f"SELECT {','.join([formatted.row, *(each.value for each in formatted.large)])} "
    sql += f"FROM {source}" + (f" WHERE {job.condition}" if job.condition else "")
    keys = [] if history else catalog.key_columns(link, table)
    if keys and table.engine.upper() == "INNODB":
        # The order in which the rows lie; a load in this order is the fastest.
        sql += f" ORDER BY {','.join(map(quoted, keys))}"
    what = f"table {table.shown}"
    select = Select(sql, into.encode(), formatted.large, what, formatted.quoted)
    return _Reading(select, formatted, history, warning)


def _written(columns: Sequence[Column], history: bool) -> list[Column]:
    """The columns that an INSERT may name."""
    chosen = [each for each in columns if not each.is_generated or (history and each.period)]
    if history and not any(each.period for each in columns):
        moments = [Column(name, "timestamp", nullable=False) for name in ("row_start", "row_end")]
        chosen += moments
    return chosen


def _history(link: Link, job: Job, columns: Sequence[Column]) -> tuple[bool, str]:
    """Whether past rows of a system-versioned table can be written, and if not, a warning."""
    if not job.history:
        return False, ""
    if link.release < (10, 11):
        return False, f"past rows of table {job.table.shown} are left out: needs MariaDB 10.11"
    if any(each.period and each.type == "bigint" for each in columns):
        why = "they are numbered by transactions, which cannot be made again"
        return False, f"past rows of table {job.table.shown} are left out: {why}"
    return True, ""
