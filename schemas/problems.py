"""What is wrong with a configuration: a place in a file, one line of text and a hint.

No text made here, or handed in, may hold a value of the configuration: it may be a secret. Names of
keys, types and the values that are allowed may be shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Path = tuple[str | int, ...]
"""Keys and list indexes from the root of the configuration."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_MAX_KEY = 60
_MAX_PARTS = 16


NOT_TEXT = ("must be text", "put it in quotes")
NOT_A_LIST = ("must be a list", 'write [one, two], or each entry in a line of its own after "- "')
NOT_A_MAPPING = ("must be a mapping", 'write "key: value" lines below it')
NO_VALUE = (
    "has no value",
    "give one or remove the key; quote a value that starts with #, !, & or *",
)


@dataclass(frozen=True)
class Position:
    """A place in a file; lines and columns count from 1."""

    file: str
    line: int = 1
    column: int = 1


@dataclass(frozen=True)
class Problem:
    """Something that is wrong (`error`) or looks wrong (`warning`) in a configuration."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        subject = f"{self.path}: " if self.path else ""
        kind = "warning: " if self.severity == "warning" else ""
        text = f"{self.file}:{self.line}:{self.column}: {kind}{subject}{self.message}"
        return f"{text}\n    hint: {self.hint}" if self.hint else text


class Problems:
    """Collects problems; the same message at the same place is kept once."""

    def __init__(self) -> None:
        self._found: dict[tuple[Position, str], Problem] = {}

    def add(
        self,
        at: Position,
        path: Path,
        message: str,
        hint: str | None = None,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        problem = Problem(at.file, at.line, at.column, show_path(path), message, hint, severity)
        self._found.setdefault((at, message), problem)

    def sorted(self) -> list[Problem]:
        """All of them, by file, line and column."""
        return sorted(
            self._found.values(), key=lambda found: (found.file, found.line, found.column)
        )

    @property
    def have_errors(self) -> bool:
        return any(found.severity == "error" for found in self._found.values())


def show_key(key: str) -> str:
    """A key as it is written when it is plain, else quoted; no control characters, not too long."""
    if len(key) > _MAX_KEY:
        key = key[:_MAX_KEY] + "..."
    return key if _PLAIN_KEY.fullmatch(key) else json.dumps(key)


def show_path(path: Path) -> str:
    """``backups.crm-db.fan_out[0].storage``."""
    text = ""
    for part in path[:_MAX_PARTS]:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{show_key(part)}" if text else show_key(part)
    return text + "..." if len(path) > _MAX_PARTS else text


def listed(names: Iterable[str], last: str = "or") -> str:
    """``a, b or c``."""
    *most, final = names
    return f"{', '.join(most)} {last} {final}" if most else final


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    by_folded = {name.casefold(): name for name in known}
    found = get_close_matches(word.casefold()[:_MAX_KEY], by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def suggest(word: object, known: Iterable[str], what: str) -> str:
    """A hint that names the nearest known name, then all of them; `word` itself is never shown."""
    names = sorted(known)
    if not names:
        return f"there are no {what}"
    meant = nearest(word, names) if isinstance(word, str) else None
    everything = f"known {what}: {', '.join(map(show_key, names))}"
    return f"did you mean {show_key(meant)}? {everything}" if meant else everything
