"""The definitions of everything but rows, as statements that make them again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pipeline.context import Findings
from pipeline.errors import SourceError
from stages.sources._mysql.catalog import Contents, Table
from stages.sources._mysql.link import Link, quoted
from stages.sources._mysql.script import Place, comment, delimited, made_again, unbound

_TEXT = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"", re.DOTALL)
_NAME = r"`((?:[^`]|``)+)`"
_READS = re.compile(rf"\b(?:from|join)\s+\(*\s*(?:{_NAME}\.)?{_NAME}", re.IGNORECASE)
_BROKEN = frozenset({"1356", "1146", "1054", "1305", "1267", "1271"})
"""Errors of a view whose definition no longer fits what it reads."""
_KINDS = ("FUNCTION", "PROCEDURE")
_PACKAGES = ("PACKAGE", "PACKAGE BODY")

Warn = Callable[[str], None]


class Objects:
    """The objects of the databases of a dump, except tables.

    Raises:
        SourceError: from every method: a definition cannot be read.
    """

    def __init__(self, link: Link, findings: Findings) -> None:
        self._link = link
        self._findings = findings

    def database(self, name: str) -> bytes:
        """The database itself, and that what follows is about it."""
        row = self._link.query(f"SHOW CREATE DATABASE IF NOT EXISTS {quoted(name)}")[0]
        return f"\n{row[1]};\nUSE {quoted(name)};\n".encode()

    def use(self, name: str) -> bytes:
        self._link.execute(f"USE {quoted(name)}")
        return f"\nUSE {quoted(name)};\n".encode()

    def sequences(self, contents: Contents) -> Iterator[bytes]:
        """Sequences with the next value that nobody has drawn (MariaDB)."""
        for name in contents.sequences:
            place = f"{quoted(contents.name)}.{quoted(name)}"
            definition = self._link.query(f"SHOW CREATE SEQUENCE {place}")[0][1]
            value, cycle = self._link.query(
                f"SELECT next_not_cached_value, cycle_count FROM {place}"
            )[0]
            self._findings.count("sequences")
            yield (
                f"DROP SEQUENCE IF EXISTS {quoted(name)};\n{definition};\n"
                f"DO SETVAL({quoted(name)}, {value}, 0, {cycle});\n"
            ).encode()

    def triggers(self, tables: Sequence[Table], place: Place) -> Iterator[bytes]:
        """In the order in which they act: each is made after those before it."""
        chosen = {table.name for table in tables}
        for name, table in self._link.query(
            "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS "
            "WHERE TRIGGER_SCHEMA = %s ORDER BY CAST(EVENT_OBJECT_TABLE AS BINARY), "
            "ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
            [place.name],
        ):
            if table in chosen:
                row = self._show("TRIGGER", place, name)
                self._findings.count("triggers")
                yield self._made_again(row, delimited(row["SQL Original Statement"]), place, name)

    def events(self, place: Place) -> Iterator[bytes]:
        for (name,) in self._link.query(
            "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s "
            "ORDER BY CAST(EVENT_NAME AS BINARY)",
            [place.name],
        ):
            row = self._show("EVENT", place, name)
            drop = f"DROP EVENT IF EXISTS {quoted(name)};\n"
            self._findings.count("events")
            yield self._made_again(row, drop + delimited(row["Create Event"]), place, name)

    def routines(self, place: Place) -> Iterator[bytes]:
        """Functions, procedures, packages."""
        kinds = _KINDS + (_PACKAGES if self._has_packages() else ())
        for kind in kinds:
            for (name,) in self._link.query(
                "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s "
                "AND ROUTINE_TYPE = %s ORDER BY CAST(ROUTINE_NAME AS BINARY)",
                [place.name, kind],
            ):
                row = self._show(kind, place, name)
                body = next(row[key] for key in row if key.startswith("Create "))
                if body is None:
                    raise SourceError(
                        f'the definition of {kind.lower()} "{place.name}.{name}" may not be read',
                        "see `check --connect` for the privileges that are needed",
                    )
                drop = f"DROP {kind} IF EXISTS {quoted(name)};\n"
                self._findings.count("routines")
                yield self._made_again(row, drop + delimited(body), place, name)

    def _has_packages(self) -> bool:
        return self._link.is_mariadb and self._link.release >= (10, 3)

    def views(self, every: Sequence[Contents]) -> Iterator[bytes]:
        """The views of all databases: each after those that it reads."""
        rows: dict[tuple[str, str], Mapping[str, Any]] = {}
        for contents in every:
            self._link.execute(f"USE {quoted(contents.name)}")
            for name in contents.views:
                rows[contents.name, name] = self._show("VIEW", Place(contents.name, ""), name)
        current = ""
        for database, name in _in_order({at: row["Create View"] for at, row in rows.items()}):
            if database != current:
                yield self.use(database)
                current = database
            yield self._view(rows[database, name], Place(database, ""), name)

    def _view(self, row: Mapping[str, Any], place: Place, name: str) -> bytes:
        shown = f"{place.name}.{name}"
        try:
            self._link.query(f"SHOW COLUMNS FROM {quoted(name)}")
        except SourceError as error:
            code = error.message.rpartition("(error ")[2].rstrip(")")
            if code not in _BROKEN and code != "1449":
                raise
            if code != "1449":  # The definer is gone: it can be made all the same.
                self._findings.warn(f'view "{shown}" is broken: {error.message}')
                note = "a view that is broken on the server too; mend it and make it by hand:\n"
                return comment(note + row["Create View"])
        self._findings.count("views")
        statement = (
            f"DROP VIEW IF EXISTS {quoted(name)};\n{unbound(row['Create View'], place.name)};\n"
        )
        return self._made_again(row, statement, place, name)

    def _show(self, kind: str, place: Place, name: str) -> Mapping[str, Any]:
        return self._link.rows(f"SHOW CREATE {kind} {quoted(place.name)}.{quoted(name)}")[0]

    def _made_again(self, row: Mapping[str, Any], statement: str, place: Place, name: str) -> bytes:
        try:
            return made_again(row, statement, place)
        except UnicodeError:
            self._findings.warn(
                f'"{place.name}.{name}" is written as made with character set utf8mb4, not '
                f"{row['character_set_client']}, which cannot be written here"
            )
            return made_again({**row, "character_set_client": "utf8mb4"}, statement, place)


def _in_order(views: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Views after those that they read; by name where nothing else decides."""
    graph = {
        view: sorted(found for found in _read_by(view[0], views[view]) if found in views)
        for view in sorted(views)
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError:  # Views that read each other cannot exist; leave the judgement to a server.
        return sorted(views)


def _read_by(database: str, definition: str) -> set[tuple[str, str]]:
    """The tables and views in the definition of a view, which the server writes in one form."""
    bare = _TEXT.sub("''", definition)
    return {
        (_plain(found[1]) if found[1] else database, _plain(found[2]))
        for found in _READS.finditer(bare)
    }


def _plain(name: str) -> str:
    return name.replace("``", "`")
