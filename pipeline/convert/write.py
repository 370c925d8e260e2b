"""Our document as YAML that people read and edit: blocks, short lists in a line, comments."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.problems import Path

WIDTH = 96
"""Characters of a line, where that can be had."""

_PLAIN = re.compile(r"[A-Za-z0-9_./$][A-Za-z0-9_./$@+=*-]*(://[A-Za-z0-9_./$@+=*:-]*[A-Za-z0-9/])?")
_NO_TEXT = re.compile(
    r"(?i)true|false|null|yes|no|on|off|y|n|[-+]?0[xo][0-9a-f_]+|[-+]?[0-9][0-9_.:]*(e[-+]?[0-9]+)?"
    r"|[-+]?\.([0-9]+(e[-+]?[0-9]+)?|inf|nan)|[0-9]{4}-[0-9]+-[0-9]+.*"
)
"""What YAML 1.1 or 1.2 takes for something else."""
Comments = Mapping[Path, list[str]]


def to_yaml(document: Mapping[str, Any], comments: Comments) -> str:
    """YAML text of a document.

    Args:
        document: mappings, lists and scalars.
        comments: lines to stand above a key, by the way to it.
    """
    lines: list[str] = []
    for key, value in document.items():
        if isinstance(value, (dict, list)) and lines:
            lines.append("")
        lines += _entry(key, value, (key,), comments, 0)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, path: Path, comments: Comments, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for text in comments.get(path, ()):
        for line in textwrap.wrap(_one_line(text), WIDTH - len(indent)):
            yield f"{indent}# {line}"
    head = f"{indent}{scalar(key)}:"
    flow = _flow(value)
    has_parts = isinstance(value, (dict, list)) and bool(value)
    if has_parts and (_has_comments(path, comments) or not _is_short(value, head, flow, depth)):
        yield head
        yield from _block(value, path, comments, depth + 1)
    else:
        yield f"{head} {flow}"


def _block(value: Any, path: Path, comments: Comments, depth: int) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _entry(key, each, (*path, key), comments, depth)
        return
    indent = "  " * depth
    for index, each in enumerate(value):
        flow = _flow(each)
        if not isinstance(each, dict) or not each or _is_short(each, f"{indent}-", flow, 9):
            yield f"{indent}- {flow}"
            continue
        first, *rest = _block(each, (*path, index), comments, depth + 1)
        yield f"{indent}- {first.lstrip()}"
        yield from rest


def _is_short(value: Any, head: str, flow: str, depth: int) -> bool:
    """Lists of scalars, and mappings of scalars that lie deep, stand in one line."""
    children = value.values() if isinstance(value, dict) else value
    nested = any(isinstance(child, (dict, list)) for child in children)
    if isinstance(value, list) and nested:
        return len(value) == 1 and _is_short(value[0], head, flow, depth)
    return not nested and (isinstance(value, list) or depth > 2) and len(head) + len(flow) < WIDTH


def _has_comments(path: Path, comments: Comments) -> bool:
    return any(known[: len(path)] == path and known != path for known in comments)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A scalar as YAML; in double quotes where it could be taken for something else."""
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and not _NO_TEXT.fullmatch(value)
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
