"""The frame of a dump: what the plain client executes before and after, and around each object.

Comments hold no names as they are: a line feed in a name would end the comment, and what follows
would be executed by who loads the dump.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.sources._mysql.link import Link, literal, quoted

MAGIC = "-- nxs-backup dump of MySQL, format 1"
END = "-- Dump completed"
"""The last line: a dump without it is not whole. That of the server's own programs begins like
this too.
"""
_FILE_MODE = "NO_AUTO_VALUE_ON_ZERO"
_SETTINGS = (
    ("CHARACTER_SET_CLIENT", None),
    ("CHARACTER_SET_RESULTS", None),
    ("COLLATION_CONNECTION", None),
    ("TIME_ZONE", "'+00:00'"),
    ("UNIQUE_CHECKS", "0"),
    ("FOREIGN_KEY_CHECKS", "0"),
    ("SQL_MODE", f"'{_FILE_MODE}'"),
    ("SQL_NOTES", "0"),
)
_CODECS = {
    **{"utf8mb4": "utf-8", "utf8mb3": "utf-8", "utf8": "utf-8", "binary": "utf-8"},
    **{"latin1": "cp1252", "latin2": "iso8859-2", "latin5": "iso8859-9", "latin7": "iso8859-13"},
    **{"greek": "iso8859-7", "hebrew": "iso8859-8", "ujis": "euc_jp", "eucjpms": "euc_jp"},
    **{"koi8r": "koi8-r", "koi8u": "koi8-u", "macroman": "mac_roman", "macce": "mac_latin2"},
    **{"sjis": "shift_jis", "euckr": "euc_kr", "tis620": "tis-620", "hp8": "hp-roman8"},
}
"""Python's names of the character sets that a client can have; others have the same name."""
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
_RESET = f"SET NAMES utf8mb4, sql_mode='{_FILE_MODE}', time_zone='+00:00';\n"


def opening(link: Link, databases: Sequence[str], facts: Mapping[str, str]) -> bytes:
    """The first lines; settings are kept, to be put back by `closing`."""
    about = {"server": link.version, "databases": list(databases), **facts}
    lines = [MAGIC, "-- " + _harmless(json.dumps(about))]
    lines += [f"SET @OLD_{name}=@@{name};" for name, _ in _SETTINGS]
    lines += ["SET NAMES utf8mb4;"]
    lines += [f"SET {name}={value};" for name, value in _SETTINGS if value is not None]
    return ("\n".join(lines) + "\n").encode()


def closing() -> bytes:
    """The last lines."""
    lines = [f"SET {name}=@OLD_{name};" for name, _ in reversed(_SETTINGS)]
    return ("\n".join([*lines, END]) + "\n").encode()


def read_opening(line: bytes) -> dict[str, Any]:
    """What the second line of a dump says about it; empty when it says nothing."""
    try:
        found = json.loads(line.removeprefix(b"-- "))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _harmless(document: str) -> str:
    r"""JSON in which nothing follows a backslash but a code: `\!` is a command of the client."""
    return re.sub(r"\\(?!u)(.)", lambda found: f"\\u{ord(_ESCAPED[found[1]]):04x}", document)


def comment(text: str) -> bytes:
    """A text as comment lines."""
    return "".join(f"-- {line}\n" for line in re.split(r"[\r\n]+", text)).encode()


@dataclass(frozen=True)
class Place:
    """The database an object is made in."""

    name: str
    collation: str
    """Its default."""


def made_again(row: Mapping[str, Any], statement: str, place: Place) -> bytes:
    """A statement under the settings that its object was made under.

    Args:
        row: from SHOW CREATE of a view, trigger, event or routine.

    Raises:
        UnicodeError: the statement cannot be written in the character set it was made in.
    """
    charset = row["character_set_client"]
    lines = [
        f"SET character_set_client={charset}, character_set_results={charset}, "
        f"collation_connection={row['collation_connection']};\n"
    ]
    if row.get("sql_mode") is not None:
        lines.append(f"SET sql_mode={literal(row['sql_mode'])};\n")
    if row.get("time_zone"):
        lines.append(f"SET time_zone={literal(row['time_zone'])};\n")
    before, after = _collations(row, place)
    inner = statement.encode(_codec(charset))
    head, tail = "".join([before, *lines]), _RESET + after
    return head.encode() + inner + tail.encode()


def _collations(row: Mapping[str, Any], place: Place) -> tuple[str, str]:
    """Parameters without a character set have that of the database at the time they were made."""
    then = row.get("Database Collation")
    if not then or then == place.collation:
        return "", ""
    change = "ALTER DATABASE COLLATE "  # That in use: it may be restored under another name.
    return f"{change}{then};\n", f"{change}{place.collation};\n"


def _codec(charset: str) -> str:
    try:
        return codecs.lookup(_CODECS.get(charset, charset)).name
    except LookupError:
        raise UnicodeError(f"{charset} is not known here") from None


def unbound(definition: str, database: str) -> str:
    """A definition without the name of its own database before sequences, where the server writes
    it unasked: it can then be made in another one.
    """
    bound = re.compile(
        rf"'(?:[^'\\]|\\.|'')*'|(?<=\bnextval\(){re.escape(quoted(database))}\.", re.S
    )
    return bound.sub(lambda found: found[0] if found[0].startswith("'") else "", definition)


def delimited(statement: str) -> str:
    """A statement that may contain semicolons."""
    mark = next(each for each in _marks() if each not in statement)
    return f"DELIMITER {mark}\n{statement}\n{mark}\nDELIMITER ;\n"


def _marks() -> Iterator[str]:
    yield ";;"
    yield "//"
    yield from (f"//{number}//" for number in itertools.count())
