"""The text of a first configuration, made from the models: descriptions become comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from pipeline.cli._init.parts import Choice, Part, branches, usual
from pipeline.cli._init.text import WIDTH, entry, variables
from schemas.pipeline import Backup, Defaults, Pipeline
from schemas.problems import listed

SCHEMA_LINE = "# yaml-language-server: $schema=./pipeline.schema.json"
_SCHEMA_NOTE = (
    "# Editors go by that schema; it is made by: nxs-backup schema > pipeline.schema.json"
)
_OPTIONAL_NOTE = (
    "A key behind a # is optional: without the # it is set. What stands there is the default, or "
    "an example."
)


def render(choice: Choice) -> str:
    """The whole file; it loads when its variables are set."""
    values: dict[str, Any] = {
        "name": choice.project,
        "storages": {each.entry: each for each in choice.of("storages")},
        "notifiers": {each.entry: each for each in choice.of("notifiers")},
        "defaults": _defaults(choice),
        "backups": {each.entry: _backup(each) for each in choice.of("sources")},
    }
    root = Part(
        Pipeline, {key: value for key, value in values.items() if value}, "", choice.is_brief
    )
    keys = [lines for key in Pipeline.model_fields if (lines := _key(root, key))]
    body = "\n".join("\n".join(["", *lines]) for lines in keys)
    return "\n".join([*_header(body, choice.is_brief), body, ""])


def _header(body: str, is_brief: bool) -> list[str]:
    needed = variables(body)
    text = f"Variables to set, or to give by --env-file: {listed(needed, 'and')}." if needed else ""
    notes = [] if is_brief else _comment(_OPTIONAL_NOTE)
    return [SCHEMA_LINE, _SCHEMA_NOTE, *notes, *_comment(text)]


def _defaults(choice: Choice) -> Part:
    """What all backups have in common."""
    values: dict[str, Any] = {"stages": choice.of("stages"), "fan_out": branches(choice)}
    if choice.of("notifiers"):
        values["notify"] = [each.entry for each in choice.of("notifiers")]
    return Part(Defaults, values, "defaults", choice.is_brief)


def _backup(source: Part) -> Part:
    """A backup: everything but its source stands in `defaults`."""
    return Part(Backup, {"source": source}, source.entry, is_brief=True)


def _block(made: Part) -> list[str]:
    """The lines of a block, `type` first."""
    order = sorted(made.model.model_fields, key=lambda key: key != "type")
    return [line for key in order for line in _key(made, key)]


def _key(made: Part, key: str) -> list[str]:
    """A key with its comment; commented out when it has no value."""
    if made.is_brief and key not in made.values:
        return []
    info = made.model.model_fields[key]
    comment = _comment("" if key == "type" else info.description or "")
    if key in made.values:
        return [*comment, *_set(key, made.values[key], made)]
    value = usual(made, key)
    return [*comment, *("#" + line for line in _set(key, value, made))]


def _set(key: str, value: Any, made: Part) -> list[str]:
    """A key and its value: a block, several of them, or something plain."""
    if isinstance(value, Part):
        return [f"{key}:", *_indented(_block(value))]
    items = list(value.values() if isinstance(value, Mapping) else value) if _holds(value) else []
    if items and isinstance(value, Mapping):
        named = ([*_about(each), *_set(each.entry, each, made)] for each in items)
        return [f"{key}:", *_indented(chain.from_iterable(named))]
    if items:
        return [f"{key}:", *_indented(chain.from_iterable(map(_item, items)))]
    return entry(key, value)


def _holds(value: Any) -> bool:
    """Whether blocks stand in a list or a mapping."""
    inside = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, (Mapping, list)) and any(isinstance(each, Part) for each in inside)


def _item(made: Part) -> list[str]:
    """A block as an item of a list: its first key stands beside the dash."""
    lines = [*_about(made), *_block(made)] if "type" in made.values else _block(made)
    first = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return [
        *lines[:first],
        "- " + lines[first],
        *_indented(lines[first + 1 :]),
    ]


def _about(made: Part) -> list[str]:
    source = made.values.get("source")
    text = (source.model if isinstance(source, Part) else made.model).__doc__ or ""
    return _comment(text.partition("\n\n")[0])


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH - 20,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _indented(lines: Iterable[str]) -> list[str]:
    return ["  " + line for line in lines]
