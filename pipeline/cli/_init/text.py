"""YAML text of plain values."""

from __future__ import annotations

import json
import re
from typing import Any

WIDTH = 100
"""Columns of a line."""

_PLAIN = re.compile(r"[A-Za-z/.~][\w/.@+~-]*(:[\w/.@+~-]+)*")
_MEASURE = re.compile(r"[0-9]+(ms|[smhdw]|[KMGT]?i?B(/s)?)")
_REFERENCE = re.compile(r"\$\{(\w+)\}")
# YAML of any version takes some of these for something else than text.
_WORD = re.compile(r"(?i)~|null|true|false|yes|no|on|off|y|n|\.inf|\.nan|\.")


def flow(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and _is_plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Whether it is text without quotes, to YAML of any version."""
    if _MEASURE.fullmatch(text):
        return True
    return bool(_PLAIN.fullmatch(text)) and not _WORD.fullmatch(text)


def entry(key: str, value: Any) -> list[str]:
    """The lines of a key and its value: a list that is too long takes a line for each item."""
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        return [f"{key}: {value}"]
    line = f"{key}: {flow(value)}"
    if isinstance(value, list) and len(line) > WIDTH - 20:
        return [f"{key}:", *(f"  - {flow(each)}" for each in value)]
    return [line]


def variables(text: str) -> list[str]:
    """The variables that have to be set, in the order in which they stand in the file."""
    active = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return list(dict.fromkeys(name for line in active for name in _REFERENCE.findall(line)))
