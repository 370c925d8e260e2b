"""An export: a tar archive with a file for each table, all of one snapshot.

::

    load.sql         for psql, in the folder the archive was unpacked to: everything below
    before.sql       schemas, sequences and bare tables
    data/shop.orders.csv
    after.sql        partitions, values of sequences, constraints and indexes

A tar header holds the size of what follows. A table that does not fit into a buffer is therefore
read twice, to be measured first: in one snapshot it is the same both times.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from urllib.parse import quote

from pipeline.context import StageContext
from pipeline.errors import SourceError
from pipeline.stage import CHUNK
from schemas.postgres import PostgresSource
from stages.sources._postgres.link import Link
from stages.sources._postgres.tables import Table, after_data, before_data, chosen_tables

BUFFER = 8 * CHUNK
_OLDEST = 120000
_SESSION = (
    "client_encoding = 'UTF8'",
    "datestyle = 'ISO'",
    "intervalstyle = 'postgres'",
    "timezone = 'UTC'",
    "extra_float_digits = 3",
    "bytea_output = 'hex'",
    "search_path = ''",
    # Rows that a policy hides must be an error, not missing.
    "row_security = off",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    # A scan that joins another one half way would give the rows in another order.
    "synchronize_seqscans = off",
    "client_min_messages = 'warning'",
)


def export(spec: PostgresSource, database: str, context: StageContext) -> Iterator[bytes]:
    """The archive, in chunks.

    Raises:
        SourceError: no table is chosen, one cannot be locked or read, or the connection was lost.
    """
    yield from _in_chunks(_Export(spec, context).pieces(database))


def _in_chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class _Export:
    def __init__(self, spec: PostgresSource, context: StageContext) -> None:
        self._spec = spec
        self._context = context

    def pieces(self, database: str) -> Iterator[bytes]:
        spec, findings = self._spec, self._context.findings
        with Link(spec, database, self._context.teardown, spec.silence) as link:
            if link.version < _OLDEST:
                raise SourceError("format copy needs PostgreSQL 12 or newer", "use format custom")
            for setting in _SESSION:
                link.rows(f"SET {setting}")
            link.rows(f"SET lock_timeout = {int(spec.lock_wait * 1000)}")
            link.rows("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            findings.facts["snapshot"] = link.rows("SELECT pg_export_snapshot()")[0][0]
            tables = chosen_tables(link, spec)
            for table in tables:
                link.rows(f"LOCK TABLE ONLY {table.name} IN ACCESS SHARE MODE")
            yield from self._members(link, tables)
            link.rows("COMMIT")
            findings.count("tables", len(tables))

    def _members(self, link: Link, tables: list[Table]) -> Iterator[bytes]:
        files = [table for table in tables if not table.partitioned]
        lines = [
            f"\\copy {table.columns} from '{self._file(table)}' {self._how}" for table in files
        ]
        script = "\\set ON_ERROR_STOP on\nBEGIN;\n\\i before.sql\n{}\n\\i after.sql\nCOMMIT;\n"
        yield from _text("load.sql", script.format("\n".join(lines)))
        yield from _text("before.sql", before_data(link, tables))
        for table in files:
            yield from self._table(link, table)
        yield from _text("after.sql", after_data(link, tables))
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _file(self, table: Table) -> str:
        return f"data/{_plain(table.schema)}.{_plain(table.bare_name)}.{self._extension}"

    @property
    def _extension(self) -> str:
        return "csv" if self._spec.copy_format == "csv" else "bin"

    @property
    def _how(self) -> str:
        how = "csv, header" if self._spec.copy_format == "csv" else "binary"
        return f"with (format {how}, encoding 'UTF8')"

    def _table(self, link: Link, table: Table) -> Iterator[bytes]:
        command = f"COPY {table.columns} TO STDOUT {self._how}"
        held: list[bytes] | None = []
        size = messages = 0
        for batch in link.copy_out(command):
            messages += len(batch)
            size += sum(map(len, batch))
            if held is not None and size <= BUFFER:
                held.append(b"".join(batch))
            else:
                held = None
        yield _header(self._file(table), size)
        yield from held if held is not None else self._again(link, table, command, size)
        yield bytes(-size % tarfile.BLOCKSIZE)
        # Each message is a row, but the header line of CSV and the trailer of the binary format.
        self._context.findings.count("rows", messages - 1)

    def _again(self, link: Link, table: Table, command: str, size: int) -> Iterator[bytes]:
        for batch in link.copy_out(command):
            piece = b"".join(batch)
            size -= len(piece)
            if size >= 0:
                yield piece
        if size:
            raise SourceError(f'"{table.schema}.{table.bare_name}" was not the same twice')


def _plain(name: str) -> str:
    """A part of a file name; a dot only stands between the parts."""
    return quote(name, safe="").replace(".", "%2E")


def _text(name: str, text: str) -> Iterator[bytes]:
    data = text.encode()
    yield _header(name, len(data))
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info.tobuf(tarfile.PAX_FORMAT)
