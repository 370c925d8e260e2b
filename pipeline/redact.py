"""The last line of defence: secrets of the configuration never leave in a log, report or message.

Nothing puts them there on purpose; a library's error text or a child's stderr might.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "[secret]"
SHORTEST = 4
"""A shorter secret would blot out ordinary text."""


FREE_TEXT = frozenset(
    {"error", "message", "items", "warnings", "skipped", "problems", "damage", "detail"}
    | {"notifications_failed", "errors"}
)
"""Fields whose text may come from anywhere. All others are names and numbers of our own."""


class Redactor:
    """Replaces secrets, also in the forms that URLs and JSON give them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def value(self, value: Any) -> Any:
        """The same for everything that JSON can hold."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(item) for item in value)
        return value

    def document(self, value: Any) -> Any:
        """Cut secrets out of the free text of a document, and leave its keys and names alone."""
        if isinstance(value, dict):
            return {
                key: self.value(item) if key in FREE_TEXT else self.document(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.document(item) for item in value]
        return value


def printable(text: str) -> str:
    """The text with everything escaped that could move a cursor, or pass for another line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _forms(secret: str) -> set[str]:
    return {
        secret,
        secret.strip(),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    } - {""}
