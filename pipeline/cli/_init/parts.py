"""The parts of a first configuration: models, and the values their keys are to have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from schemas.examples import example, first_keys
from schemas.notifiers import NotifierSpec
from schemas.pipeline import Branch
from schemas.references import COMPRESS
from schemas.retention import RetentionPolicy
from schemas.shapes import Shape, of_field, shape
from schemas.sources import SourceSpec
from schemas.storages import StorageSpec
from schemas.transforms import TransformSpec

UNIONS: dict[str, Any] = {
    "sources": SourceSpec,
    "stages": TransformSpec,
    "storages": StorageSpec,
    "notifiers": NotifierSpec,
}
USUAL = {"sources": "files", "stages": "zstd", "storages": "local"}
"""What there is of a kind when none was chosen."""


@dataclass(frozen=True)
class Part:
    """A block of the file: what its keys are to have; the others are commented out."""

    model: type[BaseModel]
    values: Mapping[str, Any]
    entry: str
    """The name it stands under; variables for its secrets begin with it."""
    is_brief: bool = False
    """Whether keys without a value are left out, instead of commented out."""


@dataclass(frozen=True)
class Choice:
    """What a configuration is to have; the values are its parts, by kind."""

    project: str
    parts: Mapping[str, list[Part]]
    is_brief: bool = False
    """Whether optional keys are left out."""

    def of(self, kind: str) -> list[Part]:
        """The parts of a kind (`sources`, `stages`, `storages`, `notifiers`)."""
        return [replace(each, is_brief=self.is_brief) for each in self.parts[kind]]


def types(kind: str) -> dict[str, type[BaseModel]]:
    """The models of a kind, by their `type`."""
    return shape(UNIONS[kind]).tags


def kind_of(type_name: str) -> str | None:
    """The kind that has a type, or None."""
    return next((kind for kind in UNIONS if type_name in types(kind)), None)


def choose(
    project: str, type_names: Iterable[str], found: Mapping[str, Mapping[str, Any]]
) -> Choice:
    """The parts of some types, with what is usual where none of a kind is named.

    Args:
        project: name of the whole.
        type_names: known types, of any kind, in the order in which they are to stand; each once.
        found: by type, what is known about a source of this machine.
    """
    chosen: dict[str, list[str]] = {kind: [] for kind in UNIONS}
    for name in dict.fromkeys(type_names):
        chosen[kind_of(name) or ""].append(name)
    if COMPRESS.isdisjoint(chosen["stages"]):
        chosen["stages"].insert(0, USUAL["stages"])
    # What is encrypted does not compress.
    chosen["stages"].sort(key=lambda name: name not in COMPRESS)
    for kind, usual in USUAL.items():
        chosen[kind] = chosen[kind] or [usual]
    parts = {
        kind: [part(types(kind)[name], name, found.get(name)) for name in names]
        for kind, names in chosen.items()
    }
    return Choice(project, parts)


def part(model: type[BaseModel], entry: str, known: Mapping[str, Any] | None = None) -> Part:
    """A block with the keys that a first configuration has.

    Args:
        model: what it is.
        entry: the name it stands under.
        known: values of keys; a key with None is left out.
    """
    values = {key: value_of(model, key, entry) for key in first_keys(model)}
    everything = {**values, **(known or {})}
    return Part(model, {key: each for key, each in everything.items() if each is not None}, entry)


def value_of(model: type[BaseModel], key: str, entry: str) -> Any:
    """A value for a key; for a secret, the variable it comes from."""
    at = of_field(model.model_fields[key])
    if is_secret(at):
        return f"${{{variable(entry, key)}}}"
    inner = at.child(None, 0)
    if inner is not None and is_secret(inner):
        return [f"${{{variable(entry, key)}}}"]
    found = example(key, at)
    return f"${{{variable(entry, key)}}}" if found == f"${{{key.upper()}}}" else found


def usual(made: Part, key: str) -> Any:
    """What is shown of a key that is not set: its default, or an example."""
    info = made.model.model_fields[key]
    default = info.get_default()
    at = of_field(info)
    if default not in (None, PydanticUndefined, "", [], {}):
        return default
    if len(at.models) == 1:
        return part(at.models[0], f"{made.entry}_{key}")
    return value_of(made.model, key, made.entry)


def is_secret(at: Shape) -> bool:
    """Whether a key holds what must not be shown."""
    return at.annotation is SecretStr


def variable(entry: str, key: str) -> str:
    """The variable that holds a secret: `OFFSITE_SECRET_KEY`."""
    return re.sub(r"[^A-Z0-9_]", "_", f"{entry}_{key}".upper()).lstrip("_")


def branches(choice: Choice) -> list[Part]:
    """One branch for each storage, which is rotated; only the first shows what else it may have."""
    made = []
    for number, each in enumerate(choice.of("storages")):
        is_brief = choice.is_brief or number > 0
        rotate = replace(part(RetentionPolicy, each.entry), is_brief=is_brief)
        values = {"storage": each.entry, "rotate": rotate}
        made.append(Part(Branch, values, each.entry, is_brief))
    return made
