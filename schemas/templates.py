"""Templates of messages: text with the names of values in braces. Nothing is computed in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

_OF_BOTH = {
    "text": "the usual message",
    "title": "its first line",
    "project": "`name` of the configuration",
    "host": "`host` of the configuration",
    "run": "id of the run",
    "level": "`info`, `warning` or `error`",
    "backups": "names of the backups it is about",
}
_OF_RUNS = {
    "outcome": "`ok`, `partial`, `locked`, `failed` or `interrupted`",
    "result": "the same as in `on`",
    "duration": "of the run, such as 3 m 20 s",
}
MEANINGS: Mapping[str, str] = {**_OF_BOTH, **_OF_RUNS}
"""The values a text may name, and what each stands for."""
ONLY_OF_RUNS = frozenset(_OF_RUNS)
"""Those that a batch of events does not have."""
DOCUMENTS = ("report", "events")
"""What only JSON has room for."""

PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([a-z]+)\}")
"""A doubled brace, or a name in braces."""


def names(template: str) -> set[str]:
    """The values that a template names.

    Raises:
        ValueError: a brace is neither doubled nor part of a name.
    """
    if re.search(r"[{}]", PLACEHOLDER.sub("", template)):
        raise ValueError("has a brace that stands alone; write {{ and }} for braces")
    return {found[1] for found in PLACEHOLDER.finditer(template) if found[1]}


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The text, with each name replaced by its value."""
    return PLACEHOLDER.sub(
        lambda found: str(values[found[1]]) if found[1] else found[0][0], template
    )


def check(template: str, *more: str) -> str:
    """A template that names known values alone.

    Args:
        more: names that are known besides `MEANINGS`.

    Raises:
        ValueError: it names another.
    """
    known = (*MEANINGS, *more)
    if names(template) - set(known):
        listed = ", ".join(f"{{{name}}}" for name in known)
        raise ValueError(f"has a name in braces that is not known; known are {listed}")
    return template


def texts(value: Any) -> Iterator[str]:
    """All texts inside a JSON value, keys aside."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


Template = Annotated[str, AfterValidator(check)]
"""Text with names of values in braces."""
