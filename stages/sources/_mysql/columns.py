"""How the server writes the values of each type as SQL literals.

The server formats whole rows (`CONCAT` of these expressions); we only put them together, and escape
what stands between quotes: in a megabyte at once that costs next to nothing, while QUOTE() looks at
each character and takes a third of the server's time. So quotes, and NULL in place of what has
quotes, are bytes that are never part of UTF-8 until then (`rows.Inserts`).

Whatever these expressions cannot do without loss is left to them in another form:

- FLOAT is shown with 6 digits; added to a DOUBLE it has all of them.
- BIT in hexadecimal digits may have an odd number of them, which is only valid after 0x; a binary
  string may be empty, which is only valid in x''.
- Text of character sets that do not map one to one to Unicode stays in its own bytes: `_sjis x''`.
- Values that are too large for `CONCAT` (max_allowed_packet: it gives NULL and a warning) are sent
  as they are in a column of their own, and leave a mark in the row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.sources._mysql.link import quoted

QUOTE, NULL = b"\xf8", b"\xf9"
"""Stand for a quote, and for NULL between two of them: never part of UTF-8."""
NO_VALUE = QUOTE + NULL + QUOTE
MARK = b"\xfe\xff\xfe"
"""Stands for a large value; never part of UTF-8, digits or quotes."""
_NUMBERS = frozenset(
    {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year", "double"}
)
_PLAIN = frozenset({"date", "datetime", "timestamp", "time", "uuid", "inet4", "inet6"})
"""Types whose text needs no escapes."""
_GEOMETRY = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"}
    | {"multipolygon", "geometrycollection", "geomcollection"}
)
_BINARY = _GEOMETRY | {
    *("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"),
}
_LARGE = (_GEOMETRY - {"point"}) | {"mediumtext", "longtext", "mediumblob", "longblob", "json"}
_MEDIUM = frozenset({"text", "blob", "vector"})
"""Types of up to 64 KiB, which are large when there are many of them in a row."""
_MANY = 8
_UNICODE = frozenset({None, "utf8mb4", "utf8mb3", "utf8", "ascii"})
"""Character sets whose bytes are valid UTF-8 as they are."""
_EXACT = frozenset({"latin1", "utf16", "utf16le", "utf32", "ucs2"})
"""Those that the server converts to UTF-8 and back without loss."""
_TEXT_BUDGET = 1 << 20
_GENERATED = re.compile(r"VIRTUAL|STORED|PERSISTENT")


@dataclass(frozen=True)
class Column:
    """A column of a table, as information_schema describes it."""

    name: str
    type: str
    charset: str | None = None
    nullable: bool = True
    in_key: bool = False
    """Whether it is part of the primary key."""
    extra: str = ""
    expression: str = ""
    unsigned: bool = False

    @property
    def is_generated(self) -> bool:
        return bool(_GENERATED.search(self.extra.upper())) or self.expression != ""

    @property
    def period(self) -> str:
        """`ROW START` or `ROW END` for those of a system-versioned table."""
        return self.expression.upper() if self.expression.upper().startswith("ROW ") else ""

    @property
    def is_large(self) -> bool:
        return self.type in _LARGE


@dataclass(frozen=True)
class Large:
    """A column that may hold what is too large for a row that the server has formatted."""

    value: str
    """Expression: the value where it is large, else NULL."""
    opening: bytes
    """What comes before the value in SQL."""
    as_hex: bool = False


@dataclass(frozen=True)
class RowFormat:
    """How to read the rows of a table as SQL."""

    row: str
    """Expression: all values, with commas."""
    large: Sequence[Large]
    """Further columns of the SELECT."""
    raw: bool
    """The values of `large` must not be converted on their way to us."""
    quoted: int = 0
    """Columns that are between quotes or NULL."""


def column(row: Mapping[str, Any]) -> Column:
    """From a row of information_schema.columns."""
    return Column(
        name=row["name"],
        type=row["type"].lower(),
        charset=row["charset"],
        nullable=row["nullable"] == "YES",
        in_key=row["in_key"] == "PRI",
        extra=row["extra"] or "",
        expression=row["expression"] or "",
        unsigned="unsigned" in row["full_type"],
    )


def row_format(columns: Sequence[Column], max_packet: int) -> RowFormat:
    """How to read these columns.

    Args:
        max_packet: the server's max_allowed_packet.
    """
    medium = sum(each.type in _MEDIUM for each in columns)
    wide = {each.name for each in columns if each.is_large or medium > _MANY}
    wide &= {each.name for each in columns if each.is_large or each.type in _MEDIUM}
    # Hexadecimal digits double a value, escapes may, and a row has to fit with all of them.
    limit = min(_TEXT_BUDGET, max_packet // (4 * len(wide))) if wide else 0
    parts, large = [], []
    for each in columns:
        expression = _unquoted(each) or _between_quotes(each)
        if each.name in wide:
            found = _large(each, limit)
            size = f"LENGTH({quoted(each.name)})"
            expression = f"IF({size}>{limit},{_literal(MARK)},CONCAT({expression}))"
            large.append(found)
        parts.append(expression)
    return RowFormat(
        row="CONCAT(" + ",',',".join(parts) + ")",
        large=large,
        raw=any(each.as_hex for each in large),
        quoted=sum(not _unquoted(each) for each in columns),
    )


def _unquoted(column: Column) -> str | None:
    """The literal of a value that has no quotes; None for other types."""
    name, kind = quoted(column.name), column.type
    if kind in _NUMBERS:
        text = name
    elif kind == "float":
        text = f"{name}+0e0"
    elif kind == "bit":
        text = f"CONCAT('0x',HEX({name}))"
    else:
        return None
    return f"IFNULL({text},'NULL')" if column.nullable else text


def _between_quotes(column: Column) -> str:
    """The literal of any other value."""
    name, before, is_text = quoted(column.name), b"", False
    if column.type in _PLAIN:
        text = name
    elif column.type in _BINARY:
        before, text = b"x", f"HEX({name})"
    elif _is_foreign(column):
        before, text = f"_{column.charset} x".encode(), f"HEX({name})"
    else:
        # Without a character set it is JSON of MySQL.
        is_plain, is_text = column.charset in _UNICODE and column.charset is not None, True
        utf8 = name if is_plain else f"CONVERT({name} USING utf8mb4)"
        text = f"CAST({utf8} AS BINARY)"
    between = _literal(before + QUOTE), text, _literal(QUOTE)
    if not column.nullable:
        return ",".join(between)  # Arguments of the CONCAT around it: one of its own costs more.
    if is_text:
        return f"{between[0]},IFNULL({text},{_literal(NULL)}),{between[2]}"
    return f"IFNULL(CONCAT({','.join(between)}),{_literal(NO_VALUE)})"


def _literal(data: bytes) -> str:
    return f"_binary X'{data.hex()}'"


def _is_foreign(column: Column) -> bool:
    """Whether it is text that has to stay in its own character set."""
    return column.charset not in _UNICODE and column.charset not in _EXACT


def _large(column: Column, limit: int) -> Large:
    value = f"IF(LENGTH({quoted(column.name)})>{limit},{quoted(column.name)},NULL)"
    if column.type in _BINARY:
        return Large(value, b"_binary '")
    if column.charset in _UNICODE:
        return Large(value, b"'")
    return Large(value, f"_{column.charset} x'".encode(), as_hex=True)
