"""What pydantic says, in our own words and with a place in the file.

Only the kind of an error, its place and its bounds are taken over, never its text: that may hold
the value. The exception is the text of our own validators (`ValueError`), which keep to that rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import SecretStr
from pydantic_core import ErrorDetails

from schemas.base import format_duration, format_size, parse_duration, parse_rate, parse_size
from schemas.document import Mapping, Node, Scalar, Sequence, scalars
from schemas.problems import (
    NO_VALUE,
    NOT_A_LIST,
    NOT_A_MAPPING,
    NOT_TEXT,
    Path,
    Position,
    Problems,
    listed,
    nearest,
    show_key,
    suggest,
)
from schemas.shapes import Shape, shape, visit

_KINDS = {
    "schemas.sources": "source",
    "schemas.transforms": "stage",
    "schemas.storages": "storage",
    "schemas.notifiers": "notifier",
}
_UNITS: dict[Any, Callable[[float], str]] = {
    parse_size: format_size,
    parse_rate: lambda value: format_size(value) + "/s",
    parse_duration: format_duration,
}


@dataclass
class _Place:
    """Where an error belongs."""

    path: Path
    at: Position
    owner: Position
    """The key of the mapping that is concerned; of the item, in a list."""
    node: Node | None
    shape: Shape | None
    parent: Mapping | None = None
    on_key: bool = False
    """Whether the key itself is wrong, not its value."""
    parent_shape: Shape | None = None


class _Words(NamedTuple):
    message: str
    hint: str | None = None


def explain(errors: Iterable[ErrorDetails], root: Mapping, model: Any, problems: Problems) -> None:
    """Report why `root` is no `model`, except what follows from a problem reported before."""
    for error in errors:
        place = _locate(error["loc"], root, shape(model))
        if not _is_consequence(error, place):
            _report(error, place, problems)


def keep_numbers_as_text(root: Mapping, model: Any) -> None:
    """Take a number for text where text is expected: `command: [bzip2, -9]`, `password: 0123`.

    As it stands in the file: read as a number it would lose zeros, signs or digits.
    """
    for _, scalar, found in visit(root, shape(model)):
        is_number = isinstance(scalar.value, (int, float)) and not isinstance(scalar.value, bool)
        if is_number and found.annotation in (str, SecretStr):
            scalar.value = scalar.text


def refuse_truths(root: Mapping, model: Any, problems: Problems) -> None:
    """Report ``true`` and ``false`` where a number is expected: pydantic takes them for 1 and 0."""
    for path, scalar, found in visit(root, shape(model)):
        if isinstance(scalar.value, bool) and found.annotation in (int, float):
            problems.add(scalar.at, path, "must be a number, not true or false")


def _locate(loc: tuple[str | int, ...], root: Mapping, top: Shape) -> _Place:
    """Walk the tree along `loc`."""
    place = _Place((), root.at, root.at, root, top)
    skipped = False
    for part in loc:
        if part == "[key]":
            place.on_key, place.at = True, place.owner
        elif place.shape is not None and place.shape.is_union and not skipped:
            # The tag of a union stands in `loc` and not in the file.
            skipped = True
        else:
            place, skipped = _step(place, part), False
    return place


def _step(place: _Place, part: str | int) -> _Place:
    path = (*place.path, part)
    below = place.shape.child(place.node, part) if place.shape else None
    if isinstance(place.node, Mapping):
        entry = place.node.entries.get(str(part))
        if entry is None:
            return _Place(
                path, place.owner, place.owner, None, below, place.node, False, place.shape
            )
        return _Place(
            path, entry.node.at, entry.at, entry.node, below, place.node, False, place.shape
        )
    if isinstance(place.node, Sequence) and isinstance(part, int) and part < len(place.node.items):
        item = place.node.items[part]
        return _Place(path, item.at, item.at, item, below, None, False, place.shape)
    return _Place(
        place.path, place.at, place.owner, place.node, None, place.parent, False, place.parent_shape
    )


def _is_consequence(error: ErrorDetails, place: _Place) -> bool:
    """Whether the cause is a value that is broken: the one concerned, or one of those below it."""
    if error["type"] == "extra_forbidden":
        return False
    if not isinstance(place.node, Mapping):
        return isinstance(place.node, Scalar) and place.node.broken
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        entry = place.node.entries.get("type")
        return entry is not None and isinstance(entry.node, Scalar) and entry.node.broken
    return any(scalar.broken for scalar in scalars(place.node))


def _report(error: ErrorDetails, place: _Place, problems: Problems) -> None:
    kind = error["type"]
    is_type = (
        place.path[-1:] == ("type",)
        and place.parent_shape is not None
        and bool(place.parent_shape.tags)
    )
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        _type_problem(place.node, place.path, place.owner, place.shape, problems)
    elif is_type and place.parent_shape is not None:
        _type_problem(place.parent, place.path[:-1], place.owner, place.parent_shape, problems)
    elif kind == "missing":
        problems.add(place.at, place.path, "is missing", _add_hint(place))
    elif kind == "extra_forbidden":
        model = place.parent_shape.model(place.parent) if place.parent_shape else None
        known = list(model.model_fields) if model else []
        problems.add(place.owner, place.path, "unknown key", suggest(place.path[-1], known, "keys"))
    else:
        words = _words(error, place)
        problems.add(place.at, place.path, words.message, words.hint)


def _type_problem(
    node: Node | None, path: Path, owner: Position, expected: Shape | None, problems: Problems
) -> None:
    """An unknown or missing ``type`` of the mapping `node`."""
    tags = expected.tags if expected else {}
    module = next(iter(tags.values())).__module__ if tags else ""
    what = _KINDS.get(module, "entry")
    entry = node.entries.get("type") if isinstance(node, Mapping) else None
    if entry is None:
        hint = f'add "type", one of: {", ".join(sorted(tags))}'
        problems.add(owner, (*path, "type"), "is missing", hint)
        return
    word = entry.node.value if isinstance(entry.node, Scalar) else None
    if isinstance(entry.node, Scalar) and word is None:
        problems.add(entry.node.at, (*path, "type"), NO_VALUE[0], suggest(None, tags, "types"))
        return
    problems.add(
        entry.node.at, (*path, "type"), f"unknown type of {what}", suggest(word, tags, "types")
    )


def _add_hint(place: _Place) -> str:
    key = show_key(str(place.path[-1]))
    info = place.shape.field if place.shape else None
    text = (info.description if info else None) or ""
    if not text:
        return f'add "{key}"'
    # Descriptions are sentences; a hint is none. Abbreviations keep their capitals.
    first = text if text[:2].isupper() else text[0].lower() + text[1:]
    return f'add "{key}": {first.removesuffix(".")}'


def _words(error: ErrorDetails, place: _Place) -> _Words:
    kind, context = error["type"], error.get("ctx", {})
    if isinstance(place.node, Scalar) and place.node.value is None and not place.on_key:
        return _Words(*NO_VALUE)
    if kind == "string_type" and not isinstance(place.node, Scalar):
        return _Words("must be text, not a list or a mapping")
    if kind == "value_error":
        return _of_validator(context.get("error"))
    if kind == "literal_error":
        return _choice(place)
    if kind in _BOUNDS:
        key, text = _BOUNDS[kind]
        return _Words(f"must be {text} {_in_units(context.get(key), place.shape)}")
    if kind in _LENGTHS:
        return _length(kind, context)
    return _TYPES.get(kind) or _by_suffix(kind)


def _of_validator(error: Any) -> _Words:
    """Our own validators put what is wrong before a semicolon and what to do behind it."""
    message, _, hint = str(error).partition("; ")
    return _Words(message, hint or None)


def _choice(place: _Place) -> _Words:
    allowed = place.shape.choices if place.shape else ()
    if not allowed:
        return _Words("is not allowed here")
    word = place.node.value if isinstance(place.node, Scalar) else None
    meant = nearest(word, allowed) if isinstance(word, str) else None
    return _Words(f"must be {listed(allowed)}", f"did you mean {meant}?" if meant else None)


def _in_units(bound: Any, expected: Shape | None) -> str:
    for item in expected.metadata if expected else ():
        unit = _UNITS.get(getattr(item, "func", None))
        if unit is not None:
            return unit(bound)
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _length(kind: str, context: dict[str, Any]) -> _Words:
    key, bound = _LENGTHS[kind]
    length = context.get(key)
    if key == "min_length" and length == 1:
        return _Words("must not be empty")
    what = "characters" if kind.startswith("string") else "entries"
    return _Words(f"must have {bound} {length} {what}")


_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
_LENGTHS = {
    "too_short": ("min_length", "at least"),
    "too_long": ("max_length", "at most"),
    "string_too_short": ("min_length", "at least"),
    "string_too_long": ("max_length", "at most"),
}
_TEXT = _Words(*NOT_TEXT)
_WHOLE = _Words("must be a whole number")
_TRUTH = _Words("must be true or false")
_MAPPING = _Words(*NOT_A_MAPPING)
_TYPES = {
    "string_type": _TEXT,
    "string_unicode": _Words("must be valid UTF-8 text"),
    "string_pattern_mismatch": _Words("does not have the required form"),
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _Words("is too large a number"),
    "int_from_float": _WHOLE,
    "finite_number": _Words("must be a finite number"),
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "list_type": _Words(*NOT_A_LIST),
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
}


def _by_suffix(kind: str) -> _Words:
    """For kinds that no model uses today; never pydantic's text."""
    if kind.startswith(("float_", "decimal_")):
        return _Words("must be a number")
    if kind.startswith("url_"):
        return _Words("must be a URL", "such as https://host/path")
    if kind.endswith("_type"):
        return _Words(f"must be of the type {kind.removesuffix('_type')}")
    return _Words("is not valid here")
