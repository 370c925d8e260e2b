"""Rows as they come from a server, packet by packet, to statements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import SourceError
from stages.sources._mysql.columns import NO_VALUE, NULL, QUOTE
from stages.sources._mysql.rows import Inserts, Select

HEAD = b"INSERT INTO `t` VALUES\n"
END = b"\x05\x00\x00\x07\xfe\x00\x00\x02\x00"


class Wire:
    """A link whose server sends these bytes, so many at a time."""

    def __init__(self, data: bytes, piece: int) -> None:
        self._data = data
        self._piece = piece

    def begin_rows(self, sql: str) -> tuple[bytes, Callable[[memoryview], int]]:
        return b"", self._receive

    def _receive(self, into: memoryview) -> int:
        piece = self._data[: min(self._piece, len(into))]
        self._data = self._data[len(piece) :]
        into[: len(piece)] = piece
        return len(piece)

    def end_rows(self) -> None:
        pass

    def explain(self, error: Exception) -> SourceError:
        return SourceError(str(error))


def packet(text: bytes) -> bytes:
    size = len(text)
    length = bytes([size]) if size < 251 else b"\xfc" + size.to_bytes(2, "little")
    return (len(length) + size).to_bytes(3, "little") + b"\x01" + length + text


def statements(*rows: bytes, quoted: int, piece: int = 1 << 16, size: int = 1 << 20) -> list[bytes]:
    link: Any = Wire(b"".join(map(packet, rows)) + END, piece)
    inserts = Inserts(link, Select("SELECT", HEAD, (), 'table "t"', quoted), size)
    return list(inserts.statements())


@pytest.mark.parametrize("piece", [1, 5, 64, 1 << 16])
def test_rows_of_all_sizes_become_one_statement(piece: int) -> None:
    rows = [b"1", b"22", b"3" * 250, b"4" * 251, b"5" * 70000][: 5 if piece > 1 else 4]
    if piece > 1:
        rows[4] = b"5" * 60000
    (found,) = statements(*rows, quoted=0, piece=piece)
    assert found.startswith(HEAD + b"(")
    assert found.endswith(b");\n")
    body = found[len(HEAD) + 1 : -3]
    assert [row.strip() for row in body.split(b"),\n(")] == rows


def test_statements_end_where_they_are_large_enough() -> None:
    found = statements(*[b"7" * 100] * 50, quoted=0, size=1000)
    assert len(found) == 5
    assert all(statement.count(b"7" * 100) == 10 for statement in found)


def test_what_is_between_quotes_is_escaped() -> None:
    text = b"it's \\ \0 \x1a \r\n \xc3\xa9"
    (found,) = statements(b"1," + QUOTE + text + QUOTE + b"," + NO_VALUE, quoted=2)
    assert b"1,'it\\'s \\\\ \\0 \\Z \\r\n \xc3\xa9',NULL);\n" in found


@pytest.mark.parametrize("value", [QUOTE, NULL, NO_VALUE, QUOTE + b"); DROP TABLE x; (" + QUOTE])
def test_text_that_is_none_cannot_end_a_value(value: bytes) -> None:
    with pytest.raises(SourceError, match=r'table "t" holds text that is not valid'):
        statements(QUOTE + b"a" + value + QUOTE, quoted=1)
