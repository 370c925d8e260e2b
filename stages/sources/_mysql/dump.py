"""Databases as one stream of SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.context import StageContext
from pipeline.stage import CHUNK
from schemas.mysql import MysqlSource
from stages.sources._mysql import catalog, script
from stages.sources._mysql.catalog import Choice, Contents, Table
from stages.sources._mysql.link import Link
from stages.sources._mysql.objects import Objects
from stages.sources._mysql.pool import Pool
from stages.sources._mysql.script import Place
from stages.sources._mysql.session import Session
from stages.sources._mysql.tables import PART, Job, Read
from stages.sources._mysql.users import Users

WINDOW = 12 * CHUNK
"""Bytes that each connection may be ahead of the stream."""
_DEFAULT_PACKET = 16 << 20
"""The max_allowed_packet that servers and clients have when nobody has changed it."""


class Dump:
    """One artifact.

    Args:
        databases: those that are part of it.
        with_users: accounts and grants are part of it.
    """

    def __init__(
        self,
        spec: MysqlSource,
        session: Session,
        databases: Sequence[str],
        with_users: bool,
        context: StageContext,
    ) -> None:
        self._spec = spec
        self._session = session
        self._databases = databases
        self._with_users = with_users
        self._context = context
        self._choice = Choice(spec)
        self._objects = Objects(session.main, context.findings)
        self._largest = 0

    def chunks(self) -> Iterator[bytes]:
        """The whole dump, in chunks of about 1 MiB.

        Raises:
            SourceError: it is not complete.
        """
        yield from joined(self._pieces())
        self._tell()

    def _pieces(self) -> Iterator[bytes]:
        session = self._session
        yield script.opening(session.main, self._databases, session.facts)
        users = Users(session.main, self._context.findings) if self._with_users else None
        if users:
            yield from users.accounts()
        every = [session.contents[name] for name in self._databases]
        for contents in every:
            self._context.findings.count("databases")
            yield self._objects.database(contents.name)
            yield from self._objects.sequences(contents)
            yield from self._tables(contents.tables)
        for contents in every:
            yield from self._programs(contents)
        yield from self._objects.views(every)
        if users:
            yield from users.grants()
        yield script.closing()

    def _programs(self, contents: Contents) -> Iterator[bytes]:
        """Triggers only after the rows, which would set them off."""
        spec, objects = self._spec, self._objects
        place = Place(contents.name, self._collation(contents.name))
        yield objects.use(contents.name)
        if spec.triggers:
            yield from objects.triggers(contents.tables, place)
        if spec.events:
            yield from objects.events(place)
        if spec.routines:
            yield from objects.routines(place)

    def _collation(self, database: str) -> str:
        rows = self._session.main.query(
            "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s",
            [database],
        )
        return str(rows[0][0])

    def _tables(self, tables: Sequence[Table]) -> Iterator[bytes]:
        links = self._session.links
        jobs = [job for table in tables for job in self._jobs(table, len(links) > 1)]
        reads = [Read() for _ in jobs]

        def run(number: int, link: Link) -> Iterator[bytes]:
            return jobs[number].chunks(link, reads[number])

        numbers = range(len(jobs))
        if len(links) == 1 or len(jobs) < 2:
            for number in numbers:
                yield from run(number, links[0])
        else:
            window = WINDOW * len(links)
            pool = Pool(numbers, links, run, self._session.interrupt, window)
            yield from pool.chunks()
        for read in reads:
            self._note(read)

    def _jobs(self, table: Table, in_parts: bool) -> list[Job]:
        """The table as one job, or a large one as several parts."""
        definition, rows = self._choice.takes_definition(table), self._choice.takes_rows(table)
        conditions: list[str] = []
        if rows and in_parts and table.size >= 2 * PART and table.engine.upper() == "INNODB":
            main = self._session.main
            keys = catalog.key_columns(main, table)
            if len(keys) == 1:
                key = next(each for each in catalog.columns(main, table) if each.name == keys[0])
                conditions = catalog.ranges(main, table, key, PART)
        return [
            Job(
                table,
                definition and not number,
                rows,
                condition,
                self._spec.history,
                self._spec.insert_size,
                self._session.max_packet,
            )
            for number, condition in enumerate(conditions or [""])
        ]

    def _note(self, read: Read) -> None:
        findings = self._context.findings
        findings.count("tables", read.tables)
        findings.count("rows", read.rows)
        self._largest = max(self._largest, read.largest)
        for warning in read.warnings:
            findings.warn(warning)

    def _tell(self) -> None:
        """What who restores it has to know."""
        findings = self._context.findings
        findings.server_version = self._session.main.version
        findings.facts |= self._session.facts
        for warning in self._session.warnings_for(self._databases):
            findings.warn(warning)
        if self._largest >= _DEFAULT_PACKET:
            findings.facts["largest_statement"] = str(self._largest)
            findings.warn(
                f"a row takes {self._largest} bytes as a statement: to load it, "
                "max_allowed_packet of client and server must be larger than that"
            )


def joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces as chunks of half a MiB or more; large ones as they are."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        if not held and len(piece) >= CHUNK // 2:
            yield piece
            continue
        held.append(piece)
        size += len(piece)
        if size >= CHUNK // 2:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
